"""A device without memory for a whole batch: what goes through in halves is the same step."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import checkpoint as ckpt
import train
from benchmarks.kill_loop import differences, make_run
from configs import Config, UserError
from model import SED
from tests.small_run import Linear


class Small(Linear):
    """Stands for a device with memory for n clips; the forward or the backward pass fails."""

    def __init__(self, n: int, where: str) -> None:
        super().__init__()
        self.n, self.where = n, where

    def forward(self, images):
        if len(images) > self.n and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        output = super().forward(images)
        if len(images) > self.n:  # the bias has its gradient by then, the weight not yet
            output["framewise_logit"].register_hook(self._fail)
        return output

    def _fail(self, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_halves_the_micro_batch_and_not_the_step(tmp_path, caplog, where):
    weights, losses = [], []
    for n in (12, 2):
        config, df = make_run(
            tmp_path / str(n),
            train_bs=5,
            accumulation_steps=2,
            models_dir=tmp_path,
            ema_decay=None,
            checkpoint_every_steps=0,
        )
        config.train_dir, config.amp = config.fold_dir(0), False
        fold = train.build_fold(df, df, 0, ["bird0", "bird1", "bird2"], config, torch.device("cpu"))
        torch.manual_seed(0)
        model = Small(n, where)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fold = replace(fold, parts=replace(fold.parts, model=model, optimizer=optimizer))
        train.train_one_epoch(fold)
        weights.append(fold.parts.model.head.weight.detach())
        losses.append(fold.progress.train_loss.avg)
        assert (
            fold.progress.micro_batch == (0 if n == 12 else 2) and fold.progress.skipped_steps == 0
        )
    assert torch.allclose(weights[0], weights[1], rtol=0, atol=1e-6) and losses[0] == pytest.approx(
        losses[1], rel=1e-6
    )
    assert [
        message.split(";")[0] for message in caplog.messages if "clips at a time" in message
    ] == ["CUDA out of memory"] * 2  # 5 to 3 to 2


def test_out_of_memory_in_validation_halves_its_batch_and_changes_no_score(
    tmp_path, monkeypatch, caplog
):
    config, df = make_run(tmp_path, epochs=1, valid_bs=5)
    train.run(df, config)
    small = Config(**{**config.to_dict(), "models_dir": tmp_path / "small"})
    whole, sizes = SED.forward, []

    def forward(model, images):
        sizes.append(len(images))
        if not model.training and len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(model, images)

    monkeypatch.setattr(SED, "forward", forward)
    train.run(df, small)
    assert sizes[-6:] == [5, 3, 2, 2, 1, 1]  # a batch of five, and one of one
    said = [message for message in caplog.messages if "are validated" in message]
    assert said == [
        f"CUDA out of memory; from here on {n} clips at a time are validated" for n in (3, 2)
    ]
    rows = [
        ckpt.read_checkpoint(made.fold_dir(0) / "last.pth")["history"][0]
        for made in (config, small)
    ]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)
    paths = [made.fold_dir(0) / "valid_predictions.npz" for made in (config, small)]
    with np.load(paths[0]) as one, np.load(paths[1]) as two:
        assert np.allclose(one["scores"], two["scores"], rtol=0, atol=1e-6)
    weights = [
        ckpt.read_checkpoint(made.fold_dir(0) / "last.pth")["model"] for made in (config, small)
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_goes_on_with_the_micro_batch_it_had(tmp_path, monkeypatch):
    config, df = make_run(tmp_path, train_bs=6, epochs=2, checkpoint_every_steps=0)
    whole = train.forward_backward

    def forward_backward(fold, mixed):
        if len(mixed.images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(fold, mixed)

    monkeypatch.setattr(train, "forward_backward", forward_backward)
    train.run(df, config)
    broken = Config(**{**config.to_dict(), "models_dir": tmp_path / "other"})
    train.run(df, Config(**{**broken.to_dict(), "epochs": 1}))
    monkeypatch.undo()  # memory enough: the resumed run must keep to the parts that it had
    assert ckpt.read_checkpoint(broken.fold_dir(0) / "last.pth")["micro_batch"] == 3
    train.run(df, broken)
    assert differences(config.fold_dir(0), broken.fold_dir(0)) == []


def test_one_clip_too_much_is_an_error_that_says_what_to_do(tmp_path):
    config, df = make_run(tmp_path, amp=False, ema_decay=None)
    config.train_dir = config.fold_dir(0)
    fold = train.build_fold(df, df, 0, ["bird0", "bird1", "bird2"], config, torch.device("cpu"))
    fold = replace(fold, parts=replace(fold.parts, model=Small(0, "forward")))
    batch = next(iter(fold.train_loader))
    with pytest.raises(UserError, match="CUDA out of memory; one clip alone does not fit"):
        train.train_step(fold, batch)
