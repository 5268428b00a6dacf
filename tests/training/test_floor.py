"""The probe's settings, and what a training's history holds of it."""

import numpy as np
import pytest
import torch

import dataset as data
from configs import Config
from tests.small_run import CPU, SPECIES
from training.floor import fit_probe, probe_settings


def test_a_linear_head_of_the_settings_is_the_probes():
    own = Config(head="linear", head_input="mean", mel_statistics=7)
    assert probe_settings(own) is own
    other = probe_settings(Config())
    assert (other.head, other.head_input, other.mel_statistics) == ("linear", "rows", 96)
    assert other.has_softmax_scores


def test_scores_are_those_of_the_fitted_model_on_the_first_clips(df, config):
    config.valid_clips = 2
    train_part, valid_part = data.split_fold(df, 0, [])
    probe = fit_probe(train_part, valid_part, SPECIES, config, CPU)

    from model import build_model

    model = build_model(probe.config, 3)
    model.load_state_dict(probe.state)
    rows = data.WaveformDataset(valid_part, probe.config, "valid", SPECIES)
    images = torch.stack([rows[index]["image"] for index in range(len(rows))])
    with torch.no_grad():
        clipwise = model.eval()(images)["clipwise_output"].numpy()
    assert len(clipwise) == 2 * len(valid_part)
    np.testing.assert_allclose(rows.average_windows(clipwise), probe.scores, atol=1e-5)
    assert probe.columns["probe_macro_ap"] == pytest.approx(1.0)
