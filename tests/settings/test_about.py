"""A field says everything about itself, or is an error."""

import pytest
from pydantic.dataclasses import dataclass

from configs import RUN
from settings.about import Group, settings_of


def test_a_field_that_says_nothing_is_an_error():
    @dataclass(kw_only=True)
    class WithSilentField:
        loud: int = RUN(1, "number of the experiment")
        silent: int = 3

    with pytest.raises(TypeError, match="Config.silent: make it with a group"):
        settings_of(WithSilentField)


def test_a_group_fills_in_what_its_fields_share():
    group = Group("nests", "train", "split_data", on_resume="fixed")

    @dataclass(kw_only=True)
    class Nests:
        depth: int = group(3, "depth of a nest", unit="cm", on_resume="free", used_by="train")
        eggs: list[int] = group(lambda: [1, 2], "eggs in each nest")

    found = settings_of(Nests)
    assert (found["depth"].group, found["depth"].unit) == ("nests", "cm")
    assert (found["depth"].on_resume, found["depth"].used_by) == ("free", ("train",))
    assert found["eggs"].on_resume == "fixed"
    assert found["eggs"].used_by == ("train", "split_data")
    assert Nests().eggs == [1, 2]
    assert Nests().eggs is not Nests().eggs


def test_settings_come_group_by_group():
    first, second = Group("first", "train"), Group("second", "train")

    @dataclass(kw_only=True)
    class Mixed:
        late: int = second(1, "of the second group")
        early: int = first(2, "of the first group")
        later: int = second(3, "of the second group, too")

    assert list(settings_of(Mixed)) == ["early", "late", "later"]


def test_something_that_a_field_cannot_say_is_an_error():
    with pytest.raises(TypeError, match="colour"):
        RUN(1, "number of the experiment", colour="red")
