"""From metadata and prepared recordings to train.csv."""

import json

import numpy as np
import pandas as pd
import pytest

import split_data
from catalog.fold_report import format_report
from catalog.tables import read_table
from configs import UserError
from tests.archive import make_archive, run_script, save, split


def test_copies_under_two_ids_or_two_labels_share_a_fold(tmp_path):
    config = make_archive(tmp_path, {"a": 12, "b": 12})
    same = np.linspace(0, 1, 500, dtype=np.float32)
    for name in ("a/XCa0.ogg", "b/XCb5.ogg", "a/XCa7.ogg"):
        save(config, name, same)
    with config.metadata_path.open("a") as file:
        file.write("a,[],Ann,a/XC103.ogg\nb,[],Ann,b/xc 103 song.ogg\n")
    save(config, "a/XC103.ogg", same[:400])
    save(config, "b/xc 103 song.ogg", same[:300])
    table, report = split(config)
    fold = table.set_index("filename")["kfold"]
    assert fold["a/XCa0.ogg"] == fold["b/XCb5.ogg"] == fold["a/XCa7.ogg"]
    assert fold["a/XC103.ogg"] == fold["b/xc 103 song.ogg"]
    assert report["copies"] == [
        ["a/XCa0.ogg", "a/XCa7.ogg", "b/XCb5.ogg"],
        ["a/XC103.ogg", "b/xc 103 song.ogg"],
    ]
    assert report["other_labels"] == [["a/XCa0.ogg", "a/XCa7.ogg", "b/XCb5.ogg"]]
    assert report["joined"] == {
        "equal to the byte": 3,
        "number of an archive or in the name": 2,
    }
    assert report["leakage"]["id"] == {"distinct": 25, "in_several_folds": []}
    assert report["leakage"]["content"] == {"distinct": 24, "in_several_folds": []}
    assert report["leakage"]["author"] == {"distinct": 1, "in_several_folds": ["Ann"]}


def test_names_without_an_id_join_nothing(tmp_path):
    config = make_archive(tmp_path, {"a": 1})
    names = [f"species{number}/00{n}.wav" for number in range(6) for n in (1, 2)]
    rows = [f"{name.split('/')[0]},{name}\n" for name in names]
    config.metadata_path.write_text("primary_label,filename\n" + "".join(rows))
    for number, name in enumerate(names):
        save(config, name, np.full(100, number, dtype=np.float32))
    table, report = split(config)
    assert report["joined"] == {}
    assert table.loc[table["filename"].str.endswith("001.wav"), "kfold"].nunique() > 1


def test_pieces_and_copies_that_sound_the_same_share_a_fold(tmp_path, rng):
    config = make_archive(tmp_path, {"a": 1})
    names = [f"{label}/{n}.wav" for label in ("a", "b") for n in ("x", "y", "z")]
    names += [f"{name[:-4]}_part{piece}.wav" for name in names for piece in (1, 2)]
    noise = {name: rng.normal(0, 0.1, 96_000).astype(np.float32) for name in names}
    rows = [f"{name.split('/')[0]},{name}\n" for name in [*names, "b/copy of x.wav"]]
    config.metadata_path.write_text("primary_label,filename\n" + "".join(rows))
    for name, waveform in noise.items():
        save(config, name, waveform)
    quiet = np.round(noise["a/x.wav"][500:] * 3000).astype(np.int16)  # 10 ms later, another type
    save(config, "b/copy of x.wav", quiet)
    config.n_folds = 2

    table, report = split(config)
    fold = table.set_index("filename")["kfold"]
    for name in names[:6]:
        assert fold[f"{name[:-4]}_part1.wav"] == fold[f"{name[:-4]}_part2.wav"]
    assert fold["a/x.wav"] == fold["b/copy of x.wav"]
    by_name = {"piece of one recording": 12, "same name in one folder": 6}
    assert report["joined"] == by_name | {"same sound": 2}
    assert report["other_labels"] == [["a/x.wav", "b/copy of x.wav"]]

    config.find_copies = False
    assert split(config)[1]["joined"] == by_name


def test_a_fold_group_that_joins_nothing_is_said(tmp_path, caplog):
    config = make_archive(tmp_path, {"a": 10, "b": 10})
    table = read_table(config.metadata_path)
    table["author"] = [f"author {number}" for number in range(20)]
    config.fold_group = "author"
    split_data.split(table, config)
    assert "fold_group=author joins no recordings: no effect" in caplog.text


def test_fold_group_keeps_authors_together_and_lets_empty_ones_go(tmp_path):
    config = make_archive(tmp_path, {"a": 20, "b": 20})
    table = read_table(config.metadata_path)
    table["author"] = ["Ann", "Ben", "Cy", "  ", ""] * 8
    config.fold_group = "author"
    table, report = split_data.split(table, config)
    assert table.groupby("author")["kfold"].nunique()[["Ann", "Ben", "Cy"]].tolist() == [1, 1, 1]
    assert table.loc[table["author"].str.strip() == "", "kfold"].nunique() > 1
    assert not {"Ann", "Ben", "Cy"} & set(report["leakage"]["author"]["in_several_folds"])


def test_a_class_that_one_group_makes_uneven_is_reported(tmp_path):
    config = make_archive(tmp_path, {"a": 10, "b": 10})
    table = read_table(config.metadata_path)
    table["author"] = ["Ann"] * 6 + [""] * 14
    config.fold_group = "author"
    table, report = split_data.split(table, config)
    assert sorted(table.loc[table["primary_label"] == "a", "kfold"].value_counts()) == [
        1,
        1,
        1,
        1,
        6,
    ]
    assert report["uneven_classes"] == ["a"]


def test_fewer_groups_than_folds_are_refused(tmp_path):
    config = make_archive(tmp_path, {"a": 20})
    config.fold_group = "author"
    with pytest.raises(UserError, match="n_folds=5 is more than the 1 independent groups"):
        split(config)


# The table and the report


def test_table_columns_and_paths(tmp_path):
    config = make_archive(tmp_path, {"b": 6, "a": 6})
    table, _ = split(config)
    metadata = read_table(config.metadata_path)
    assert table.columns.tolist() == [
        *metadata.columns,
        "labels",
        "len_labels",
        "filepath",
        "kfold",
    ]
    assert table["filename"].tolist() == metadata["filename"].tolist()
    assert table["filepath"].iloc[0] == "b/XCb0.ogg.npy"
    assert all((config.train_np_dir / path).is_file() for path in table["filepath"])


def test_leftovers_in_both_directions_with_the_reason(tmp_path):
    config = make_archive(tmp_path, {"a": 10})
    (config.train_np_dir / "a/XCa2.ogg.npy").unlink()
    (config.train_np_dir / "a/XCa4.ogg.npy").unlink()
    save(config, "z/stray.ogg", np.zeros(3))
    config.report_path.write_text(
        "filename,status,seconds,reason\na/XCa2.ogg,silent,3.1,peak is 0\n"
    )
    table, report = split(config)
    assert len(table) == 8
    assert report["rows_without_npy"] == [
        {"row": 4, "filename": "a/XCa2.ogg", "status": "silent", "reason": "peak is 0"},
        {"row": 6, "filename": "a/XCa4.ogg"},
    ]
    assert report["npy_without_row"] == ["z/stray.ogg.npy"]


def test_report_for_people_is_aligned_and_names_rows(tmp_path):
    config = make_archive(tmp_path, {"a": 10, "b": 1})
    with config.metadata_path.open("a") as file:
        file.write("a,oops(,Ann,a/none.ogg\na,[],Ann,a/XCa0.ogg\n")
    lines = format_report(split(config)[1]).splitlines()
    assert lines[0] == "11 recordings of 2 classes"
    assert len({len(line) for line in lines[1:7]}) == 1
    assert [int(line.split()[1]) for line in lines[2:7]] == [3, 2, 2, 2, 2]
    assert (
        "in several folds: 0 of 11 ids, 0 of 11 contents, 0 of 11 sounds, 1 of 1 authors" in lines
    )
    assert "metadata rows without a prepared recording, left out: 1 (row 13, a/none.ogg)" in lines
    assert "malformed secondary_labels, read as none: 1 (row 13, oops()" in lines
    assert "repeated rows, kept once: 1 (14)" in lines


def test_nothing_prepared_says_where_it_looked(tmp_path):
    config = make_archive(tmp_path, {"a": 5})
    config.train_np_dir = tmp_path / "empty"
    with pytest.raises(
        UserError,
        match=r"empty/a/XCa0.ogg.npy does not exist.*0 .npy seen.*run prepare_audios.py first",
    ):
        split(config)


# Links


@pytest.mark.parametrize("which", ["train_np_dir", "train_audio_dir"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_rows_behind_a_link_out_are_refused(tmp_path, which, whole_folder):
    config = make_archive(tmp_path / "root", {"a": 5, "b": 5})
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    folder, suffix = getattr(config, which), ".npy" if which == "train_np_dir" else ""
    (outside / f"XCb3.ogg{suffix}").write_bytes(b"secret")
    (folder / "b").mkdir(parents=True, exist_ok=True)
    if whole_folder:
        (folder / "b").rename(tmp_path / "was")
        (folder / "b").symlink_to(outside)
    else:
        (folder / f"b/XCb3.ogg{suffix}").unlink(missing_ok=True)
        (folder / f"b/XCb3.ogg{suffix}").symlink_to(outside / f"XCb3.ogg{suffix}")
    with pytest.raises(
        UserError, match=r"is a link out of .*row 10 'b/XCb3.ogg" if not whole_folder else "row 7 "
    ):
        split(config)


# The script


def test_script_writes_the_same_bytes_again_and_says_what_is_next(tmp_path):
    config = make_archive(tmp_path, {"NA": 6, "22961": 7, "lone": 1})
    first = run_script(config)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith(
        f"wrote {config.train_dataframe_path} and {config.fold_report_path}\n"
        f"next: python probe.py --root {config.root} (a first model in minutes)\n"
        f"then: python train.py --root {config.root}\n"  # the same settings again
    )
    table, report = config.train_dataframe_path.read_bytes(), config.fold_report_path.read_bytes()
    assert run_script(config).stdout == first.stdout
    assert (config.train_dataframe_path.read_bytes(), config.fold_report_path.read_bytes()) == (
        table,
        report,
    )
    assert json.loads(report)["settings"] == {"n_folds": 5, "seed": 8, "fold_group": None}
    assert not list(tmp_path.glob("*.part"))
    read = pd.read_csv(config.train_dataframe_path, dtype={"labels": str}, keep_default_na=False)
    assert sorted(set(read["labels"])) == ["22961", "NA", "lone"]
    assert read["kfold"].between(0, 4).all()


def test_written_table_is_safe_in_a_spreadsheet_and_whole(tmp_path):
    config = make_archive(tmp_path, {"a": 6})
    table = read_table(config.metadata_path)
    table["author"] = ["=cmd|' /C calc'!A0", "@x", "-15.9", 'say "hi", you', "one\rtwo", "+tab"]
    table.to_csv(config.metadata_path, index=False, lineterminator="\r\n")
    assert run_script(config).returncode == 0
    read = pd.read_csv(config.train_dataframe_path, dtype=str, keep_default_na=False)
    assert read["author"].tolist() == [
        "'=cmd|' /C calc'!A0",
        "'@x",
        "-15.9",
        'say "hi", you',
        "one\ntwo",
        "'+tab",
    ]
    assert b"\r" not in config.train_dataframe_path.read_bytes()


def test_script_does_not_overwrite_the_metadata(tmp_path):
    config = make_archive(tmp_path, {"a": 6})
    before = config.metadata_path.read_bytes()
    answer = run_script(config, "--train-dataframe-path", str(config.metadata_path))
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "is the metadata itself" in answer.stderr
    assert config.metadata_path.read_bytes() == before
