"""The table of the recordings, read once: names of species, and columns to score by."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from catalog.tables import read_table
from configs import UserError
from files import original_cell
from inference.out_of_fold import OutOfFold
from inference.seen import seen_in_training
from inference.selection import Names, find_name_columns


class TableColumns:
    """A table such as train.csv, read when it is first asked for.

    Args:
        path: the table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Its rows as text (UserError: it cannot be read)."""
        return read_table(self.path)

    def names(self) -> Names:
        """Scientific and common names by label; none without such a table or such columns."""
        try:
            rows = self.rows
        except UserError:
            return {}
        columns = find_name_columns(rows.columns)
        if columns is None:
            return {}
        return {label: (one, two) for label, one, two in rows[columns].itertuples(index=False)}

    def of(self, oof: OutOfFold, names: Sequence[str]) -> list[pd.Series]:
        """Look up columns for the scored recordings, a series (n,) str each.

        Raises:
            UserError: no such table or column.
        """
        if missing := [name for name in ("filename", *names) if name not in self.rows]:
            there = ", ".join(self.rows.columns)
            raise UserError(
                f"{self.path}: no column {missing[0]!r} (--by); the columns are {there}"
            )
        files = self.rows["filename"].map(original_cell)
        by_name = self.rows.assign(filename=files).drop_duplicates("filename").set_index("filename")
        return [
            by_name[name].reindex(oof.filenames).fillna("").reset_index(drop=True) for name in names
        ]

    def seen(self, oof: OutOfFold, name: str) -> pd.Series:
        """Say of each recording whether its fold was trained on others of its site, (n,) str.

        Raises:
            UserError: no such table or column, or a table without folds.
        """
        (own,) = self.of(oof, [name])
        if "kfold" not in self.rows:
            raise UserError(
                f"{self.path}: no column 'kfold' (--seen); name the train.csv of split_data.py"
            )
        folds = pd.to_numeric(self.rows["kfold"], errors="coerce").fillna(-1).to_numpy(int)
        values = self.rows[name].to_numpy(str)
        found = seen_in_training(values, folds, oof.folds, own.to_numpy(str))
        return pd.Series(found, name=f"{name} in training")
