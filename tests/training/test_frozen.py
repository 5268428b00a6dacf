"""Frozen features: of which clips, and kept on disk until something changes."""

from dataclasses import replace

import numpy as np
import torch

import training.frozen as frozen
from configs import Config
from model import SED, build_model
from tests.small_run import SPECIES
from training.floor import probe_settings
from training.frozen import EMPTY, NOISY, measure

CPU = torch.device("cpu")


def model_of(settings: Config) -> SED:
    torch.manual_seed(0)
    return build_model(settings, len(SPECIES))


def test_clips_are_also_heard_over_backgrounds_and_backgrounds_alone(df, backgrounds):
    config = replace(backgrounds, no_bird_class=True, probe_clips=2, probe_no_bird=3)
    settings = probe_settings(config)
    model = model_of(settings)
    clips = measure(df, settings, model, CPU)
    # 2.5 s: two clips of a second (the rest is shorter), each clean and twice over a background
    assert len(clips.features) == 24 * 2 * 3 + 2 * 3
    assert (clips.kind == NOISY).sum() == 24 * 2 * 2
    assert (clips.row[clips.kind == EMPTY] == -1).all()
    of_first = clips.features[(clips.row == 0) & (clips.window == 0)]
    assert len(np.unique(of_first, axis=0)) == 3


def test_features_are_measured_once_and_again_where_a_recording_changed(df, config, monkeypatch):
    settings = probe_settings(config)
    model = model_of(settings)
    calls, encode = [], frozen.encode
    monkeypatch.setattr(frozen, "encode", lambda *a: calls.append(1) or encode(*a))

    first = measure(df, settings, model, CPU)
    n_calls = len(calls)
    again = measure(df, settings, model, CPU)
    assert len(calls) == n_calls
    np.testing.assert_array_equal(first.features, again.features)

    path = config.train_np_dir / df["filepath"][0]
    np.save(path, np.load(path)[::-1].copy())
    changed = measure(df, settings, model, CPU)
    assert len(calls) == 2 * n_calls
    differs = (changed.features != first.features).any(axis=1)
    assert differs[first.row == 0].all() and not differs[first.row != 0].any()
