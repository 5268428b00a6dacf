"""Self-training is off unless a table of pseudo-labels is named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import Config


def test_the_table_lies_under_root_and_none_is_the_default(tmp_path):
    assert Config().pseudo_labels is None
    assert (
        Config(root=tmp_path, pseudo_labels=Path("x/1.csv")).pseudo_labels == tmp_path / "x/1.csv"
    )


@pytest.mark.parametrize(("name", "value"), [("pseudo_share", 1.5), ("pseudo_cap", 0.0)])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        Config(**{name: value})
