"""What a training step costs beyond a bare loop: operations that torch dispatches, and waits."""

from collections import Counter, deque

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train
from losses.named import get_loss
from tests.small_run import build, copy_of, positioned

READS = ("aten._local_scalar_dense.default", "aten.is_nonzero.default")


class CountingMode(TorchDispatchMode):
    """Counts the operations in its block by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fold(df, config):
    """EfficientNet-B0 on small images, without mixing and masks, which a bare loop has not."""
    config = copy_of(config, base_model_name="tf_efficientnet_b0", p_mixup=0.0, p_cutmix=0.0)
    config.p_spec_augment, config.train_bs = 0.0, 2
    fold = build(df, config)
    for group in fold.parts.optimizer.param_groups:
        group["fused"], group["foreach"] = True, False  # as on CUDA: one operation a step
    fold.parts.model.train()
    return fold


def bare_step(fold, images, targets) -> None:
    """Go forward and backward and step, with nothing around it."""
    model, optimizer = fold.parts.model, fold.parts.optimizer
    criterion = get_loss(fold.config.loss_name)
    optimizer.zero_grad()
    criterion(model(images), targets).backward()
    optimizer.step()


def counted(step) -> Counter[str]:
    step()  # the first step makes the optimizer's moments
    with CountingMode() as mode:
        step()
    return mode.counts


@pytest.mark.parametrize("is_late", [False, True])
def test_a_step_dispatches_hardly_more_than_a_bare_loop_and_reads_nothing_one_by_one(fold, is_late):
    fold.late = deque() if is_late else None  # as on CUDA, or as elsewhere
    batch = next(iter(positioned(fold, 1)))
    images, targets = fold.to_device(batch)
    bare = counted(lambda: bare_step(fold, images, targets))
    ours = counted(lambda: train.train_step(fold, batch))
    assert bare.total() > 1000
    assert ours.total() <= 1.03 * bare.total(), ours - bare
    assert sum(ours[name] for name in READS) == 0


def test_undoing_a_step_is_prepared_by_one_copy_for_each_dtype(fold):
    with CountingMode() as mode:
        fold.statistics.remember()
        fold.statistics.put_back()
    assert len(list(fold.parts.model.buffers())) > 140
    assert mode.counts == {"aten._foreach_copy_.default": 4}  # float32 and int64, there and back


def test_put_back_buffers_are_those_that_were_remembered(fold):
    before = [buffer.clone() for buffer in fold.parts.model.buffers()]
    fold.statistics.remember()
    fold.parts.model(torch.rand(2, 3, fold.config.n_frames, fold.config.n_mels))
    changed = [buffer.clone() for buffer in fold.parts.model.buffers()]
    assert any(not torch.equal(*pair) for pair in zip(before, changed, strict=True))
    fold.statistics.put_back()
    assert all(map(torch.equal, fold.parts.model.buffers(), before))
