"""Command lines with flags of their own beside the settings."""

import argparse

import pytest

from configs import UserError
from inference.flags import FlagParser, number


@pytest.fixture
def parser() -> FlagParser:
    parser = FlagParser("x.py WHAT", "Do it.", "examples:\n  none")
    parser.add_argument("what")
    parser.add_argument("--stride", type=number(0.5))
    parser.add_argument("--top-k", type=number(1, 9, kind=int))
    return parser


def test_own_flags_and_settings_are_told_apart(parser):
    args = ["a", "--stride", "2.5", "--n-mels", "64", "--num_workers=3", "--no-amp", "--top-k", "3"]
    flags, rest = parser.parse_own(args)
    assert vars(flags) == {"what": "a", "stride": 2.5, "top_k": 3}
    assert rest == ["--n-mels", "64", "--num_workers=3", "--no-amp"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a", "--striide", "2"], "there is no flag --striide; did you mean --stride?"),
        (["a", "--top_kk=2"], "there is no flag --top_kk=2; did you mean --top-k?"),
        (["a", "--n-mel", "2"], "there is no flag --n-mel; did you mean --n-mels?"),
        (["a", "--xyzzy"], "there is no flag --xyzzy; --help lists the flags"),
        (["a", "--stride", "0.1"], "0.1 is not 0.5 or more"),
        (["a", "--top-k", "10"], "10 is not between 1 and 9"),
        (["a", "--top-k", "x"], "invalid number value: 'x'"),
        ([], "required: what"),
    ],
)
def test_mistakes_name_the_nearest_flag_or_what_is_allowed(parser, args, message):
    with pytest.raises(UserError) as caught:
        parser.parse_own(args)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_number_that_is_not_one_is_refused():
    with pytest.raises(argparse.ArgumentTypeError):
        number(0)("nan")
