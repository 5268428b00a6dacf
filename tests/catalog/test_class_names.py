"""What a message says of two models with other classes."""

import pytest

from catalog.class_names import difference


@pytest.mark.parametrize(
    ("names", "others", "said"),
    [
        (["owl", "wren"], ["owl", "tit", "rook"], "rook, tit, wren"),
        (["owl"], [], "owl"),
        (["owl", "wren"], ["wren", "owl"], "their order"),
        (list("gfedcba"), [], "a, b, c, d, e"),
    ],
)
def test_it_names_who_is_in_one_list_alone(names, others, said):
    assert difference(names, others) == said
