"""Every switch of predict.py that changes a score, alone and together, against plain Python.

The reference asks the networks for one clip at a time and does the rest by hand, number by number.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import predict
from inference import command_line
from inference.scorers import TorchModels
from tests.predicting import RATE, SPECIES, named, raw, save_model, song, tiny, write_wav

NORTH, LATER = "north/20230501_050000.wav", "north/20230501_060000.wav"
SOUTH, ELSEWHERE = "south/20230501_050000.wav", "unknown.wav"
POWERS = {"NA": 2.0, "bird1": 0.5}
PRIORS = {("north", "NA"): 0.8, ("south", "NA"): 0.4, ("north", "bird2"): 0.05,
          ("south", "bird2"): 0.0, ("west", "bird2"): 0.5}  # fmt: skip

# Calibration is of clipwise scores that are no ranks.
SWITCHES: dict[str, dict[str, object]] = {
    "nothing": {},
    "everything at once": {
        "stride": 0.6, "shifts": (0.25, -0.4), "average": "logit", "calibration": (0.5, 0.25),
        "site_prior": True, "site_weight": 0.5, "power": POWERS, "smooth": (0.5, 0.25),
        "lean": 0.2,
    },
    "ranks": {"average": "rank", "shifts": (-0.3,), "smooth": ("gaussian", 0.7), "power": 2.0},
    "ranks of mixed scores": {
        "average": "rank", "score": "mix", "site_prior": True, "lean": 1.0, "stride": 1.3,
    },
    "frame maxima": {
        "score": "framewise_max", "site_prior": True, "site_weight": 1.5, "smooth": (1.0,),
    },
    "calibrated": {
        "score": "clipwise", "calibration": (1.5, -1.0), "power": 0.5, "lean": 0.4,
    },
    "mixed scores": {"score": "mix", "average": "logit", "power": POWERS, "shifts": (0.5,)},
}  # fmt: skip


def test_every_switch_of_scores_is_compared():
    """A new flag of these groups belongs into SWITCHES and into the reference below."""
    parser = argparse.ArgumentParser(add_help=False)
    command_line._add_windows(parser)
    command_line._add_adjustments(parser)
    flags = {action.dest for action in parser._actions} | {"calibration"}
    assert flags == set().union(*SWITCHES.values())
    for choices in (action for action in parser._actions if action.choices):
        used = {switches.get(choices.dest, choices.default) for switches in SWITCHES.values()}
        assert used - {None} == set(choices.choices)  # None: as the model's settings say


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two folds, and recordings at two sites and none, one with a second of silence."""
    root = tmp_path_factory.mktemp("switches")
    for fold in (0, 1):
        save_model(named(root / f"Exp_1/fold_{fold}", 1), tiny(), seed=1 + fold)
    half_silent = song(3.3, seed=1)
    half_silent[RATE : 2 * RATE + 2800] = 0
    recordings = {NORTH: song(3.0), LATER: half_silent, SOUTH: song(0.4, seed=2),
                  ELSEWHERE: song(2.15, seed=3)}  # fmt: skip
    for name, samples in recordings.items():
        write_wav(root / "sounds" / name, samples)

    (root / "power.csv").write_text(
        "species,power\n" + "".join(f"{name},{power}\n" for name, power in POWERS.items())
    )
    rows = "".join(f"{site},{name},{prior}\n" for (site, name), prior in PRIORS.items())
    (root / "prior.csv").write_text("site,species,prior\n" + rows)
    return root


# The reference ------------------------------------------------------------------------------------


def windows_of(n_samples: int, stride: int) -> Iterator[int]:
    """Each window but the first adds a tenth of a second or more."""
    yield 0
    start = stride
    while n_samples >= max(start, start - stride + RATE) + RATE // 10:
        yield start
        start += stride


def is_silent(clip: np.ndarray) -> bool:
    edge = RATE // 100
    return float(np.ptp(clip[edge:-edge])) < 2**-15


def clip_scores(models: TorchModels, clip: np.ndarray, kind: str) -> list[float]:
    if is_silent(clip):
        return [0.0] * len(SPECIES)
    output = raw(models, clip)
    scores = []
    for number in range(len(SPECIES)):
        clipwise = float(output["clipwise_output"][number])
        highest = max(float(frame[number]) for frame in output["framewise_output"])
        mixed = 0.75 * clipwise + 0.25 * highest
        scores.append({"clipwise": clipwise, "framewise_max": highest, "mix": mixed}[kind])
    return scores


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def rank_among(value: float, values: list[float]) -> float:
    below, equal = sum(other < value for other in values), sum(other == value for other in values)
    return (below + (equal + 1) / 2) / (len(values) + 1)


def averaged(by_model: list[list[float]], how: str) -> list[float]:
    """Average the scores of a species over models, a number for each window of the run."""
    found = []
    for values in zip(*by_model, strict=True):
        if how == "logit":
            logits = [logit(min(max(value, 1e-7), 1 - 1e-7)) for value in values]
            found.append(sigmoid(sum(logits) / len(logits)))
        elif how == "rank":
            pairs = zip(values, by_model, strict=True)
            found.append(sum(rank_among(*pair) for pair in pairs) / len(values))
        else:
            found.append(sum(values) / len(values))
    return found


def moved_by_site(score: float, site: str, species: str, weight: float) -> float:
    if (site, species) not in PRIORS or score == 0:
        return score
    everywhere = [prior for (_, name), prior in PRIORS.items() if name == species]
    own, mean = PRIORS[site, species], sum(everywhere) / len(everywhere)
    return sigmoid(logit(score) + weight * (logit(max(own, 1e-3)) - logit(mean)))


def smoothed(scores: list[float], words: tuple) -> list[float]:
    def weight(distance: int) -> float:
        if distance == 0:
            return 1.0
        if words[:1] == ("gaussian",):
            value = math.exp(-(distance**2) / (2 * words[1] ** 2))
            return value if value >= 0.01 else 0.0
        return words[distance - 1] if distance <= len(words) else 0.0

    found = []
    for here in range(len(scores)):
        weights = [weight(abs(here - there)) for there in range(len(scores))]
        total = sum(weights[there] * scores[there] for there in range(len(scores)))
        found.append(total / sum(weights))
    return found


def adjusted(scores: list[float], site: str, species: str, switches: dict) -> list[float]:
    """Change the scores of a recording's windows, of one species, in the documented order."""
    if "calibration" in switches:
        slope, offset = switches["calibration"]
        scores = [sigmoid(slope * logit(score) + offset) if score else 0.0 for score in scores]
    if "site_prior" in switches:
        weight = switches.get("site_weight", 0.5)
        scores = [moved_by_site(score, site, species, weight) for score in scores]
    power = switches.get("power", 1.0)
    power = power.get(species, 1.0) if isinstance(power, dict) else power
    scores = smoothed([score**power for score in scores], switches.get("smooth", ()))
    lean = switches.get("lean", 0.0)
    return [(1 - lean) * score + lean * max(scores) for score in scores]


def reference(folder: Path, samples: dict[str, np.ndarray], switches: dict) -> dict[tuple, float]:
    """Score every window of every recording: by file, start in samples and species."""
    paths = [next((folder / f"Exp_1/fold_{fold}").glob("*.pth")) for fold in (0, 1)]
    folds = [TorchModels([path], tiny()) for path in paths]
    stride = round(switches.get("stride", 1.0) * RATE)
    keys, silent, by_model = [], [], ([], [])
    for name, waveform in samples.items():
        for start in windows_of(len(waveform), stride):
            keys.append((name, start))
            silent.append(is_silent(waveform[start : start + RATE]))
            latest = max(start, len(waveform) - RATE)
            shifted = [start + round(shift * RATE) for shift in switches.get("shifts", ())]
            begins = [start, *(min(max(0, begin), latest) for begin in shifted)]
            for models, found in zip(folds, by_model, strict=True):
                clips = [waveform[begin : begin + RATE] for begin in begins]
                kind = switches.get("score", "clipwise")
                of_clips = [clip_scores(models, clip, kind) for clip in clips]
                of_window = [sum(column) / len(begins) for column in zip(*of_clips, strict=True)]
                found.append([0.0] * len(SPECIES) if silent[-1] else of_window)

    wanted = {}
    for number, species in enumerate(SPECIES):
        columns = [[row[number] for row in found] for found in by_model]
        mean = averaged(columns, switches.get("average", "probability"))
        for name in samples:
            own = [place for place, key in enumerate(keys) if key[0] == name]
            site = name.partition("/")[0]
            found = adjusted([mean[place] for place in own], site, species, switches)
            for place, score in zip(own, found, strict=True):
                wanted[*keys[place], species] = 0.0 if silent[place] else score
    return wanted


# The command --------------------------------------------------------------------------------------


def flags_of(switches: dict, folder: Path, tmp_path: Path) -> list[str]:
    words = []
    for name, value in switches.items():
        if name == "calibration":
            line = dict(zip(("slope", "offset"), value, strict=True))
            about = {**line, "method": "platt", "class_names": SPECIES}
            (tmp_path / "line.yaml").write_text(yaml.safe_dump(about))
            value = tmp_path / "line.yaml"
        elif name == "site_prior":
            value = folder / "prior.csv"
        elif isinstance(value, dict):
            value = folder / "power.csv"
        values = value if isinstance(value, tuple) else (value,)
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    return words


@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_written_is_what_plain_python_computes(folder, tmp_path, monkeypatch, name):
    switches = SWITCHES[name]
    output = tmp_path / "scores.csv"
    words = [folder / "Exp_1", folder / "sounds", "--output", output, "--format", "long",
             "--device", "cpu", *flags_of(switches, folder, tmp_path)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
    assert predict.main() == 0

    table = pd.read_csv(output, keep_default_na=False)
    starts = (table["start_s"].astype(float) * RATE).round().astype(int)
    found = dict(zip(zip(table["file"], starts, table["species"], strict=True), table["score"],
                     strict=True))  # fmt: skip

    from soundfile import read

    names = (NORTH, LATER, SOUTH, ELSEWHERE)
    samples = {one: read(folder / "sounds" / one, dtype="float32")[0] for one in names}
    wanted = reference(folder, samples, switches)
    assert found.keys() == wanted.keys()
    for key, score in wanted.items():
        assert found[key] == pytest.approx(score, abs=1e-3), key
    assert sum(score == 0 for score in wanted.values()) >= len(SPECIES)  # the silent window
    assert np.ptp(list(wanted.values())) > 0.3
