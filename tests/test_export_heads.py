"""Whole networks with every kind of head, exported: each scores real clips as its checkpoint does.

All of them stand in one file, for that takes an export little longer than one. Those whose heads
see the same block have the same encoder.
"""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoint as ckpt
from catalog.train_table import check_table, read_train_table
from configs import Config
from inference.comparison import LIMITS, compare, judge, read_clips
from inference.exported import Session, open_exported
from inference.graph_file import draft
from inference.scorers import TorchModels
from inference.waveform_model import FrontEnd
from model import SED, build_model
from network.heads import POOLINGS
from tests.exporting import CLASSES, ROW, need_onnx
from tests.small_run import copy_of

N_MELS = 32  # of the recordings' settings
FACTORS: dict[str, tuple] = {
    "pooling": POOLINGS,
    "mel_statistics": (0, 8, N_MELS),
    "head_block": (None, -1, -2),
    "head": ("sed", "linear"),
    "head_input": ("mean", "rows"),
    "score_by": ("sigmoid", "softmax"),
    "no_bird_class": (False, True),
}
SEEN = {name: values[0] for name, values in FACTORS.items()}  # test_export.py has it


def pairs_in(row: dict[str, object]) -> set[tuple]:
    return set(itertools.combinations(row.items(), 2))


def sample_rows() -> list[dict[str, object]]:
    """A row for each pooling, with the other values that show the most pairs not shown before."""
    choices = itertools.product(*FACTORS.values())
    rows = [dict(zip(FACTORS, values, strict=True)) for values in choices]
    rows.remove(SEEN)
    shown, chosen = pairs_in(SEEN), []
    for pooling in POOLINGS:
        of_pooling = [row for row in rows if row["pooling"] == pooling]
        chosen.append(max(of_pooling, key=lambda row: len(pairs_in(row) - shown)))
        shown |= pairs_in(chosen[-1])
    return chosen


def save_network(path: Path, config: Config, seed: int) -> Path:
    """Save an untrained network, no part of whose head is as it starts."""
    torch.manual_seed(1)  # of the encoder
    network = build_model(config, len(CLASSES), load_weights=False)
    torch.manual_seed(seed)
    for name, value in network.named_parameters():
        if not name.startswith(("encoder.", "bn0.")):
            n_inputs = value.flatten(1).shape[1] if value.dim() > 1 else 4
            value.data.add_(torch.randn(value.shape) * n_inputs**-0.5)
    for head in (network.linear_head, network.band_statistics):
        if head is not None:
            head.mean.normal_()
            head.std.uniform_(0.5, 1.5)

    about = {"class_names": CLASSES, "config": config.to_dict(), "versions": {}, "fold": 0}
    progress = {"epoch": 3, "step": 30, "history": [ROW], "ema": None}
    ckpt.save_checkpoint(path, {"model": network.state_dict(), **about, **progress})
    return path


class EveryHead(torch.nn.Module):
    """Waveforms (B, n) to the scores of each network: (networks, B, C), (networks, B, T, C)."""

    def __init__(self, models: TorchModels) -> None:
        super().__init__()
        self.front_end = FrontEnd(models.config)
        self.networks = torch.nn.ModuleList(copy.deepcopy(models.models))

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = self.front_end(waveform).expand(-1, 3, -1, -1)
        maps, outputs = {}, []
        for network in self.networks:
            block = network.head.block
            if block not in maps:
                maps[block] = SED.feature_map(network, images)
            network.feature_map = lambda _, block=block: maps[block]
            outputs.append(network(images))
        names = ("clipwise_output", "framewise_output")
        return tuple(torch.stack([output[name] for output in outputs]) for name in names)


def one_of(every: Session, number: int) -> Session:
    return lambda waveforms: [scores[number] for scores in every(waveforms)]


@pytest.mark.slow
def test_every_kind_of_head_is_exported_as_it_is(trained_folds, tmp_path):
    need_onnx()
    rows = sample_rows()
    settings = [copy_of(trained_folds, base_model_name="test_resnet", **row) for row in rows]
    paths = [
        save_network(tmp_path / f"{number}.pth", one, seed=number)
        for number, one in enumerate(settings)
    ]
    models = TorchModels(paths, Config(device="cpu", amp=False))
    draft(tmp_path / "heads.onnx", EveryHead(models), models.config.n_samples, {}, None)
    every = open_exported(tmp_path / "heads.onnx")[0]

    table = check_table(read_train_table(trained_folds.train_dataframe_path))
    clips = read_clips(table, 6, trained_folds, CLASSES)
    for number, row in enumerate(rows):
        alone = copy.copy(models)
        alone.models = models.models[number : number + 1]
        judge(compare(one_of(every, number), alone, clips), "float32", None)
        scores = alone.score(clips.images, frames=True)[0]
        assert np.ptp(scores, axis=1).max() > 10 * LIMITS["float32"], row  # the clips do differ


def test_the_sample_shows_every_value_and_most_pairs():
    rows = [SEEN, *sample_rows()]
    shown = set().union(*map(pairs_in, rows))
    n_pairs = 0
    for (one, values), (other, others) in itertools.combinations(FACTORS.items(), 2):
        assert {row[one] for row in rows} == set(values)
        assert {row[other] for row in rows} == set(others)
        n_pairs += len(values) * len(others)
    assert len(shown) > 0.6 * n_pairs
    assert {row["head"] for row in rows if row["pooling"] == "attention"} == {"sed", "linear"}
