"""Switches: words, and the booleans that YAML and earlier versions make of them."""

import pytest
import yaml

from settings.groups import as_word


@pytest.mark.parametrize(
    ("text", "expected"),
    [("on", "on"), ("off", "off"), ("true", "on"), ("'off'", "off"), ("auto", "auto"), ("3", 3)],
)
def test_yaml_reads_on_and_off_as_booleans_and_they_become_words_again(text, expected):
    assert as_word(yaml.safe_load(text)) == expected
