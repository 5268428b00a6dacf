"""blend.yaml comes back, and what is none is refused."""

import numpy as np
import pytest
import yaml

from configs import UserError
from inference.blend_file import read_blend, write_blend


def test_the_file_names_models_relative_to_itself(tmp_path):
    folders = [tmp_path / "models" / name for name in ("Exp_1", "Exp_2", "Exp_3")]
    path = tmp_path / "blend.yaml"
    write_blend(path, folders, np.array([0.75, 0.0, 0.25]), {"gain": 0.02})
    assert yaml.safe_load(path.read_text())["models"][0]["model"] == "models/Exp_1"
    assert read_blend(path) == [(folders[0], 0.75), (folders[2], 0.25)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [{model: a}]", "no blend; it has `models:`"),
        ("- 1", "no blend; it has `models:`"),
        ("models: []", "weights are above 0"),
        ("models: [{model: a, weight: -1}]", "weights are above 0"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_that_is_no_blend_is_refused(tmp_path, text, said):
    (tmp_path / "blend.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_blend(tmp_path / "blend.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_blend(tmp_path / "nothing.yaml")
