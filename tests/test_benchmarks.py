"""The benchmarks: the arithmetic they share, and each of them once at a tiny size."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import baseline, timing
from benchmarks.material import prepared_archive
from dataset import WaveformDataset

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "prepare": "--files 2 --copies 1 --hours 0.01 --repeats 1",
    "item": "--items 2 --repeats 1 --growth 4",
    "mel": "--clips 1 --repeats 1",
    "loader": "--batches 2 --batch-size 2 --repeats 1 --rows 1000",
    "step": "--model test_efficientnet --batch-size 2 --repeats 6",
    "epoch": "--model test_efficientnet --clips 4 --batch-size 2 --repeats 1",
    "metric": "--rows 50 --classes 3 --repeats 1",
    "startup": "--repeats 1",
    "predict": "--model test_efficientnet --classes 3 --backends torch --minutes 0.2 "
    "--recordings 1 --repeats 1",
    "folds": "--rows 400 --classes 5",
}


def test_candidates_take_turns_in_an_order_that_is_reversed_each_time():
    turns = []
    runs = timing.alternate(
        {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repeats=3, warm_up=1
    )
    assert "".join(turns) in ("abbaabba", "baabbaab")
    assert {name: len(some) for name, some in runs.items()} == {"a": 3, "b": 3}


def test_a_row_holds_medians_and_ratios_by_hand():
    ours = [timing.Run(wall_s, cpu_s=1.0) for wall_s in (1.0, 2.0, 9.0)]
    usual = [timing.Run(wall_s, cpu_s=4.0) for wall_s in (5.0, 8.0, 6.0)]
    first, second = timing.summarise({"ours": ours, "usual": usual}, units=4, unit="clip")
    columns = "ms/clip fastest slowest clips/s".split()
    assert [first[column] for column in columns] == [500, 250, 2250, 2]
    assert (first["times ours"], second["times ours"], second["CPU times ours"]) == (1, 3, 4)


def test_the_interval_of_a_median_by_hand():
    # Of six values, 1/64 of the cases lie beyond either end.
    assert timing.median_interval([5, 1, 2, 6, 3, 4]) == (3.5, 1, 6)

    # Of nine coins 10 of 512 outcomes have at most one head, 46 have at most two: 2 % and 9 %.
    assert timing.median_interval([9, 8, 7, 6, 5, 4, 3, 2, 1]) == (5, 2, 8)
    with pytest.raises(ValueError, match="six values"):
        timing.median_interval([1, 2, 3, 4, 5])


def test_the_interval_of_a_median_holds_it_in_95_percent_of_cases(rng):
    found = [timing.median_interval(values.tolist()) for values in rng.exponential(size=(4000, 25))]
    median = np.log(2)  # of that distribution
    share = np.mean([low <= median <= high for _, low, high in found])
    assert 0.95 <= share < 0.97  # 95.7 % for 25 values


def test_the_table_ends_in_a_line_of_json(capsys):
    rows = [{"candidate": "ours", "ms/clip": 1.25}, {"candidate": "x", "note": "y"}]
    timing.report("some", rows, {"fact": 3})
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["candidate", "ms/clip", "note"],
        ["ours", "1.25"],
        ["x", "y"],
    ]
    assert json.loads(last)["facts"] == {"fact": 3}


def test_the_baseline_makes_the_same_validation_image():
    """Its Normalize is undone here, for ours leaves that to the model."""
    with prepared_archive(None, n_recordings=8, seconds=6.0) as (config, df):
        usual = baseline.BaselineDataset(df, config, "valid")[3]
        ours = WaveformDataset(df, config, "valid")[3]

    mean = np.array(baseline.IMAGENET_MEAN)[:, None, None]
    std = np.array(baseline.IMAGENET_STD)[:, None, None]
    image = usual["image"].numpy() * std + mean
    np.testing.assert_allclose(image, ours["image"].numpy(), atol=2e-5)
    np.testing.assert_array_equal(usual["targets"], ours["targets"])


def test_the_baselines_training_images_are_as_bright_on_average():
    with prepared_archive(None, n_recordings=8, seconds=6.0) as (config, df):
        usual = baseline.BaselineDataset(df, config, "train", n_pink=1)
        ours = WaveformDataset(df, config, "train")
        assert usual[0]["image"].shape == (3, config.n_frames, config.n_mels)
        usual_mean, ours_mean = mean_of_first_channel(usual), mean_of_first_channel(ours)

    usual_mean = usual_mean * baseline.IMAGENET_STD[0] + baseline.IMAGENET_MEAN[0]
    assert abs(usual_mean - ours_mean) < 0.15  # other draws, one recipe


def mean_of_first_channel(dataset: torch.utils.data.Dataset) -> float:
    return float(np.mean([float(dataset[k]["image"][0].mean()) for k in range(8)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_each_benchmark_prints_its_line(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    if name == "startup":
        monkeypatch.setattr(module, "IMPORTS", "import json")  # in place of ten seconds
    monkeypatch.setattr(sys, "argv", [name, *TINY[name].split()])
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == name and result["rows"]
    for row in result["rows"]:
        numbers = [value for value in row.values() if isinstance(value, int | float)]
        assert numbers and np.isfinite(numbers).all()


def test_a_benchmark_runs_as_a_module():
    command = [sys.executable, "-m", "benchmarks.metric", *TINY["metric"].split()]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(answer.splitlines()[-1])["facts"]["difference"] < 1e-12
