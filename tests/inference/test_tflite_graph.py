"""TFLite files: what the converter is given, and where it is installed, what it makes."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import Config
from inference.exported import ABOUT_FILE, LABELS_FILE, open_exported
from inference.scorers import open_models
from inference.tflite_graph import in_row_order, write_tflite
from inference.waveform_model import WaveformModel
from network.tflite_file import read_text
from tests.exporting import CLASSES, expected_scores, export_with


def graph_of(path: Path) -> WaveformModel:
    """The graph that export.py makes of a fold: its weights may be channels_last."""
    models = open_models(path, Config(device="cpu", amp=False, channels_last="on"))
    return WaveformModel(models.models, models.config)


def scattered(graph: torch.nn.Module) -> int:
    return sum(not one.is_contiguous() for one in [*graph.parameters(), *graph.buffers()])


def test_every_weight_is_in_row_order_with_its_values(trained_folds):
    graph = graph_of(trained_folds.fold_dir(0))
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    assert scattered(graph) == 5
    in_row_order(graph)
    assert scattered(graph) == 0
    for name, tensor in graph.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class FakeConverter(types.ModuleType):
    """Stands in for litert-torch: runs the graph on its sample and writes the scores."""

    def __init__(self) -> None:
        super().__init__("litert_torch")
        self.config = types.SimpleNamespace(show_progress=True)

    def convert(self, module, *, sample_kwargs):
        assert not module.training and not self.config.show_progress and scattered(module) == 0
        with torch.inference_mode():
            scores = module(**sample_kwargs)
        shapes = {name: list(value.shape) for name, value in scores.items()}
        written = json.dumps({"in": list(sample_kwargs["waveform"].shape), "out": shapes})
        return types.SimpleNamespace(export=lambda path: Path(path).write_text(written))


def test_the_converter_gets_one_clip_named_outputs_and_weights_in_row_order(
    trained_folds, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "litert_torch", FakeConverter())
    path, about = tmp_path / "birds.tflite", {"class_names": '["NA", "Grünfink"]', "precision": "x"}
    write_tflite(path, graph_of(trained_folds.fold_dir(0)), 32_000, about)

    graph = json.loads(path.read_bytes().partition(b"PK")[0])
    n_frames = 1 + 32_000 // trained_folds.hop_length
    assert graph["in"] == [1, 32_000]
    assert graph["out"] == {"clipwise": [1, 3], "framewise": [1, n_frames, 3]}
    assert json.loads(read_text(path, ABOUT_FILE)) == about
    assert read_text(path, LABELS_FILE) == "NA\nGrünfink\n"


@pytest.mark.slow
def test_a_real_file_of_two_folds_gives_the_mean_of_their_scores(trained_folds, tmp_path, rng):
    for name in ("litert_torch", "ai_edge_litert"):
        pytest.importorskip(name, reason=f"no {name}: see requirements-tflite.txt")
    output = tmp_path / "birds.tflite"
    flags = ("--ensemble", "--to", "tflite", "--output", output)
    path, result = export_with(trained_folds, trained_folds.exp_dir, *flags)
    assert path == output and result.n_clips == 24 and result.difference < 1e-5
    assert "- Input `waveform`: (1, 32000)" in Path(f"{output}.md").read_text()

    clips = list(rng.standard_normal((3, 32_000)).astype(np.float32))
    folds = [expected_scores(trained_folds.fold_dir(fold), clips) for fold in (0, 1)]
    score, about = open_exported(path)
    for number, made in enumerate(score(np.stack(clips))):
        np.testing.assert_allclose(made, (folds[0][number] + folds[1][number]) / 2, atol=1e-5)
    assert np.abs(folds[0][0] - folds[1][0]).max() > 0.01
    assert json.loads(about["class_names"]) == CLASSES == read_text(path, LABELS_FILE).splitlines()
