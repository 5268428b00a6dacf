"""Which part of the model learns, and how fast: groups of parameters, and what stays frozen."""

from collections.abc import Iterable
from typing import Any

import torch
from timm.models._manipulate import group_parameters
from torch import nn

from configs import Config
from model import HEAD_PREFIXES, PROJECTION


def build_optimizer(
    model: nn.Module, config: Config, device: torch.device
) -> torch.optim.Optimizer:
    """Make AdamW, with the rates of the settings; on CUDA it steps in one kernel."""
    groups = parameter_groups(model, config)
    is_fused = device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=is_fused)


def parameter_groups(model: nn.Module, config: Config) -> Iterable[Any]:
    """Group the parameters by their learning rate, the backbone's last layer first.

    Layer by layer, from the last one down, the backbone learns `layer_decay` times as fast.
    """
    if config.head_lr is None and config.layer_decay == 1.0:
        return model.parameters()

    n_below = layers_below_the_top(model)
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if is_of_head(name):
            key = (1, config.head_lr or config.lr)
        else:
            key = (0, config.lr * config.layer_decay ** n_below[name])
        groups.setdefault(key, []).append(parameter)

    by_rate = sorted(groups.items(), key=lambda item: (item[0][0], -item[0][1]))
    return [{"params": parameters, "lr": lr} for (_, lr), parameters in by_rate]


def layers_below_the_top(model: Any) -> dict[str, int]:
    """Count the layers between each parameter of the backbone and its last layer.

    `bn0`, which every image passes first, goes with the stem.
    """
    matcher = model.encoder.group_matcher(coarse=False)
    layers = group_parameters(model.encoder, matcher, reverse=True)  # by name, 0 is the stem
    names = [name for name, _ in model.encoder.named_parameters()]
    numbers = sorted({layers[name] for name in names})
    place = {number: len(numbers) - 1 - position for position, number in enumerate(numbers)}

    found = {f"encoder.{name}": place[layers[name]] for name in names}
    return found | {"bn0.weight": len(numbers) - 1, "bn0.bias": len(numbers) - 1}


def is_of_head(name: str) -> bool:
    """Say whether a parameter is of the head; all others are of the backbone."""
    return name.startswith(HEAD_PREFIXES)


def keeps_statistics(config: Config, epoch: int) -> bool:
    """Say whether batch statistics stay as they are in an epoch, numbered from 0."""
    is_frozen = epoch < config.frozen_epochs
    return config.frozen_statistics == "always" or (
        config.frozen_statistics == "first" and is_frozen
    )


def learns(name: str, config: Config, epoch: int) -> bool:
    """Say whether a parameter learns in an epoch, numbered from 0.

    The backbone does not in the frozen epochs; in the first epochs with a teacher alone the head
    has nothing to learn from, and after them without a share of the loss the projection has not.
    """
    has_teacher_alone = epoch < config.distill_epochs
    if name.startswith(PROJECTION):
        return has_teacher_alone or config.distill_weight > 0
    if is_of_head(name):
        return not has_teacher_alone
    return epoch >= config.frozen_epochs


def begin_training(model: nn.Module, config: Config, epoch: int) -> None:
    """Put a model in training mode, with what an epoch keeps frozen.

    Args:
        model: the network.
        config: `frozen_epochs` and `frozen_statistics` count.
        epoch: number of the epoch, from 0.
    """
    model.train()
    if config.frozen_epochs or config.distill_epochs:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learns(name, config, epoch))

    if keeps_statistics(config, epoch):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
