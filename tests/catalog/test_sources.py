"""Tables that are out of date."""

import pandas as pd
import pytest

import train
from catalog.sources import check_sources
from configs import Config, UserError
from tests.archive import make_archive, run_script


def test_training_refuses_a_table_whose_metadata_have_changed(tmp_path):
    config = make_archive(tmp_path / "old", {"a": 6})
    config.metadata_path.rename(table := tmp_path / "old" / "my table.csv")
    assert run_script(config, "--metadata-path", str(table), "--n-folds", "3").returncode == 0
    check_sources(config)  # where the metadata were is noted, whatever metadata_path says now
    (tmp_path / "old").rename(tmp_path / "new")
    config, table = Config(root=tmp_path / "new"), tmp_path / "new" / "my table.csv"
    check_sources(config)
    table.write_bytes(table.read_bytes().replace(b"Ann", b"Bob", 1))
    with pytest.raises(UserError) as refused:
        train.run(pd.read_csv(config.train_dataframe_path), config)
    assert f"{table} has changed since {config.train_dataframe_path}" in str(refused.value)
    command = (
        f"run python split_data.py --root {tmp_path}/old "
        f"--metadata-path '{tmp_path}/old/my table.csv' --n-folds 3"
    )
    assert command in str(refused.value)
    table.unlink()  # a machine that has only what training needs
    check_sources(config)


@pytest.mark.parametrize(
    "report", [None, "{}", '{"made_from": {}}', '{"made_from": 5}', "[]", "half a rep", "\xff"]
)
def test_a_table_without_a_report_that_says_what_it_was_made_from_is_taken(tmp_path, report):
    config = make_archive(tmp_path, {"a": 6})
    config.train_dataframe_path.write_text("from elsewhere")
    if report is not None:
        config.fold_report_path.write_text(report, encoding="latin-1")
    check_sources(config)


def test_a_table_that_was_changed_by_hand_is_taken(tmp_path):
    config = make_archive(tmp_path, {"a": 6})
    assert run_script(config).returncode == 0
    config.metadata_path.write_text("other")
    with pytest.raises(UserError, match="delete .*train_folds.json"):
        check_sources(config)
    rows = config.train_dataframe_path.read_text().splitlines()
    config.train_dataframe_path.write_text("\n".join(rows[:-1]) + "\n")
    check_sources(config)
