"""The table of the recordings: read once, for names and for columns."""

import numpy as np
import pytest

from catalog import tables
from configs import UserError
from inference import table_columns
from inference.table_columns import TableColumns
from tests.made_up_scores import made_up


@pytest.fixture
def oof(rng):
    return made_up(rng, n=6)


def test_it_is_read_once_for_all(oof, tmp_path, monkeypatch):
    path, n_read = tmp_path / "train.csv", []

    def read(given):
        n_read.append(given)
        return tables.read_table(given)

    monkeypatch.setattr(table_columns, "read_table", read)
    rows = [f"{name},{k % 2},pond,{name[:1]},robin,Erithacus,Robin" for k, name in
            enumerate(oof.filenames)]  # fmt: skip
    header = "filename,kfold,site,'author,Primary Label,scientific_name,Common_Name"
    path.write_text("\n".join([header, *rows]))
    table = TableColumns(path)
    assert n_read == []
    assert table.names() == {"robin": ("Erithacus", "Robin")}
    (site,) = table.of(oof, ["site"])
    assert site.tolist() == ["pond"] * 6
    assert table.seen(oof, "site").tolist() == ["seen"] * 6
    assert n_read == [path]


def test_recordings_that_it_lacks_have_no_value(oof, tmp_path):
    (tmp_path / "t.csv").write_text(f"filename,site\n'{oof.filenames[1]},pond\n")
    (site,) = TableColumns(tmp_path / "t.csv").of(oof, ["site"])
    assert np.flatnonzero(site == "pond").tolist() in ([1], [])
    assert (site == "").sum() >= 5


def test_what_is_not_there_is_said(oof, tmp_path):
    missing = TableColumns(tmp_path / "none.csv")
    assert missing.names() == {}
    with pytest.raises(UserError, match="none.csv"):
        missing.of(oof, ["site"])
    (tmp_path / "t.csv").write_text("filename,site\na,b\n")
    assert TableColumns(tmp_path / "t.csv").names() == {}
    with pytest.raises(UserError, match="no column 'author'"):
        TableColumns(tmp_path / "t.csv").of(oof, ["author"])
    with pytest.raises(UserError, match="no column 'kfold'"):
        TableColumns(tmp_path / "t.csv").seen(oof, "site")
