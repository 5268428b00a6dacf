"""Folds, copies and the files that split_data writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import split_data
import train
from catalog.folds import assign_folds, group_rows
from configs import Config, UserError
from split_data import content_ids, fold_report, format_report, list_files, read_metadata

SCRIPT = Path(split_data.__file__)


def make_archive(root: Path, recordings: dict[str, int], author: str = "Ann") -> Config:
    """Write a metadata table and a prepared recording of its own content for each row."""
    rows = [
        (label, "[]", author, f"{label}/XC{label}{i}.ogg")
        for label, n in recordings.items()
        for i in range(n)
    ]
    config = Config(root=root)
    config.metadata_path.parent.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "author", "filename"])
    table.to_csv(config.metadata_path, index=False)
    for number, name in enumerate(table["filename"]):
        save(config, name, np.full(100, number, dtype=np.float32))
    return config


def save(config: Config, name: str, samples: np.ndarray) -> None:
    path = config.train_np_dir / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, samples)


def split(config: Config):
    return split_data.split(read_metadata(config.metadata_path), config)


def run_script(config: Config, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--root",
        str(config.metadata_path.parent.parent),
        *flags,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# Dealing into folds


@settings(deadline=None)
@given(st.lists(st.integers(0, 11), min_size=2, max_size=80), st.integers(2, 6), st.integers(0, 5))
def test_single_recordings_are_dealt_evenly(classes, n_folds, seed):
    folds = assign_folds(
        [f"bird{c}" for c in classes], np.arange(len(classes)), n_folds=n_folds, seed=seed
    )
    for name in set(classes):
        counts = np.bincount(folds[np.array(classes) == name], minlength=n_folds)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=6, max_size=80),
    st.integers(2, 6),
)
def test_groups_stay_together_and_no_fold_is_empty(rows, n_folds):
    labels = [f"bird{label}" for label, _ in rows]
    groups = np.unique([group for _, group in rows], return_inverse=True)[1]
    folds = assign_folds(labels, groups, n_folds=n_folds, seed=8)
    assert ((folds >= 0) & (folds < n_folds)).all()
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    if groups.max() + 1 >= n_folds:
        assert set(folds) == set(range(n_folds))


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 9))
def test_single_rows_level_what_groups_left_uneven(group_sizes, n_single, seed):
    sizes = np.array(group_sizes + [1] * n_single)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    folds = assign_folds(["bird"] * len(groups), groups, n_folds=3, seed=seed)
    in_groups = np.bincount(folds[sizes[groups] > 1], minlength=3)
    final = np.bincount(folds, minlength=3)
    assert final.max() - final.min() <= max(1, in_groups.max() - in_groups.min())
    if n_single >= 3 * in_groups.max():  # enough to fill every fold up to the fullest
        assert final.max() - final.min() <= 1


def test_folds_worked_by_hand():
    # Two authors of 2 rows each take a fold each; of the 4 single rows the empty fold gets 3 (level
    # 2, one odd row).
    folds = assign_folds(["a"] * 8, np.array([0, 0, 1, 1, 2, 3, 4, 5]), n_folds=3, seed=1)
    assert folds[0] == folds[1] != folds[2] == folds[3]
    assert sorted(np.bincount(folds, minlength=3)) == [2, 3, 3]


def test_singletons_of_many_species_spread_over_the_folds():
    folds = assign_folds([f"bird{i:02}" for i in range(70)], np.arange(70), n_folds=5, seed=8)
    assert np.bincount(folds).tolist() == [14] * 5
    assert folds.tolist() != sorted(folds.tolist())


def test_the_seed_alone_decides():
    labels = ["a", "b", "c"] * 30
    first, again, other = (
        assign_folds(labels, np.arange(90), n_folds=5, seed=seed) for seed in (8, 8, 9)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_large_groups_are_spread_by_class():
    # 20 groups of 5 rows in 2 classes: 2 groups of each class a fold, 20 rows.
    labels = np.repeat(["a", "b"], 50)
    folds = assign_folds(labels, np.repeat(np.arange(20), 5), n_folds=5, seed=3)
    assert np.bincount(folds[:50]).tolist() == np.bincount(folds[50:]).tolist() == [10] * 5


# Groups of copies


def test_groups_follow_chains():
    ids = np.array([0, 0, 1, 2, 3, 4])
    contents = np.array([0, 1, 1, 2, 3, 4])
    authors = np.array([-1, -1, -1, 7, 7, -1])
    groups = group_rows(ids, contents, authors)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=25))
def test_groups_equal_a_search_by_hand(rows):
    groups = group_rows(np.array([a for a, _ in rows]), np.array([b for _, b in rows]))
    tied = [
        {i} | {j for j, b in enumerate(rows) if any(x == y >= 0 for x, y in zip(a, b, strict=True))}
        for i, a in enumerate(rows)
    ]
    for start in range(len(rows)):
        reached, pending = set(), [start]
        while pending:
            if (i := pending.pop()) not in reached:
                reached.add(i)
                pending += tied[i]
        assert reached == set(np.flatnonzero(groups == groups[start]))
    assert set(groups) == set(range(max(groups) + 1))


def test_files_are_one_content_only_where_every_byte_is(tmp_path):
    plain = bytes(range(256)) * 100
    start, end = b"\1" + plain[1:], plain[:-1] + b"\1"  # differ from plain outside the middle block
    middle = plain[:13_000] + b"\1" + plain[13_001:]
    contents = [plain, start, end, middle, plain[:-1], plain, b"", b"", start]
    paths = []
    for number, data in enumerate(contents):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    assert content_ids(paths).tolist() == [0, 1, 2, 3, 4, 0, 5, 5, 1]
    assert content_ids([]).tolist() == []


def test_a_prepared_file_that_vanishes_is_a_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.npy: cannot be read: No such file"):
        content_ids([tmp_path / "gone.npy", tmp_path / "gone.npy"])


def test_copies_under_two_ids_or_two_labels_share_a_fold(tmp_path):
    config = make_archive(tmp_path, {"a": 12, "b": 12})
    same = np.linspace(0, 1, 500, dtype=np.float32)
    for name in ("a/XCa0.ogg", "b/XCb5.ogg", "a/XCa7.ogg"):
        save(config, name, same)
    with config.metadata_path.open("a") as file:
        file.write("b,[],Ann,b/XCa3.ogg\n")  # the id of a/XCa3.ogg
    save(config, "b/XCa3.ogg", same[:300])
    table, report = split(config)
    fold = table.set_index("filename")["kfold"]
    assert fold["a/XCa0.ogg"] == fold["b/XCb5.ogg"] == fold["a/XCa7.ogg"]
    assert fold["a/XCa3.ogg"] == fold["b/XCa3.ogg"]
    assert report["copies"] == [
        ["a/XCa0.ogg", "a/XCa7.ogg", "b/XCb5.ogg"],
        ["a/XCa3.ogg", "b/XCa3.ogg"],
    ]
    assert report["leakage"]["id"] == {"distinct": 24, "in_several_folds": []}
    assert report["leakage"]["content"] == {"distinct": 23, "in_several_folds": []}
    assert report["leakage"]["author"] == {"distinct": 1, "in_several_folds": ["Ann"]}


def test_fold_group_keeps_authors_together_and_lets_empty_ones_go(tmp_path):
    config = make_archive(tmp_path, {"a": 20, "b": 20})
    table = read_metadata(config.metadata_path)
    table["author"] = ["Ann", "Ben", "Cy", "  ", ""] * 8
    config.fold_group = "author"
    table, report = split_data.split(table, config)
    assert table.groupby("author")["kfold"].nunique()[["Ann", "Ben", "Cy"]].tolist() == [1, 1, 1]
    assert table.loc[table["author"].str.strip() == "", "kfold"].nunique() > 1
    assert not {"Ann", "Ben", "Cy"} & set(report["leakage"]["author"]["in_several_folds"])


def test_a_class_that_one_group_makes_uneven_is_reported(tmp_path):
    config = make_archive(tmp_path, {"a": 10, "b": 10})
    table = read_metadata(config.metadata_path)
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
    metadata = read_metadata(config.metadata_path)
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


def test_fold_report_worked_by_hand():
    table = pd.DataFrame(
        {
            "primary_label": ["a", "a", "b", "c", "c", "c", "c"],
            "filename": [
                "a/1.ogg",
                "a/2.ogg",
                "b/3.ogg",
                "c/1.mp3",
                "c/5.ogg",
                "c/6.ogg",
                "c/7.ogg",
            ],
            "author": ["x", "y", "x", "", "z", "y", "z"],
            "kfold": [0, 1, 0, 1, 1, 1, 0],
        }
    )
    report = fold_report(table, np.array([0, 1, 2, 3, 2, 4, 5]))
    assert report["folds"] == [
        {
            "fold": 0,
            "recordings": 3,
            "classes": 3,
            "classes_without_training_data": ["b"],
            "classes_without_validation_data": [],
        },
        {
            "fold": 1,
            "recordings": 4,
            "classes": 2,
            "classes_without_training_data": [],
            "classes_without_validation_data": ["b"],
        },
    ]
    assert report["leakage"] == {
        "id": {"distinct": 6, "in_several_folds": ["1"]},
        "content": {"distinct": 6, "in_several_folds": ["b/3.ogg"]},
        "author": {"distinct": 3, "in_several_folds": ["z"]},
    }
    assert report["copies"] == [["a/1.ogg", "c/1.mp3"], ["b/3.ogg", "c/5.ogg"]]
    assert report["uneven_classes"] == ["c"]


def test_report_for_people_is_aligned_and_names_rows(tmp_path):
    config = make_archive(tmp_path, {"a": 10, "b": 1})
    with config.metadata_path.open("a") as file:
        file.write("a,oops(,Ann,a/none.ogg\na,[],Ann,a/XCa0.ogg\n")
    lines = format_report(split(config)[1]).splitlines()
    assert lines[0] == "11 recordings of 2 classes"
    assert len({len(line) for line in lines[1:7]}) == 1
    assert [int(line.split()[1]) for line in lines[2:7]] == [3, 2, 2, 2, 2]
    assert "in several folds: 0 of 11 ids, 0 of 11 contents, 1 of 1 authors" in lines
    assert "metadata rows without a prepared recording, left out: 1 ('13, a/none.ogg')" in lines
    assert "malformed secondary_labels, read as none: 1 ('13, oops(')" in lines
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


def test_links_are_listed_where_they_lead_out(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "x.npy").write_bytes(b"x")
    (inside / "a/1.npy").write_bytes(b"1")
    (inside / "a/2.npy").symlink_to("1.npy")
    (inside / "a/out.npy").symlink_to(outside / "x.npy")
    (inside / "folder").symlink_to(outside)
    (inside / "loop.npy").symlink_to("loop.npy")
    (inside / "dir.npy").mkdir()
    os.mkfifo(inside / "pipe.npy")
    files, links = list_files(inside, ".npy")
    assert files == ["a/1.npy", "a/2.npy", "a/out.npy"]
    assert links == ["a/out.npy", "folder"]
    (tmp_path / "alias").symlink_to(inside)
    assert list_files(tmp_path / "alias", ".npy") == (files, links)
    assert list_files(tmp_path / "nowhere") == ([], [])


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
        f"next: python train.py --root {config.root}\n"  # the same settings again
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
    table = read_metadata(config.metadata_path)
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


def test_training_refuses_a_table_whose_metadata_have_changed(tmp_path):
    config = make_archive(tmp_path / "old", {"a": 6})
    config.metadata_path.rename(table := tmp_path / "old" / "my table.csv")
    assert run_script(config, "--metadata-path", str(table), "--n-folds", "3").returncode == 0
    split_data.check_sources(
        config
    )  # where the metadata were is noted, whatever metadata_path says now
    (tmp_path / "old").rename(tmp_path / "new")
    config, table = Config(root=tmp_path / "new"), tmp_path / "new" / "my table.csv"
    split_data.check_sources(config)
    table.write_bytes(table.read_bytes().replace(b"Ann", b"Bob", 1))
    with pytest.raises(UserError) as refused:
        train.run(pd.read_csv(config.train_dataframe_path), config)
    assert f"{table} has changed since {config.train_dataframe_path}" in str(refused.value)
    assert (
        f"run python split_data.py --root {tmp_path}/old --metadata-path '{tmp_path}/old/my table.csv' --n-folds 3"
        in (str(refused.value))
    )
    table.unlink()  # a machine that has only what training needs
    split_data.check_sources(config)


@pytest.mark.parametrize(
    "report", [None, "{}", '{"made_from": {}}', '{"made_from": 5}', "[]", "half a rep", "\xff"]
)
def test_a_table_without_a_report_that_says_what_it_was_made_from_is_taken(tmp_path, report):
    config = make_archive(tmp_path, {"a": 6})
    config.train_dataframe_path.write_text("from elsewhere")
    if report is not None:
        config.fold_report_path.write_text(report, encoding="latin-1")
    split_data.check_sources(config)


def test_a_table_that_was_changed_by_hand_is_taken(tmp_path):
    config = make_archive(tmp_path, {"a": 6})
    assert run_script(config).returncode == 0
    config.metadata_path.write_text("other")
    with pytest.raises(UserError, match="delete .*train_folds.json"):
        split_data.check_sources(config)
    rows = config.train_dataframe_path.read_text().splitlines()
    config.train_dataframe_path.write_text("\n".join(rows[:-1]) + "\n")
    split_data.check_sources(config)


def test_script_does_not_overwrite_the_metadata(tmp_path):
    config = make_archive(tmp_path, {"a": 6})
    before = config.metadata_path.read_bytes()
    answer = run_script(config, "--train-dataframe-path", str(config.metadata_path))
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "is the metadata itself" in answer.stderr
    assert config.metadata_path.read_bytes() == before


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    target = tmp_path / "train.csv"
    target.write_text("old")
    (tmp_path / "train.csv.part").mkdir()
    with pytest.raises(UserError, match=r"train\.csv: cannot be written: Is a directory"):
        split_data._write(target, "new")
    assert target.read_text() == "old"
