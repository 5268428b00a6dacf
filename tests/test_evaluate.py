"""evaluate.py on the folders that training writes."""

import numpy as np
import pandas as pd
import pytest

import evaluate
from configs import UserError
from inference.adjusting import Adjustment
from inference.calibration import Calibration, read_calibration
from inference.evaluated import CALIBRATION
from inference.formats import write as write_form
from inference.out_of_fold import OutOfFold, read_out_of_fold
from inference.score_notes import write_note
from tests.inference.written import CLASSES, one, selection
from tests.made_up_scores import made_up, write


def test_evaluate_writes_its_tables_and_pictures(tmp_path, rng, capsys):
    oof = made_up(rng)
    folder = write(tmp_path / "Exp_1", oof)
    authors = {"filename": oof.filenames, "author": np.where(np.arange(90) < 30, "=a", "b")}
    authors |= {"primary_label": [name.split("/")[0] for name in oof.filenames]}
    authors |= {"kfold": oof.folds}
    authors |= {"scientific_name": "Avis ignota", "common_name": "Unknown Bird"}
    pd.DataFrame(authors).to_csv(tmp_path / "train.csv", index=False)
    table = ["--table", str(tmp_path / "train.csv"), "--by", "author", "--seen", "author"]
    assert evaluate.main([str(folder), "--draws", "20", *table]) == 0
    written = {path.name for path in (folder / "evaluation").iterdir()}
    assert written == {
        "species.csv", "overall.csv", "doctor.csv", "groups.csv", "species.png", "recordings.png",
        "reliability.csv", "reliability.png", "calibration.yaml",
        "evaluation.html",
    }  # fmt: skip
    groups = pd.read_csv(folder / "evaluation" / "groups.csv")
    assert groups["value"].tolist() == ["0", "1", "'=a", "b", "seen"]  # safe in a spreadsheet
    assert groups["column"].iloc[-1] == "author in training"
    assert "macro_ap" in capsys.readouterr().out
    page = (folder / "evaluation" / "evaluation.html").read_text()
    species = pd.read_csv(folder / "evaluation" / "species.csv")
    assert list(species.columns[:3]) == ["species", "scientific_name", "common_name"]
    assert species["common_name"].tolist() == ["Unknown Bird"] * 3
    assert page.count("Unknown Bird") == 3  # names that people know, from the same table


def test_names_that_a_table_lacks_are_left_empty_and_without_any_there_is_no_column():
    species = pd.DataFrame({"species": ["robin", "wren"], "n_positive": [3, 4]}, index=[5, 2])
    named = evaluate.with_names(species, {"wren": ("Troglodytes", "Wren"), "tit": ("Parus", "Tit")})
    assert named.to_numpy().tolist() == [["robin", "", "", 3], ["wren", "Troglodytes", "Wren", 4]]
    assert evaluate.with_names(species, {"tit": ("Parus", "Tit")}) is species


def test_recordings_are_shown_where_they_are(tmp_path, rng):
    oof = made_up(rng, n=30)
    folder = write(tmp_path / "Exp_1", oof)
    (tmp_path / "prepared" / "robin").mkdir(parents=True)
    np.save(tmp_path / "prepared" / "robin" / "0.wav.npy", rng.normal(0, 0.1, 99_000).astype("f4"))
    flags = ["--draws", "5", "--calibrate", "off", "--audio", str(tmp_path / "prepared")]
    assert evaluate.main([str(folder), *flags]) == 0
    page = (folder / "evaluation" / "evaluation.html").read_text()
    assert not (folder / "evaluation" / "calibration.yaml").exists()
    doctor = pd.read_csv(folder / "evaluation" / "doctor.csv")["filename"].tolist()
    shown = doctor[:12] + doctor[-6:]
    assert page.count('"image":') == ("robin/0.wav" in shown)


def test_a_missing_folder_or_column_is_one_line(tmp_path, rng):
    with pytest.raises(UserError, match="no such folder"):
        evaluate.main([str(tmp_path / "nothing")])
    (tmp_path / "Exp_2" / "fold_0_old").mkdir(parents=True)
    with pytest.raises(UserError, match="train a fold first"):
        read_out_of_fold(tmp_path / "Exp_2")
    folder = write(tmp_path / "Exp_1", made_up(rng))
    (tmp_path / "train.csv").write_text("filename\nrobin/0.wav\n")
    with pytest.raises(UserError, match="no column 'author'"):
        evaluate.main([str(folder), "--table", str(tmp_path / "train.csv"), "--by", "author"])
    (tmp_path / "train.csv").write_text("filename,site\nrobin/0.wav,pond\n")
    with pytest.raises(UserError, match="no column 'kfold'"):
        evaluate.main([str(folder), "--table", str(tmp_path / "train.csv"), "--seen", "site"])


def test_a_table_of_windows_is_scored_against_labels(tmp_path, capsys):
    recordings = [one(f"{name}.ogg") for name in "ab"]
    write_form(tmp_path / "windows.csv", "long", recordings, selection())
    rows = "".join(f"{name}.ogg,0,4,bird0\n{name}.ogg,5,9,NA\n" for name in "ab")
    (tmp_path / "labels.csv").write_text("file,start_s,end_s,label\n" + rows)
    flags = ["--labels", str(tmp_path / "labels.csv"), "--draws", "10"]
    assert evaluate.main([str(tmp_path / "windows.csv"), *flags]) == 0
    folder = tmp_path / "evaluation"
    species = pd.read_csv(folder / "species.csv", keep_default_na=False).set_index("species")
    assert species.loc["bird0", "n_positive"] == 2
    assert float(species.loc["bird0", "average_precision"]) == 1  # 0.9 above 0.2 and 0.1
    assert "start_s" in pd.read_csv(folder / "doctor.csv")
    assert not (folder / "groups.csv").exists()
    assert ".ogg at 5 s: NA, seems to be 22961" in capsys.readouterr().out
    with pytest.raises(UserError, match="give --labels FILE"):
        evaluate.main([str(tmp_path / "windows.csv")])


def test_what_predict_calibrated_is_not_calibrated_twice(tmp_path, rng, capsys, caplog):
    line = Calibration(0.5, -1.0)
    scores = rng.uniform(0.05, 0.95, (3, 40, 3)).astype("f4")
    plain = [one(f"{k}.ogg", rows, seconds=200.0) for k, rows in enumerate(scores)]
    given = [one(f"{k}.ogg", line.apply(rows), seconds=200.0) for k, rows in enumerate(scores)]
    labels = ["file,start_s,end_s,label"]
    for k, rows in enumerate(scores):
        sings = rng.random(rows.shape) < rows
        labels += [f"{k}.ogg,{5 * n},{5 * n + 4},{CLASSES[c]}" for n, c in np.argwhere(sings)]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    flags = ["--labels", str(tmp_path / "labels.csv"), "--draws", "5", "--no-page"]
    found = {}
    for name, results, how in (
        ("plain", plain, Adjustment()),
        ("given", given, Adjustment(calibration=line)),
        ("smoothed", given, Adjustment(calibration=line, neighbours=(0.5,))),
    ):
        write_form(tmp_path / f"{name}.csv", "long", results, selection())
        write_note(tmp_path / f"{name}.csv", how)
        output = tmp_path / name
        assert evaluate.main([str(tmp_path / f"{name}.csv"), *flags, "--output", str(output)]) == 0
        found[name] = pd.read_csv(output / "species.csv")["best_f1_threshold"].to_numpy()
    assert found["given"] == pytest.approx(found["plain"], abs=1e-5)  # of the network's scores
    lines = [
        read_calibration(tmp_path / name / CALIBRATION, CLASSES) for name in ("plain", "given")
    ]
    assert lines[1].slope == pytest.approx(lines[0].slope, abs=1e-3)  # for the network's scores
    reliability = pd.read_csv(tmp_path / "given" / "reliability.csv")
    before = reliability[(reliability["of"] == "pairs") & ~reliability["calibrated"]]
    assert before["mean_score"].min() < line.apply(np.float32(0.15))  # what predict.py gave
    assert not (tmp_path / "smoothed" / CALIBRATION).exists()
    assert "scores were changed by --smooth: no calibration.yaml" in caplog.text
    assert "by chance)" in capsys.readouterr().out


def test_the_spread_of_two_seeds_stands_beside_each_score(tmp_path, rng, capsys):
    one = made_up(rng, n=60, noise=0.9)
    twin = OutOfFold(**vars(one) | {"scores": made_up(rng, n=60, noise=0.9).scores})
    folders = [write(tmp_path / f"Exp_{k}", oof) for k, oof in enumerate((one, twin))]
    flags = ["--draws", "5", "--no-page", "--calibrate", "off"]
    assert evaluate.main([str(folders[1]), *flags]) == 0
    assert evaluate.main([str(folders[0]), "--other-seed", str(folders[1]), *flags]) == 0
    ours, theirs = (pd.read_csv(one / "evaluation" / "overall.csv") for one in folders)
    spread = (ours["score"] - theirs["score"]).abs()
    assert ours["score_seed_spread"].tolist() == pytest.approx(spread.tolist())
    assert "roc_auc_seed_spread" in pd.read_csv(folders[0] / "evaluation" / "species.csv")
    assert "+- 0." in capsys.readouterr().out
