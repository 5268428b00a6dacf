"""The sound event detection model: a timm backbone under an attention head that looks at each moment of a clip."""

import difflib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchlibrosa.augmentation import SpecAugmentation

from configs import BELOW_ONE, Config, UserError

HUB_TIMEOUT_S = 10.0  # for one answer of the server that holds timm's weights
PROBE_FRAMES = 101  # wide enough for every stem; odd, as 313 is: a backbone must take any length
HEAD_PREFIXES = ("fc1.", "att_blocks.")  # what depends on the classes, or was trained for them


class AttBlockV2(nn.Module):
    """Attention over time, one weight for each class and segment (PANNs, arXiv:1912.10211).

    Args:
        in_features: channels of the input.
        out_features: classes.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.att = nn.Conv1d(in_features, out_features, kernel_size=1)
        self.cla = nn.Conv1d(in_features, out_features, kernel_size=1)
        for layer in (self.att, self.cla):
            _init_layer(layer)

    def attention(self, features: Tensor) -> Tensor:
        """Weights of the segments: (B, in_features, T') -> (B, C, T'), positive, sum 1 over T'."""
        return torch.tanh(self.att(features)).softmax(dim=-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classify each segment and take the attention-weighted sums.

        Args:
            features: (B, in_features, T').

        Returns:
            clipwise_output (B, C): weighted sum of the segments' probabilities (not the sigmoid of
                `logit`);
            logit (B, C): weighted sum of their logits; segmentwise_output and segmentwise_logit (B,
                C, T').
        """
        weights = self.attention(features)  # (B, C, T')
        segmentwise_logit = self.cla(features)  # (B, C, T')
        segmentwise_output = torch.sigmoid(segmentwise_logit)
        clipwise_output = (weights * segmentwise_output).sum(dim=-1)  # (B, C)
        logit = (weights * segmentwise_logit).sum(dim=-1)  # (B, C)
        return clipwise_output, logit, segmentwise_output, segmentwise_logit


class TimmSED(nn.Module):
    """Sound event detection with any timm backbone that gives feature maps.

    Args:
        base_model_name: timm's name, with or without its tag; names that timm has renamed are
            accepted.
        pretrained: start the backbone from ImageNet weights, downloaded by timm or read from
            pretrained_path.
        num_classes: C.
        in_channels: of the images. With other than 3, timm adapts the weights of the first
            convolution.
        n_mels: F, mel bands of the images.
        n_frames: of the framewise outputs; None: as many as the images have.
        pretrained_path: .safetensors or .pth file with the backbone's weights, used if pretrained.
        p_spec_augment: chance that a training batch is masked by SpecAugment.
        dropout: before and after the fully connected layer.

    Raises:
        UserError: for an unknown backbone, one without feature maps, or weights that cannot be had.
        ValueError: for num_classes below 1.
    """

    def __init__(
        self,
        base_model_name: str,
        pretrained: bool = False,
        num_classes: int = 24,
        in_channels: int = 3,
        *,
        n_mels: int = 224,
        n_frames: int | None = None,
        pretrained_path: Path | str | None = None,
        p_spec_augment: float = 0.25,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.base_model_name = find_backbone(base_model_name)
        self.in_channels = in_channels
        self.n_mels = n_mels
        self.n_frames = n_frames
        self.p_spec_augment = p_spec_augment
        self.mean: Tensor
        self.std: Tensor
        n_features, self.is_channels_last, unused = _probe(
            self.base_model_name, in_channels, n_mels
        )
        self.encoder = _create_encoder(
            self.base_model_name, in_channels, pretrained, pretrained_path
        )
        for name in unused:  # without a gradient they would stop training in several processes
            module, _, leaf = name.rpartition(".")
            self.encoder.get_submodule(module).register_parameter(leaf, None)
        # Kept with the weights, so that training, prediction and export cannot differ in them.
        self.register_buffer("mean", _per_channel(self.encoder.pretrained_cfg["mean"], in_channels))
        self.register_buffer("std", _per_channel(self.encoder.pretrained_cfg["std"], in_channels))
        self.bn0 = nn.BatchNorm1d(n_mels)
        self.fc1 = nn.Linear(n_features, n_features)
        _init_layer(self.fc1)
        self.dropout = nn.Dropout(dropout)
        self.att_blocks = nn.ModuleList(AttBlockV2(n_features, num_classes) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score a batch of clips. The head runs in float32, under autocast too.

        In float16 a sigmoid rounds to 1.0 from a logit of 7.6 on; here probabilities lie in [0, 1).

        Args:
            images: (B, in_channels, T, F) float, in [0, 1].

        Returns:
            float32 tensors; T' is the encoder's number of segments, about T / 32.
            `clipwise_output` (B, C): probabilities.
            `logit` (B, C): attention-weighted logits, for the loss.
            `segmentwise_output` (B, T', C): probabilities of the segments.
            `framewise_output` (B, T, C): those, resized to the frames.
            `framewise_logit` (B, T, C): the segments' logits, resized to the frames.

        Raises:
            ValueError: if the images have another number of channels or mel bands.
        """
        if (
            images.ndim != 4
            or images.shape[1] != self.in_channels
            or images.shape[3] != self.n_mels
        ):
            raise ValueError(
                f"images (B, {self.in_channels}, T, {self.n_mels}) are wanted, got {tuple(images.shape)}"
            )
        x = (images - self.mean) / self.std  # (B, 3, T, F)
        x = self.bn0(x.flatten(0, 2)).view_as(images)  # each mel band over batch, channels and time
        if self.training and self.p_spec_augment > 0 and torch.rand(()) < self.p_spec_augment:
            x = spec_augment(x)
        features = self.encoder.forward_features(x.transpose(2, 3))
        if self.is_channels_last:
            features = features.permute(0, 3, 1, 2)
        # (B, n_features, F', T')
        device = features.device.type
        # Entered only where there is something to switch off: exporters cannot translate it.
        with (
            torch.autocast(device, enabled=False)
            if torch.is_autocast_enabled(device)
            else nullcontext()
        ):
            return self._detect(features.float(), n_frames=self.n_frames or images.shape[2])

    def _detect(self, features: Tensor, n_frames: int) -> dict[str, Tensor]:
        x = features.mean(dim=2)  # (B, n_features, T')
        x = F.max_pool1d(x, 3, stride=1, padding=1) + F.avg_pool1d(x, 3, stride=1, padding=1)
        x = self.dropout(x).transpose(1, 2)  # (B, T', n_features)
        x = F.relu(self.fc1(x)).transpose(1, 2)  # (B, n_features, T')
        x = self.dropout(x)
        first, second = (block(x) for block in self.att_blocks)
        clipwise_output, logit, segmentwise_output, segmentwise_logit = (
            (one + other) / 2 for one, other in zip(first, second, strict=True)
        )
        return {
            "clipwise_output": clipwise_output.clamp(max=BELOW_ONE),
            "logit": logit,
            "segmentwise_output": segmentwise_output.transpose(1, 2).clamp(max=BELOW_ONE),
            "framewise_output": _resize(segmentwise_output, n_frames)
            .transpose(1, 2)
            .clamp(max=BELOW_ONE),
            "framewise_logit": _resize(segmentwise_logit, n_frames).transpose(1, 2),
        }


class SED(TimmSED):
    """What training uses: a TimmSED with a fresh head, its encoder optionally from a trained one.

    Args:
        base_model_name: see TimmSED, as are the others.
        pretrained: not used with a pretrained_checkpoint, which brings the encoder's weights.
        num_classes: C, whatever number the checkpoint was trained with.
        in_channels: of the images.
        pretrained_checkpoint: checkpoint of a TimmSED or SED with the same backbone and n_mels. The
            encoder and the normalisation before it are taken over; the head is not.
        **settings: the keyword arguments of TimmSED.

    Raises:
        UserError: for a checkpoint that cannot be read or does not fit, and as TimmSED does.
    """

    def __init__(
        self,
        base_model_name: str,
        pretrained: bool = False,
        num_classes: int = 24,
        in_channels: int = 3,
        *,
        pretrained_checkpoint: Path | str | None = None,
        **settings: Any,
    ) -> None:
        pretrained = pretrained and pretrained_checkpoint is None
        super().__init__(base_model_name, pretrained, num_classes, in_channels, **settings)
        if pretrained_checkpoint is not None:
            self._take_encoder(Path(pretrained_checkpoint))

    def _take_encoder(self, path: Path) -> None:
        state = {
            key: value
            for key, value in _read_state(path).items()
            if not key.startswith(HEAD_PREFIXES)
        }
        wanted = {
            key: value
            for key, value in self.state_dict().items()
            if not key.startswith(HEAD_PREFIXES)
        }
        if "bn0.weight" in state and len(state["bn0.weight"]) != self.n_mels:
            raise UserError(
                f"{path}: trained with n_mels {len(state['bn0.weight'])}, this run has {self.n_mels}; they must agree"
            )
        unfit = [
            key
            for key, value in wanted.items()
            if key not in state or state[key].shape != value.shape
        ]
        unfit += sorted(state.keys() - wanted.keys())
        if unfit:
            raise UserError(
                f"{path}: not the encoder of a {self.base_model_name} with {self.in_channels} input channels: "
                f"{len(unfit)} of {len(wanted)} tensors do not fit (the first: {unfit[0]}); "
                f"pretrained_checkpoint needs the base_model_name it was trained with"
            )
        self.load_state_dict(state, strict=False)


def build_model(config: Config, num_classes: int, *, load_weights: bool = True) -> SED:
    """Model of a run.

    Args:
        config: its settings.
        num_classes: C.
        load_weights: False starts from random weights whatever the settings say, for when a
            checkpoint is loaded afterwards (resuming, predicting): then neither network nor weight
            files are needed.

    Raises:
        UserError: as SED does.
    """
    return SED(
        config.base_model_name,
        config.pretrained and load_weights,
        num_classes,
        config.in_channels,
        n_mels=config.image_bands,
        n_frames=config.n_frames,
        pretrained_path=config.pretrained_path,
        pretrained_checkpoint=config.pretrained_checkpoint if load_weights else None,
        p_spec_augment=config.p_spec_augment,
        dropout=config.dropout,
    )


def spec_augment(images: Tensor) -> Tensor:
    """Set two stripes of time and two of frequency to 0 in each image (SpecAugment, arXiv:1904.08779).

    It belongs after bn0, where 0 is about a band's mean. On a dB scale 0 would be full scale, not
    silence. Stripes are up to 31 frames and 3 bands wide, and narrower than half the image. Draws
    from torch's global generator.

    Args:
        images: (B, channels, T, F), unchanged.

    Returns:
        A new tensor of the same shape; all channels of an image have the same stripes.
    """
    n_frames, n_mels = images.shape[2:]
    augment = SpecAugmentation(
        time_drop_width=max(1, min(32, n_frames // 2)),
        time_stripes_num=2,
        freq_drop_width=max(1, min(4, n_mels // 2)),
        freq_stripes_num=2,
    )
    # It writes in place. On the images that would copy the batch's gradient once a stripe (40 times
    # as slow), so it is given ones.
    mask = augment(torch.ones_like(images[:, :1]))  # (B, 1, T, F)
    return images * mask


# The encoder and its weights ----------------------------------------------------------------------


def find_backbone(name: str) -> str:
    """Name under which timm knows the backbone today.

    Raises:
        UserError: for a name that timm does not know; the message gives the closest ones.
    """
    renamed = timm.models.get_deprecated_models()
    known = {*timm.list_models(include_tags=True), *timm.list_models(), *renamed}
    current = renamed.get(name, name)
    if current in known:
        return str(current)
    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists the names"
    raise UserError(f"unknown base_model_name {name!r}; {hint}")


def _probe(name: str, in_channels: int, n_mels: int) -> tuple[int, bool, list[str]]:
    """Channels of the feature maps, whether that axis is the last, and the parameters which never touch them.

    Such a parameter is a classifier's norm, say. A twin without storage is asked: it computes and
    draws nothing.
    """
    try:
        with torch.device("meta"), torch.enable_grad():
            twin = _create(name, in_channels).eval()
            features = twin.forward_features(torch.empty(1, in_channels, n_mels, PROBE_FRAMES))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"base_model_name {name} takes no images of {n_mels} mel bands and any length ({_one_line(error)}); "
            f"choose a convolutional backbone"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise UserError(
            f"base_model_name {name} gives tokens, not feature maps with a time axis; choose a convolutional backbone"
        )
    is_channels_last = str(getattr(twin, "output_fmt", "NCHW")) == "NHWC"
    parameters = dict(twin.named_parameters())
    gradients = torch.autograd.grad(features.sum(), list(parameters.values()), allow_unused=True)
    unused = [key for key, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    return features.shape[3 if is_channels_last else 1], is_channels_last, unused


def _create_encoder(name: str, in_channels: int, pretrained: bool, path: Path | str | None) -> Any:
    if not pretrained:
        return _create(name, in_channels)
    if path is None:
        return _download(name, in_channels)
    return _load(name, in_channels, Path(path))


def _create(name: str, in_channels: int, **weights: Any) -> Any:
    try:
        return timm.create_model(
            name, in_chans=in_channels, num_classes=0, global_pool="", **weights
        )
    except (
        AssertionError
    ):  # a few will not do without their pooling, which forward_features never reaches
        return timm.create_model(name, in_chans=in_channels, num_classes=0, **weights)


def _download(name: str, in_channels: int) -> Any:
    """Backbone with timm's weights, from the hub or the cache of earlier downloads."""
    from huggingface_hub import constants, get_session

    was_offline = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:  # the kind depends on the release
        # Else it tries again for most of a minute before it looks into its cache.
        constants.HF_HUB_OFFLINE = True
    try:
        return _create(name, in_channels, pretrained=True)
    except Exception as error:  # network, hub, cache and file format each raise their own
        raise UserError(
            f"the ImageNet weights of {name} cannot be had ({_one_line(error)}). Connect to the network, or give a "
            f"file with them as pretrained_path, or start from random weights with pretrained: false"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _load(name: str, in_channels: int, path: Path) -> Any:
    """Backbone with the weights of a file; timm reads tensors only, no pickled code."""
    if not path.is_file():
        raise UserError(f"pretrained_path {path}: no such file")
    weights = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    try:
        encoder = _create(name, in_channels, **weights)
        with torch.random.fork_rng(devices=[]):
            again = dict(_create(name, in_channels, **weights).named_parameters())
    except Exception as error:  # each file format raises its own
        raise UserError(
            f"pretrained_path {path}: not weights of {name} ({_one_line(error)})"
        ) from error
    # timm passes over what the file lacks; such a tensor is random, and another one the second
    # time.
    missing = [
        key for key, value in encoder.named_parameters() if not torch.equal(value, again[key])
    ]
    if missing:
        raise UserError(
            f"pretrained_path {path}: not weights of {name}: it lacks {len(missing)} of {len(again)} tensors (the "
            f"first: {missing[0]}). A checkpoint of this project is given as pretrained_checkpoint"
        )
    return encoder


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"pretrained_checkpoint {path}: no such file") from None
    except Exception as error:  # a damaged file raises one of many kinds
        raise UserError(
            f"pretrained_checkpoint {path}: cannot be read ({_one_line(error)})"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(f"pretrained_checkpoint {path}: holds no model weights")
    return timm.models.clean_state_dict(state)  # without the prefixes of DDP and torch.compile


# Small pieces -------------------------------------------------------------------------------------


def _resize(segments: Tensor, n_frames: int) -> Tensor:
    """(B, C, T') -> (B, C, n_frames), linear between the segments' centres."""
    return F.interpolate(segments, size=n_frames, mode="linear", align_corners=False)


def _per_channel(values: tuple[float, ...], in_channels: int) -> Tensor:
    """RGB values as (in_channels, 1, 1); with other than three channels each gets their mean."""
    rgb = torch.tensor(values, dtype=torch.float32)
    return (rgb if len(rgb) == in_channels else rgb.mean().repeat(in_channels))[:, None, None]


def _init_layer(layer: nn.Linear | nn.Conv1d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _one_line(error: BaseException) -> str:
    """First sentence of the message; those that follow advise on the library's own arguments."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:200] + " ..."


# Where and how precisely it runs ------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """Choose the device: by name, or for "auto" the fastest kind there is.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def compile_model(model: nn.Module) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return the model's forward pass as torch.compile makes it; parameters, names and random draws stay the model's.

    Each shape is compiled by itself, so that numbers do not depend on which came first, as they
    would where one code serves several. Draws are torch's own: the model is masked as it is
    without.
    """
    return torch.compile(model, dynamic=False, options={"fallback_random": True})


def pick_amp_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    """Choose the half precision to train in; None is plain float32, which is faster on most processors."""
    if not config.amp or (config.amp_dtype == "auto" and device.type != "cuda"):
        return None
    return torch.bfloat16 if config.amp_dtype == "bfloat16" else torch.float16
