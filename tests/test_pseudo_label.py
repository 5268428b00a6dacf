"""pseudo_label.py from soundscapes to the table that train.py takes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pseudo_label
from catalog.pseudo_labels import read_pseudo_labels, read_rows
from configs import UserError
from inference.scorers import TorchModels
from inference.windows import Plan
from tests.predicting import RATE, Breaking, save_model, score, song, tiny, write_wav

RULES = "--keep-above 0.6 --zero-below 0.2 --most-of-recording 1"


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with two models and three soundscapes."""
    for seed in (0, 1):
        save_model(tmp_path / f"m{seed}.pth", tiny(), seed=seed)
    for number in range(3):
        name = f"field/site_{number % 2}/dawn_{number}.wav"
        write_wav(tmp_path / name, song(4.0 + number, seed=number))
    return tmp_path


def run(place: Path, output: str, models: str = "m0.pth m1.pth", flags: str = RULES) -> Path:
    words = [str(place / "field"), "--models", *(str(place / name) for name in models.split())]
    rest = f"--output {place / output} {flags} --sample-rate {RATE} --fmax 4000 --root {place}"
    assert pseudo_label.main([*words, *rest.split(), "--num-workers", "2", "--device", "cpu"]) == 0
    return place / output


def test_windows_have_the_mean_of_both_models_and_say_which_was_surest(place, capsys):
    table = read_rows(run(place, "pseudo/one.csv"))
    recordings = {f"{name}": place / "field" / name for name in set(table["filename"])}
    alone = [
        score(TorchModels([place / f"m{k}.pth"], tiny()), recordings, Plan(), place / f"alone{k}")
        for k in (0, 1)
    ]
    names, n_windows = ["NA", "bird1", "bird2"], 0
    for name in recordings:
        each = np.stack([one[name].scores for one in alone])  # (2, n, 3)
        mean = each.mean(axis=0)
        for window in np.flatnonzero(mean.max(axis=1) >= 0.6):
            (row,) = table[(table["filename"] == name) & (table["start_s"] == window)].itertuples()
            expected = {
                names[k]: (mean[window, k], int(each[:, window, k].argmax()))
                for k in range(3)
                if mean[window, k] >= 0.2
            }
            assert set(row.labels) == set(expected)
            for label, found, made_by in zip(row.labels, row.scores, row.made_by, strict=True):
                assert (found, made_by) == (pytest.approx(expected[label][0], abs=1e-4),
                                            expected[label][1])  # fmt: skip
            assert row.weight == pytest.approx(sum(row.scores), abs=1e-3)
            n_windows += 1
    assert 3 < n_windows == len(table) < 15

    about = json.loads((place / "pseudo/one.json").read_text())
    assert [Path(path).name for path in about["models"]] == ["m0.pth", "m1.pth"]
    assert f"{n_windows} windows kept" in capsys.readouterr().out


def test_the_soundscapes_are_prepared_whole_beside_the_table(place):
    table = read_rows(run(place, "pseudo/one.csv"))
    for row in table.itertuples():
        prepared = np.load(place / "pseudo" / row.filepath)
        assert len(prepared) == RATE * (4 + int(Path(row.filename).stem[-1]))


@pytest.mark.parametrize(("broken_model", "batches_left"), [(0, 3), (1, 2)])
def test_a_run_that_was_stopped_ends_with_the_same_table(
    place, monkeypatch, broken_model, batches_left
):
    unbroken = run(place, "unbroken/one.csv").read_bytes()

    opened = []

    def open_breaking(path, config):
        opened.append(Breaking([path], config))
        if len(opened) == broken_model + 1:
            opened[-1].batches_left = batches_left
        return opened[-1]

    monkeypatch.setattr(pseudo_label, "open_models", open_breaking)
    with pytest.raises(KeyboardInterrupt):
        run(place, "broken/one.csv")
    assert not (place / "broken/one.csv").exists()
    n_before = sum(models.n_images for models in opened)

    assert run(place, "broken/one.csv").read_bytes() == unbroken
    assert not list((place / "broken").glob("*.partial*"))
    n_images = sum(models.n_images for models in opened)
    assert n_before < n_images < n_before + 2 * 15  # what was scored is not scored again


@pytest.mark.parametrize(
    ("flags", "plan"),
    [
        ("", Plan(score="mix", shifts_s=(0.25,))),
        ("--score clipwise", Plan(shifts_s=(0.25,))),
        ("--score framewise_max --shifts", Plan(score="framewise_max")),
    ],
)
def test_windows_are_scored_as_the_model_says_unless_flags_say_otherwise(place, flags, plan):
    own = tiny(predict_score="mix", predict_shifts=[0.25])
    save_model(place / "own.pth", own)
    keep_all = "--keep-above 0 --zero-below 0 --most-of-recording 1"
    table = read_rows(run(place, "p/own.csv", "own.pth", f"{keep_all} {flags}"))
    (name,) = {name for name in table["filename"] if name.endswith("dawn_0.wav")}
    models = TorchModels([place / "own.pth"], own)
    found = score(models, {name: place / "field" / name}, plan, place / "alone")[name].scores
    rows = table[table["filename"] == name]
    assert len(rows) == 4
    for row, expected in zip(rows.itertuples(), found, strict=True):
        by_label = dict(zip(row.labels, row.scores, strict=True))
        for label, of_model in zip(["NA", "bird1", "bird2"], expected, strict=True):
            assert by_label[label] == pytest.approx(of_model, abs=1e-4)


def test_a_table_made_from_the_same_is_left_as_it_is(place, monkeypatch):
    path = run(place, "pseudo/one.csv")
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(pseudo_label, "open_models", None)
    assert run(place, "pseudo/one.csv").stat().st_mtime_ns == before


def test_a_labelled_recording_among_the_soundscapes_is_refused(place):
    run(place, "pseudo/one.csv")
    prepared = np.load(place / "pseudo/soundscapes_np/site_0/dawn_0.wav.npy")
    (place / "train_np/wren").mkdir(parents=True)
    np.save(place / "train_np/wren/XC1.ogg.npy", prepared)
    row = {"primary_label": "wren", "labels": "wren", "filepath": "wren/XC1.ogg.npy", "kfold": 0}
    pd.DataFrame([row]).to_csv(place / "train.csv", index=False)
    with pytest.raises(UserError, match="site_0/dawn_0.wav is wren/XC1.ogg of .*train.csv"):
        run(place, "pseudo/two.csv")


def test_models_that_do_not_go_together_are_refused(place):
    save_model(place / "other.pth", tiny(), class_names=["NA", "bird1", "bird3"])
    with pytest.raises(UserError, match="other classes"):
        run(place, "pseudo/one.csv", models="m0.pth other.pth")
    save_model(place / "long.pth", tiny(period=2.0))
    with pytest.raises(UserError, match="other lengths"):
        run(place, "pseudo/one.csv", models="m0.pth long.pth")


def test_classes_in_another_order_are_matched_by_name(place):
    turned = ["bird2", "NA", "bird1"]
    save_model(place / "turned.pth", tiny(), seed=1, class_names=turned)
    flags = "--keep-above 0 --zero-below 0 --most-of-recording 1"
    both = read_rows(run(place, "p/both.csv", models="m0.pth turned.pth", flags=flags))
    first = read_rows(run(place, "p/m0.csv", models="m0.pth", flags=flags))
    second = read_rows(run(place, "p/turned.csv", models="turned.pth", flags=flags))
    for rows in zip(*(one.itertuples() for one in (both, first, second)), strict=True):
        by_label = [dict(zip(row.labels, row.scores, strict=True)) for row in rows]
        for label, mean in by_label[0].items():
            expected = (by_label[1][label] + by_label[2][label]) / 2
            assert mean == pytest.approx(expected, abs=2e-4)


def test_a_review_becomes_windows_that_are_trained_on_with_the_archive(place, capsys):
    review = place / "review.csv"
    review.write_text(
        "filename,start_s,end_s,label,verdict,detected\n"
        "site_0/dawn_0.wav,1,2,wren,yes,wren\n"
        "site_0/dawn_0.wav,3,4,,no,wren\n"
        "site_1/dawn_1.wav,0,1,nocall,other,wren\n"
        "site_1/dawn_1.wav,2,3,,unsure,wren\n"
    )
    words = f"{place / 'field'} --labels {review} --output {place / 'pseudo/own.csv'} --period 1"
    rest = f"--sample-rate {RATE} --fmax 4000 --root {place}".split()
    assert pseudo_label.main([*words.split(), *rest]) == 0
    said = capsys.readouterr().out
    assert "3 windows kept, 1 of them without a bird, 1 of which only a species" in said

    table = read_rows(place / "pseudo/own.csv")
    columns = ["filename", "start_s", "end_s", "labels", "scores", "refuted", "weight"]
    assert table[columns].to_numpy().tolist() == [
        ["site_0/dawn_0.wav", 1.0, 2.0, ("wren",), (1.0,), (), 1.0],
        ["site_0/dawn_0.wav", 3.0, 4.0, (), (), ("wren",), 1.0],
        ["site_1/dawn_1.wav", 0.0, 1.0, (), (), (), 1.0],
    ]
    windows = read_pseudo_labels(place / "pseudo/own.csv", ["robin", "wren"])
    assert windows.is_empty.tolist() == [False, False, True]
    assert windows.chances(0.0).tolist() == [0.5, 0.5, 0.0]  # a "no" is drawn as a label is
    assert windows.refuted.unknown(1, 2).tolist() == [True, False]

    with pytest.raises(UserError, match="--models MODEL that label, or --labels PATH"):
        pseudo_label.main([str(place / "field"), "--output", str(place / "a.csv")])


def test_nothing_sure_is_an_error(place):
    with pytest.raises(UserError, match="no window of .* scores 1 or more"):
        run(place, "pseudo/one.csv", flags="--keep-above 1")


def test_recordings_that_are_scored_later_are_kept_apart(place):
    write_wav(place / "later/dawn_0.wav", song(2.0, seed=7))  # another one of that name
    run(place, "pseudo/one.csv", flags=f"{RULES} --apart {place / 'later'}")
    shutil.copy(place / "field/site_0/dawn_0.wav", place / "later/b.wav")
    with pytest.raises(UserError, match="dawn_0.wav is b.wav of .*later, byte by byte"):
        run(place, "pseudo/two.csv", flags=f"{RULES} --apart {place / 'later'}")


def test_models_of_a_blend_have_its_weights(place):
    models = [TorchModels([place / "m0.pth"], tiny()) for _ in range(2)]
    assert pseudo_label.weights_of(models) is None
    blend = TorchModels([place / "m0.pth", place / "m1.pth"], tiny(), (0.75, 0.25))
    assert pseudo_label.weights_of([models[0], blend]) == [0.5, 0.375, 0.125]
