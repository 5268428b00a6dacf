"""The backbone: any timm model with feature maps, and where its weights come from."""

import difflib
import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from configs import UserError

logger = logging.getLogger("birdclef.model")

HUB_TIMEOUT_S = 10.0  # for one answer of the server that holds timm's weights
PROBE_FRAMES = 101  # wide enough for every stem; odd, as 313 is: a backbone must take any length
KEPT_BYTES = 256 * 2**20  # the most that a backbone's weights may take to be kept for later folds
HUBS = ("hf-hub:", "local-dir:")  # names of models outside timm's own list


class Maps(NamedTuple):
    """What a backbone makes of an image."""

    n_features: int  # channels of the map
    n_rows: int  # of frequency
    is_channels_last: bool
    unused: list[str]  # parameters that never touch the map, such as those of a classifier's norm


def find_backbone(name: str) -> str:
    """Name under which timm knows the backbone today; `hf-hub:` and `local-dir:` names stay.

    Raises:
        UserError: for a name that timm does not know; the message gives the closest ones.
    """
    if name.startswith(HUBS):
        return name

    renamed, known = _list_backbones()
    current = renamed.get(name, name)
    if current in known:
        return str(current)

    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists the names"
    raise UserError(f"unknown base_model_name {name!r}; {hint}")


@functools.cache
def _list_backbones() -> tuple[dict[str, str | None], set[str]]:
    """List today's names of renamed backbones, and all names that timm knows."""
    renamed = timm.models.get_deprecated_models()
    return renamed, {*timm.list_models(include_tags=True), *timm.list_models(), *renamed}


@functools.cache
def examine(name: str, in_channels: int, n_mels: int, block: int | None = None) -> Maps:
    """Find out what maps a backbone makes of images of `n_mels` bands.

    A twin without storage is asked: it computes and draws nothing. It is asked once in a process,
    as it takes half a second.

    Raises:
        UserError: it takes no such images, or makes tokens in place of maps.
    """
    try:
        with torch.device("meta"), torch.enable_grad():
            twin = trim(_create(name, in_channels), block).eval()
            features = twin.forward_features(torch.empty(1, in_channels, n_mels, PROBE_FRAMES))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"base_model_name {name} takes no images of {n_mels} mel bands and any length "
            f"({one_line(error)}); choose a convolutional backbone"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise UserError(
            f"base_model_name {name} gives tokens, not feature maps with a time axis; "
            "choose a convolutional backbone"
        )

    is_channels_last = str(getattr(twin, "output_fmt", "NCHW")) == "NHWC"
    _, *shape = features.shape
    n_features, n_rows = (shape[2], shape[0]) if is_channels_last else shape[:2]
    parameters = dict(twin.named_parameters())
    gradients = torch.autograd.grad(features.sum(), list(parameters.values()), allow_unused=True)
    unused = [key for key, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    return Maps(n_features, n_rows, is_channels_last, unused)


def create_encoder(
    name: str,
    in_channels: int,
    *,
    pretrained: bool,
    path: Path | str | None = None,
    block: int | None = None,
) -> Any:
    """Make the backbone: with random weights, timm's own, or those of a file.

    Args:
        name: of `find_backbone`.
        in_channels: of the images.
        pretrained: take timm's weights, or those of `path`.
        path: file with weights.
        block: see `trim`.

    Raises:
        UserError: the weights cannot be had.
    """
    if not pretrained:
        return trim(_create(name, in_channels), block)

    encoder = _from_earlier(name, in_channels, path)
    if encoder is None:
        encoder = (
            _download(name, in_channels) if path is None else _load(name, in_channels, Path(path))
        )
        _keep(encoder, name, in_channels, path)
    return trim(encoder, block)


def trim(encoder: Any, block: int | None) -> Any:
    """Cut off what comes after a block, so that `forward_features` gives its map.

    Args:
        encoder: timm model; it is changed.
        block: -1 is the last block before the final layers (EfficientNet's `conv_head`), -2 the
            one before; None keeps the model whole. Backbones without `blocks` count their stages.

    Raises:
        UserError: it has no such block.
    """
    if block is None:
        return encoder

    blocks = getattr(encoder, "blocks", None)
    try:
        if isinstance(blocks, nn.Sequential) and hasattr(encoder, "conv_stem"):
            if len(blocks) + block < 1:
                raise ValueError(f"it has {len(blocks)}")
            encoder.blocks = blocks[: len(blocks) + 1 + block]
            for later in ("conv_head", "bn2", "norm_head"):
                if hasattr(encoder, later):
                    setattr(encoder, later, nn.Identity())
        else:
            encoder.prune_intermediate_layers([block], prune_norm=True, prune_head=False)
    except (AttributeError, AssertionError, IndexError, ValueError) as error:
        kind = type(encoder).__name__
        raise UserError(f"head_block {block}: {kind} has no such block ({error})") from None
    return encoder


# Weights ------------------------------------------------------------------------------------------

# Those that were read last, by what they are: the folds of a run start from the same ones.
_read_last: dict[tuple[Any, ...], dict[str, Tensor]] = {}


def _key(name: str, in_channels: int, path: Path | str | None) -> tuple[Any, ...]:
    if path is None:
        return name, in_channels
    about = Path(path).stat()
    return name, in_channels, os.path.abspath(path), about.st_size, about.st_mtime_ns


def _keep(encoder: Any, name: str, in_channels: int, path: Path | str | None) -> None:
    """Keep a copy of a backbone's weights for the next fold, unless they are large."""
    _read_last.clear()
    state = encoder.state_dict()
    if sum(one.numel() * one.element_size() for one in state.values()) <= KEPT_BYTES:
        copies = {key: value.clone() for key, value in state.items()}
        _read_last[_key(name, in_channels, path)] = copies


def _from_earlier(name: str, in_channels: int, path: Path | str | None) -> Any:
    """Make the backbone from the weights that were read last, if they are its; else None.

    The same random numbers are drawn as when they are read.
    """
    try:
        state = _read_last.get(_key(name, in_channels, path))
    except OSError:  # what reads the file says what is wrong with it
        return None
    if state is None:
        return None
    encoder = _create(name, in_channels)
    encoder.load_state_dict(state)
    return encoder


def _create(name: str, in_channels: int, **weights: Any) -> Any:
    try:
        return timm.create_model(
            name, in_chans=in_channels, num_classes=0, global_pool="", **weights
        )
    except AssertionError:
        # A few will not do without their pooling, which forward_features never reaches.
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
            f"the ImageNet weights of {name} cannot be had ({one_line(error)}). Connect to the "
            "network, give a file with them (--pretrained-path FILE), or start from random weights "
            "(--no-pretrained)"
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
            f"pretrained_path {path}: not weights of {name} ({one_line(error)})"
        ) from error

    # timm passes over what the file lacks; such a tensor is random, and another one the second
    # time.
    missing = [
        key for key, value in encoder.named_parameters() if not torch.equal(value, again[key])
    ]
    if missing:
        raise UserError(
            f"pretrained_path {path}: not weights of {name}: it lacks {len(missing)} of "
            f"{len(again)} tensors (the first: {missing[0]}). A checkpoint of this project is "
            "given as pretrained_checkpoint"
        )
    logger.info("%s: all %d tensors of %s; a classifier is left out", path, len(again), name)
    return encoder


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Read the weights of a checkpoint of this project, or of a file of weights alone.

    Raises:
        UserError: it is missing, damaged or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"pretrained_checkpoint {path}: no such file") from None
    except Exception as error:  # a damaged file raises one of many kinds
        raise UserError(
            f"pretrained_checkpoint {path}: cannot be read ({one_line(error)})"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(f"pretrained_checkpoint {path}: holds no model weights")
    return timm.models.clean_state_dict(state)  # without the prefixes of DDP and torch.compile


def one_line(error: BaseException) -> str:
    """First sentence of the message; those that follow advise on the library's own arguments."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:200] + " ..."
