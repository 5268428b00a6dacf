"""Checkpoints that score clips as validation does."""

import numpy as np
import pytest
import torch

from configs import Config, UserError
from inference import scorers
from model import build_model
from tests import predicting
from tests.predicting import RATE, save_model, song, tiny


@pytest.mark.parametrize(
    ("on_cpu", "settings", "wanted"),
    [
        (True, {"valid_bs": 32, "num_workers": 3}, (scorers.CPU_BATCH, 3)),
        (True, {"valid_bs": 2, "num_workers": 0}, (2, 1)),
        (False, {"valid_bs": 32, "num_workers": 3}, (32, 1)),
    ],
)
def test_a_cpu_shares_small_batches_out_to_threads(on_cpu, settings, wanted):
    assert scorers.share_out(Config(**settings), on_cpu=on_cpu) == wanted


def test_each_model_has_its_row_and_frames_have_the_maximum(tmp_path):
    paths = [save_model(tmp_path / f"{seed}.pth", tiny(), seed=seed) for seed in (1, 2)]
    both = scorers.TorchModels(paths, tiny())
    image = both.prepare(song(1.0))
    assert image.shape == (1, 1 + RATE // 128, 32) and (image.min(), image.max()) == (0, 1)

    clipwise, frame_max, frames = both.score([image, image], frames=True)
    assert clipwise.shape == (2, 2, 3) and frames.shape == (2, 2, 63, 3)
    assert np.array_equal(frames.max(axis=2), frame_max)
    assert both.score([image], frames=False)[2] is None
    for number, path in enumerate(paths):
        alone, _, _ = scorers.TorchModels([path], tiny()).score([image], frames=False)
        np.testing.assert_allclose(clipwise[number, 0], alone[0, 0], atol=1e-6)
    assert np.abs(clipwise[0] - clipwise[1]).max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"head": "linear", "mel_statistics": 16}])
def test_what_lies_before_the_head_is_the_same_alone_and_in_a_batch(tmp_path, settings):
    models = scorers.TorchModels([save_model(tmp_path / "m.pth", tiny())], tiny())
    models.models = [build_model(tiny(**settings), 3, load_weights=False).eval()]
    images = [models.prepare(song(1.0, seed=seed)) for seed in range(3)]
    together = models.embed(images)
    assert together.dtype == np.float32 and len(together) == 3
    np.testing.assert_allclose(models.embed(images[1:2])[0], together[1], atol=1e-4)
    assert np.ptp(together, axis=0).max() > 1e-3  # songs differ


def test_averaged_weights_are_taken_where_there_are_any(tmp_path):
    """What validation scored: `model` beside them is wrong here."""
    plain = scorers.TorchModels([save_model(tmp_path / "a.pth", tiny())], tiny())
    averaged = scorers.TorchModels([save_model(tmp_path / "b.pth", tiny(), ema=True)], tiny())
    for one, other in zip(
        plain.models[0].state_dict().values(), averaged.models[0].state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_scores_that_are_not_finite_end_the_run(models, monkeypatch):
    broken = {name: torch.full((1, 3), torch.nan) for name in ("clipwise_output",)}
    broken["framewise_output"] = torch.zeros(1, 63, 3)
    monkeypatch.setattr(models, "_forward", lambda model, batch: broken)
    with pytest.raises(UserError, match="scores are not finite; try --no-amp"):
        models.score([np.zeros((1, 63, 32), np.float32)], frames=False)


def test_a_blend_gives_each_checkpoint_its_share(tmp_path):
    """The folds of an experiment share its weight; the weights go with the order of the models."""
    for exp, folds in (("Exp_1", 2), ("Exp_2", 1)):
        for fold in range(folds):
            save_model(predicting.named(tmp_path / exp / f"fold_{fold}", 1), tiny(), seed=fold)
    blend = "models: [{model: Exp_1, weight: 3}, {model: Exp_2, weight: 1}]"
    (tmp_path / "blend.yaml").write_text(blend)
    models = scorers.open_models(tmp_path / "blend.yaml", Config(device="cpu"))
    assert models.weights == pytest.approx((0.375, 0.375, 0.25)) and len(models.models) == 3
    assert scorers.open_models(tmp_path / "Exp_1", Config(device="cpu")).weights is None
