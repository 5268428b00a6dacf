"""Validation clips that stay on the device: the same batches, made once, where there is room."""

import dataclasses
import gc
import weakref

import pytest
import torch

import train
from dataset import WaveformDataset
from tests.small_run import CPU, SPECIES, build
from training import kept
from training.batches import build_loader
from training.kept import KeptBatches

CUDA = torch.device("cuda")  # a name; nothing here needs the device


class Loader:
    """A loader of a few batches that counts its passes."""

    dataset = "recordings"

    def __init__(self, n_batches: int = 2) -> None:
        self.passes, self.n_batches = 0, n_batches

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self):
        self.passes += 1
        for number in range(1, self.n_batches + 1):
            yield {"image": torch.full((10,), float(number)), "targets": torch.ones(5)}


@pytest.mark.parametrize(("free", "passes"), [(240, 1), (238, 3), (120, 3)])
def test_batches_are_kept_if_all_fit_into_half_of_what_is_free(monkeypatch, free, passes):
    """A batch takes 60 bytes."""
    monkeypatch.setattr(kept, "free_memory", lambda device: free)
    loader = Loader()
    batches = KeptBatches(loader, CPU)
    for _ in range(3):
        found = list(batches)
        assert [batch["image"].tolist() for batch in found] == [[1.0] * 10, [2.0] * 10]
    assert loader.passes == passes
    assert (len(batches), batches.dataset) == (2, "recordings")


def test_what_does_not_fit_as_a_whole_is_let_go_at_once(monkeypatch):
    """Two of the batches would fit, of 60 bytes each; the third is one too many."""
    monkeypatch.setattr(kept, "free_memory", lambda device: 240)
    loader = Loader(n_batches=4)
    batches = iter(KeptBatches(loader, CPU))
    seen = [weakref.ref(next(batches)["image"]) for _ in range(3)]
    gc.collect()
    assert [one() is None for one in seen[:2]] == [True, True]
    assert len(list(batches)) == 1 and loader.passes == 1


def test_a_pass_that_is_broken_off_keeps_nothing(monkeypatch):
    monkeypatch.setattr(kept, "free_memory", lambda device: 10**9)
    loader = Loader()
    batches = KeptBatches(loader, CPU)
    next(iter(batches))
    assert len(list(batches)) == len(list(batches)) == 2
    assert loader.passes == 2


def test_validation_is_kept_on_cuda_alone(df, config):
    for mode, device, expected in [
        ("valid", CUDA, True), ("valid", CPU, False), ("train", CUDA, False)
    ]:  # fmt: skip
        loader, _ = build_loader(WaveformDataset(df, config, mode, SPECIES), config, device)
        assert isinstance(loader, KeptBatches) == expected


def test_kept_validation_scores_as_the_loader_does(df, config, monkeypatch):
    monkeypatch.setattr(kept, "free_memory", lambda device: 10**9)
    fold = build(df, dataclasses.replace(config, valid_bs=4))
    loss, meter = train.validate(fold)
    fold.valid_loader = KeptBatches(fold.valid_loader, CPU)
    for _ in range(2):
        again, of_kept = train.validate(fold)
        assert again == loss and (of_kept.scores == meter.scores).all()
        assert (of_kept.labels == meter.labels).all()
