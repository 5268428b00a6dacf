"""Rounds of self-training: stopped anywhere they end alike; no recording takes a species over."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import checkpoint as ckpt
import predict
import probe
import pseudo_label
from catalog.pseudo_labels import read_rows
from configs import UserError
from examples import self_training
from tests.small_run import Stopped, make_recordings, tiny_config

RATE = 32_000
HERTZ = {"bird0": 1000, "bird1": 3500, "bird2": 6000}
FLAGS = (
    "--base-model-name test_efficientnet --no-pretrained --n-mels 32 --period 1 --folds 0 "
    "--num-workers 0 --device cpu"
)


@pytest.fixture
def script():
    return self_training


def write_song(path: Path, species: list[str], seed: int, *, hertz: float = 0.0) -> None:
    """A second of song for each species, as in the labelled recordings, or one steady tone."""
    rng, time = np.random.default_rng(seed), np.arange(RATE) / RATE
    parts = [
        np.sin(2 * np.pi * HERTZ[name] * time) * (np.sin(7 * time) > 0)
        if not hertz
        else np.sin(2 * np.pi * hertz * time)
        for name in species
    ]
    waveform = np.concatenate(parts) + 0.05 * rng.standard_normal(len(species) * RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform / 2, RATE)


@pytest.fixture
def place(tmp_path) -> Path:
    """Labelled recordings with a first model, soundscapes, and recordings held back."""
    config = tiny_config(tmp_path)
    table = make_recordings(config, 16)
    table.to_csv(config.train_dataframe_path, index=False)
    probe.run(table, config)
    for number in range(4):
        order = np.roll(list(HERTZ), number)
        write_song(tmp_path / f"field/site_{number % 2}/s{number}.wav", [*order, order[0]], number)
        write_song(tmp_path / f"later/s{number}.wav", list(order), 50 + number)
        labels = "".join(f"{k}\t{k + 1}\t{name}\n" for k, name in enumerate(order))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / f"labels/s{number}.txt").write_text(labels)
    return tmp_path


@pytest.fixture
def stages(monkeypatch, script):
    """Run stages in this process, and stop before the one whose number is asked for."""
    done = {"n": 0, "stop_before": 10**9, "names": []}
    mains = {
        "pseudo_label.py": lambda: pseudo_label.main(),
        "probe.py": lambda: probe.main(),
        "predict.py": lambda: predict.main(),
    }

    def run_here(name: str, args) -> None:
        done["n"] += 1
        if done["n"] > done["stop_before"]:
            raise Stopped
        done["names"].append(name)
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        assert mains[name]() == 0

    monkeypatch.setattr(script, "run_stage", run_here)
    return done


def run(script, place: Path, output: str, *more: str, flags: str = FLAGS) -> int:
    words = [str(place / "field"), "--models", str(place / "models/Exp_47_probe")]
    words += ["--output", str(place / output), "--student", "probe", *more]
    held_back = ["--held-back", str(place / "later"), "--labels", str(place / "labels")]
    return script.main([*words, *held_back, "--", "--root", str(place), *flags.split()])


def weights(place: Path, number: int) -> dict[str, np.ndarray]:
    (path,) = (place / f"models/Exp_{47 + number}_probe/fold_0").glob("Exp_*.pth")
    state = ckpt.read_checkpoint(path)
    return {name: value.numpy() for name, value in state["model"].items()}


@pytest.mark.slow
def test_rounds_that_were_stopped_anywhere_end_with_the_same_labels_and_weights(
    script, place, stages, capsys
):
    assert run(script, place, "unbroken") == 0
    out = capsys.readouterr().out
    assert "round 0: macro AP " in out and "round 1: macro AP " in out
    assert "round 2: macro AP " in out

    # A round has three stages: it labels, trains and scores. What is done of it is done again but
    # for the labels; a round with its score is not.
    for stop_before in (1, 2, 3, 1, 2):
        stages |= {"n": 0, "stop_before": stop_before}
        with pytest.raises(Stopped):
            run(script, place, "broken")
    stages |= {"n": 0, "stop_before": 10**9}
    assert run(script, place, "broken") == 0
    first, second = place / "unbroken", place / "broken"
    for number in (1, 2):
        table = f"round_{number}.csv"
        assert (first / table).read_bytes() == (second / table).read_bytes()
        ours, theirs = weights(first, number), weights(second, number)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_planted_tone_does_not_take_a_species_over_in_three_rounds(script, place, stages):
    write_song(place / "field/hum.wav", ["bird1"] * 30, 99, hertz=3500)

    def share_of_tone(output: str, number: int) -> float:
        table = read_rows(place / output / f"round_{number}.csv")
        lead = table["labels"].map(lambda labels: labels[0])
        of_species = table.loc[lead == lead[table["filename"] == "hum.wav"].mode()[0], "filename"]
        return float((of_species == "hum.wav").mean())

    limit = "--label-flags=--most-of-recording 0.34"
    run(script, place, "limited", "--rounds", "3", limit)
    done = sorted((place / "limited").glob("round_?.csv"))
    assert done
    assert max(share_of_tone("limited", number + 1) for number in range(len(done))) <= 0.5

    run(script, place, "free", "--rounds", "1", "--label-flags=--most-of-recording 1")
    assert share_of_tone("free", 1) > 0.8  # without the limit it does


@pytest.mark.slow
def test_rounds_end_when_the_score_falls(script, place, stages, monkeypatch, capsys):
    falling = iter([0.9, 0.8, 0.7])

    def macro_ap(found):
        return next(falling), np.full(script.N_BOOTSTRAP, 0.5)

    monkeypatch.setattr(script, "macro_ap", macro_ap)
    run(script, place, "rounds", "--rounds", "3")
    assert "round 1 fell below the one before: use " in capsys.readouterr().out
    assert not (place / "rounds/round_2.csv").exists()
    page = (place / "rounds/round_1.html").read_text()
    assert "0.8000" in page and "-0.1000" in page


@pytest.mark.slow
def test_two_kinds_of_network_label_for_each_other_and_go_on_where_they_were_killed(
    script, place, stages, monkeypatch
):
    kinds = {"one": "test_efficientnet", "other": "test_resnet"}
    for number, (name, backbone) in enumerate(kinds.items()):
        # As an experiment's own settings have a number, which here would be the round's before.
        text = f"base_model_name: {backbone}\nexp_id: {47 - number}\n"
        (place / f"{name}.yaml").write_text(text)
    rising = itertools.count(1)
    monkeypatch.setattr(
        script, "macro_ap", lambda found: (next(rising) / 100, np.full(script.N_BOOTSTRAP, 0.5))
    )
    flags = FLAGS.replace("--base-model-name test_efficientnet ", "")
    students = ["--students", *(str(place / f"{name}.yaml") for name in kinds), "--rounds", "3"]

    # Killed after the second round's labels, and in the third before its score.
    for stop_before in (5, 5):
        stages |= {"n": 0, "stop_before": stop_before}
        with pytest.raises(Stopped):
            run(script, place, "rounds", *students, flags=flags)
    stages |= {"n": 0, "stop_before": 10**9, "names": []}
    assert run(script, place, "rounds", *students, flags=flags) == 0
    assert stages["names"] == ["pseudo_label.py", "probe.py", "predict.py"]  # of the third round

    for number, kind in enumerate(("one", "other", "one"), start=1):
        folder = place / f"rounds/models/Exp_{47 + number}_probe"
        (path,) = (folder / "fold_0").glob("Exp_*.pth")
        trained = ckpt.read_checkpoint(path)["config"]
        assert trained["base_model_name"] == kinds[kind]
        assert Path(trained["pseudo_labels"]).name == f"round_{number}.csv"
        about = json.loads((place / f"rounds/round_{number}.json").read_text())
        (labelled_by,) = about["models"]  # of the kind before, whose rounds went into it
        assert f"/Exp_{46 + number}_probe/" in labelled_by


def test_a_held_back_part_needs_its_labels(script):
    with pytest.raises(UserError, match="go together"):
        script.main(["x", "--models", "m", "--output", "o", "--held-back", "y"])


@pytest.mark.parametrize("config", ["--config all.yaml", "--config=all.yaml"])
def test_a_file_of_settings_beside_those_of_the_students_is_refused(script, config):
    words = ["x", "--models", "m", "--output", "o", "--students", "a.yaml", "--"]
    with pytest.raises(UserError, match="give what all students share as flags behind --"):
        script.main([*words, *config.split(), "--lr", "0.1"])
