"""The sound event detection model: a timm backbone under a head that looks at each moment.

`network/` holds its parts: backbone.py (which one, and its weights), heads.py (from maps to
logits).
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs import BELOW_ONE, Config, UserError
from network.backbone import create_encoder, examine, read_state
from network.backbone import find_backbone as find_backbone
from network.heads import AttBlockV2 as AttBlockV2
from network.heads import (
    BandStatistics,
    LinearHead,
    head_of,
    init_layer,
    resize_segments,
    smooth_over_time,
)
from network.heads import Head as Head
from network.masks import Stripes, cut_stripes, stripes_of
from network.masks import spec_augment as spec_augment

logger = logging.getLogger("birdclef.model")

# What depends on the classes, or was trained for them
PROJECTION = "projection."  # to a teacher's vectors; training has it alone
HEAD_PREFIXES = ("fc1.", "att_blocks.", "linear_head.", "band_statistics.", PROJECTION)
SEED_HEAD = Head()


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
        dropout: before the classifier, and before a hidden layer.
        head: what stands on the backbone.
        stripes: cut out of what the backbone sees in training; None cuts none.

    Raises:
        UserError: for an unknown backbone, one without feature maps, or weights that cannot be had.
        ValueError: for num_classes below 1, or an unknown head or pooling.
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
        head: Head = SEED_HEAD,
        stripes: Stripes | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if head.kind not in ("sed", "linear"):
            raise ValueError(f"unknown head {head.kind!r}; choose sed or linear")
        self.base_model_name = find_backbone(base_model_name)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.n_mels = n_mels
        self.n_frames = n_frames
        self.p_spec_augment = p_spec_augment
        self.head, self.stripes = head, stripes
        self.mean: Tensor
        self.std: Tensor

        maps = examine(self.base_model_name, in_channels, n_mels, head.block)
        self.is_channels_last = maps.is_channels_last
        self.encoder = create_encoder(
            self.base_model_name,
            in_channels,
            pretrained=pretrained,
            path=pretrained_path,
            block=head.block,
        )
        for name in maps.unused:  # without a gradient they would stop training in several processes
            module, _, leaf = name.rpartition(".")
            self.encoder.get_submodule(module).register_parameter(leaf, None)
        # Kept with the weights, so that training, prediction and export cannot differ in them.
        self.register_buffer("mean", _per_channel(self.encoder.pretrained_cfg["mean"], in_channels))
        self.register_buffer("std", _per_channel(self.encoder.pretrained_cfg["std"], in_channels))
        self.bn0 = nn.BatchNorm1d(n_mels)

        self.n_inputs = n_inputs = maps.n_features * (maps.n_rows if head.rows else 1)
        self._build_head(n_inputs, maps.n_features, num_classes + head.no_bird, dropout)

    def _build_head(self, n_inputs: int, n_hidden: int, n_outputs: int, dropout: float) -> None:
        """Make the layers after the map: `n_inputs` numbers a segment to `n_outputs` logits."""
        head = self.head
        self.fc1: nn.Linear | None = None
        self.att_blocks: nn.ModuleList | None = None
        self.linear_head: LinearHead | None = None
        self.band_statistics: BandStatistics | None = None
        self.projection: nn.Linear | None = None
        self.register_load_state_dict_pre_hook(_pass_over_projection)

        if head.kind == "sed":
            self.fc1 = nn.Linear(n_inputs, n_hidden)
            init_layer(self.fc1)
            n_inputs = n_hidden
        self.dropout = nn.Dropout(dropout)
        if head.kind == "sed" and head.pooling == "attention":
            self.att_blocks = nn.ModuleList(AttBlockV2(n_inputs, n_outputs) for _ in range(2))
        else:
            self.linear_head = LinearHead(n_inputs, n_outputs, head.pooling)
        if head.statistics:
            self.band_statistics = BandStatistics(
                self.n_mels, head.statistics, n_outputs, head.planes
            )

    def project_to(self, n: int) -> None:
        """Add a projection of the clip's features to a teacher's vectors (n,)."""
        self.projection = nn.Linear(self.n_inputs, n)
        init_layer(self.projection)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Score a batch of clips. The head runs in float32, under autocast too.

        In float16 a sigmoid rounds to 1.0 from a logit of 7.6 on; here probabilities lie in [0, 1).

        Args:
            images: (B, in_channels, T, F) float, in [0, 1].

        Returns:
            float32 tensors; T' is the encoder's number of segments, about T / 32. Logits have a
            column more with a class for no bird.
            `clipwise_output` (B, C): probabilities.
            `logit` (B, C): pooled logits, for the loss.
            `segmentwise_output` (B, T', C): probabilities of the segments.
            `framewise_output` (B, T, C): those, resized to the frames.
            `framewise_logit` (B, T, C): the segments' logits, resized to the frames.
            `vector` (B, n): after `project_to`, the features averaged over time, projected.

        Raises:
            ValueError: if the images have another number of channels or mel bands.
        """
        features = self.feature_map(images)
        with _full_precision(features.device.type):
            columns = self.columns(features)  # (B, n, T')
            bias = None if self.band_statistics is None else self.band_statistics(images)
            output = self._detect(columns, bias, n_frames=self.n_frames or images.shape[2])
            if self.projection is not None:
                output["vector"] = self.projection(columns.mean(dim=2))
            return output

    def feature_map(self, images: Tensor) -> Tensor:
        """Normalise, mask and encode images (B, in_channels, T, F): (B, n_features, F', T')."""
        if (
            images.ndim != 4
            or images.shape[1] != self.in_channels
            or images.shape[3] != self.n_mels
        ):
            raise ValueError(
                f"images (B, {self.in_channels}, T, {self.n_mels}) are wanted, "
                f"got {tuple(images.shape)}"
            )
        if self.training and self.stripes is not None:
            images = cut_stripes(images, self.stripes)
        if self.head.planes > 1:
            images = images[:, :1].expand_as(images)
        x = (images - self.mean) / self.std  # (B, 3, T, F)
        x = self.bn0(x.flatten(0, 2)).view_as(images)  # each mel band over batch, channels and time
        if self.training and self.p_spec_augment > 0 and torch.rand(()) < self.p_spec_augment:
            x = spec_augment(x)

        features = self.encoder.forward_features(x.transpose(2, 3))
        return features.permute(0, 3, 1, 2) if self.is_channels_last else features

    def columns(self, features: Tensor) -> Tensor:
        """Make a column of numbers for each segment: (B, n_features, F', T') -> (B, n, T')."""
        features = features.float()
        return features.flatten(1, 2) if self.head.rows else features.mean(dim=2)

    def _detect(self, x: Tensor, bias: Tensor | None, n_frames: int) -> dict[str, Tensor]:
        if self.fc1 is not None:
            x = self.dropout(smooth_over_time(x)).transpose(1, 2)  # (B, T', n)
            x = F.relu(self.fc1(x)).transpose(1, 2)  # (B, n_hidden, T')

        x = self.dropout(x)
        clipwise_output = None
        if self.att_blocks is not None:
            first, second = (block(x) for block in self.att_blocks)
            clipwise_output, logit, segmentwise_output, segmentwise_logit = (
                (one + other) / 2 for one, other in zip(first, second, strict=True)
            )
        else:
            assert self.linear_head is not None
            logit, segmentwise_logit = self.linear_head(x)

        if bias is not None:
            logit, segmentwise_logit = logit + bias, segmentwise_logit + bias[:, :, None]
        if clipwise_output is None or bias is not None or self.head.softmax:
            clipwise_output = self._probabilities(logit)
            segmentwise_output = self._probabilities(segmentwise_logit)

        # The class for no bird, if there is one, is the last; it has no score.
        segmentwise_output = segmentwise_output[:, : self.num_classes]
        framewise_output = resize_segments(segmentwise_output, n_frames)
        return {
            "clipwise_output": clipwise_output[:, : self.num_classes].clamp(max=BELOW_ONE),
            "logit": logit,
            "segmentwise_output": segmentwise_output.transpose(1, 2).clamp(max=BELOW_ONE),
            "framewise_output": framewise_output.transpose(1, 2).clamp(max=BELOW_ONE),
            "framewise_logit": resize_segments(segmentwise_logit, n_frames).transpose(1, 2),
        }

    # The regression that a linear head may start from

    def clip_features(self, images: Tensor) -> Tensor:
        """Make the numbers that a linear head's regression sees: (B, n) of images (B, ..., T, F).

        Segments are pooled over time; the statistics of the bands come behind them.
        """
        assert self.linear_head is not None
        columns = self.columns(self.feature_map(images))  # (B, n, T')
        features = self.linear_head.pool_features(columns)
        if self.band_statistics is None:
            return features
        return torch.cat([features, self.band_statistics.measure(images)], dim=1)

    def start_from(self, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take over a regression of `clip_features`, fitted to them less mean, by deviation.

        Args:
            mean: (n,), as is std.
            std: deviations.
            weight: (C, n), with a row more for a class for no bird.
            bias: (C,).
        """
        assert self.linear_head is not None
        n = len(self.linear_head.mean)
        self.linear_head.start_from(mean[:n], std[:n], weight[:, :n], bias)
        if self.band_statistics is not None:
            self.band_statistics.start_from(mean[n:], std[n:], weight[:, n:])

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, C, ...) to probabilities."""
        return logits.softmax(dim=1) if self.head.softmax else torch.sigmoid(logits)


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
            for key, value in read_state(path).items()
            if not key.startswith(HEAD_PREFIXES)
        }
        wanted = {
            key: value
            for key, value in self.state_dict().items()
            if not key.startswith(HEAD_PREFIXES)
        }
        if "bn0.weight" in state and len(state["bn0.weight"]) != self.n_mels:
            raise UserError(
                f"{path}: trained with n_mels {len(state['bn0.weight'])}, this run has "
                f"{self.n_mels}; they must agree"
            )
        unfit = [
            key
            for key, value in wanted.items()
            if key not in state or state[key].shape != value.shape
        ]
        unfit += sorted(state.keys() - wanted.keys())
        if unfit:
            raise UserError(
                f"{path}: not the encoder of a {self.base_model_name} with {self.in_channels} "
                f"input channels: {len(unfit)} of {len(wanted)} tensors do not fit (the first: "
                f"{unfit[0]}); pretrained_checkpoint needs the base_model_name it was trained with"
            )
        self.load_state_dict(state, strict=False)
        logger.info("%s: the encoder's %d tensors; its head is left out", path, len(state))


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
        head=head_of(config),
        stripes=stripes_of(config) if config.p_late_stripes else None,
    )


# Small pieces -------------------------------------------------------------------------------------


def _pass_over_projection(
    module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any
) -> None:
    """Let a model without a projection load a state that has one."""
    if module.projection is None:
        for name in [name for name in state if name.startswith(prefix + PROJECTION)]:
            del state[name]


def _full_precision(device: str) -> Any:
    """Leave autocast, if it is on: exporters cannot translate what need not be entered."""
    is_on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if is_on else nullcontext()


def _per_channel(values: tuple[float, ...], in_channels: int) -> Tensor:
    """RGB values as (in_channels, 1, 1); with other than three channels each gets their mean."""
    rgb = torch.tensor(values, dtype=torch.float32)
    return (rgb if len(rgb) == in_channels else rgb.mean().repeat(in_channels))[:, None, None]


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


def compile_model(
    model: nn.Module, how: Literal["on", "graphs"] = "on"
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return the model's forward pass as torch.compile makes it.

    Parameters, names and random draws stay the model's.

    Each shape is compiled by itself, so that numbers do not depend on which came first, as they
    would where one code serves several. Draws are torch's own: the model is masked as it is
    without.

    Args:
        model: the network.
        how: "graphs" captures the kernels as CUDA graphs as well, which one launch replays. Not run
            on CUDA.
    """
    options: dict[str, Any] = {"fallback_random": True}
    if how == "graphs":
        options["triton.cudagraphs"] = True
    return torch.compile(model, dynamic=False, options=options)


def pick_amp_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    """Choose the half precision to train in; None is plain float32.

    That is faster on most processors.
    """
    if not config.amp or (config.amp_dtype == "auto" and device.type != "cuda"):
        return None
    return torch.bfloat16 if config.amp_dtype == "bfloat16" else torch.float16
