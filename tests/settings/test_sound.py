"""The settings of a clip: what they refuse."""

import pytest
from pydantic import ValidationError

from settings.sound import SoundSettings


def test_every_range_has_its_lower_end_first():
    ranges = [name for name, value in vars(SoundSettings()).items() if isinstance(value, tuple)]
    assert len(ranges) >= 10
    for name in ranges:
        with pytest.raises(ValidationError, match="lower end comes first"):
            SoundSettings(**{name: (0.9, 0.5)})


def test_every_chance_is_a_probability():
    chances = [name for name in vars(SoundSettings()) if name.startswith("p_")]
    assert len(chances) >= 20
    for name in chances:
        assert getattr(SoundSettings(**{name: 1}), name) == 1.0
        with pytest.raises(ValidationError, match=name):
            SoundSettings(**{name: 1.5})


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_fft", 1023), ("n_fft", 8), ("n_mels", 4), ("power", 3), ("in_channels", 2)],
)
def test_sizes_that_no_image_can_have_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        SoundSettings(**{name: value})
