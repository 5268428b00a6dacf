"""The laboratory: what is compared with what, and that a second call trains nothing again."""

import math

import pandas as pd
import pytest
import yaml

from examples import lab
from tests.small_run import make_recordings, tiny_config


def test_differences_are_paired_by_seed_and_fold():
    base = {(8, 0): 0.5, (8, 1): 0.7}
    other = {(8, 0): 0.6, (8, 1): 0.9}
    rows = lab.make_table({"base": base, "other": other})
    assert rows[1][:4] == ["base", "2", "0.6000", f"{math.sqrt(0.02):.4f}"]
    # differences 0.1 and 0.2: mean 0.15, deviation 0.0707, error 0.05
    assert rows[2] == ["other", "2", "0.7500", f"{math.sqrt(0.045):.4f}", "0.1500", "0.0500"]


def test_flags_behind_two_dashes_are_trains():
    flags, rest = lab.read_flags(["a.yaml", "--folds", "0", "1", "--", "--root", "x"])
    assert (flags.folds, flags.seeds, rest) == ([0, 1], [8], ["--root", "x"])


@pytest.mark.slow
def test_two_settings_over_a_fold_are_trained_once(tmp_path, monkeypatch, capsys):
    config = tiny_config(tmp_path, epochs=1)
    make_recordings(config, 12).to_csv(config.train_dataframe_path, index=False)
    paths = []
    for name, changes in {"base": {}, "slow": {"lr": 1e-5}}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config.to_dict() | changes))
        paths.append(str(path))

    monkeypatch.setattr("sys.argv", ["lab.py", *paths])
    assert lab.main() == 0
    table = pd.read_csv(config.models_dir / "lab/macro_ap.csv")
    assert list(table["settings"]) == ["base", "slow"] and table["difference"][0] == 0
    last = config.models_dir / "lab/slow/seed_8/Exp_47/fold_0/last.pth"
    before = last.stat().st_mtime_ns
    assert lab.main() == 0
    assert last.stat().st_mtime_ns == before
