"""`--help` shows what a script uses, by group, on 80 columns, in a moment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import Config, settings
from settings.help import format_help

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("script", ["prepare_audios", "split_data", "train"])
def test_help_shows_what_a_script_uses_on_80_columns_and_loads_no_torch(script):
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / f"{script}.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = re.findall(r"^  --([a-z0-9-]+)", answer.stdout, re.M)
    used = [name for name, setting in settings().items() if script in setting.used_by]
    assert shown == [name.replace("_", "-") for name in used]
    assert max(map(len, answer.stdout.splitlines())) < 80
    assert not re.search(r"\| +(torch|timm|librosa|matplotlib|sklearn)$", answer.stderr, re.M)


def test_a_setting_is_shown_with_its_choices_unit_and_default():
    text = format_help(Config, "prepare_audios", "Decode the recordings.")
    assert (
        "\nrecordings:\n  --sample-rate\n      sample rate of the prepared recordings, in Hz"
        in text
    )
    assert "  --audio-dtype {float32,int16}\n" in text
    assert "  --debug, --no-debug\n" in text
    assert "(default: float32)" in " ".join(text.split())
    assert "--train-bs" not in text


def test_defaults_are_shown_as_people_type_them():
    text = " ".join(format_help(Config, "train", "").split())
    assert " --no-bird-class, --without-no-bird-class " in text
    assert "(default: 0 1 2 3 4)" in text
    assert "(default: factor 0.9, patience 5)" in text
    assert "(default: yes)" in text and "(default: none)" in text
    assert "True" not in text and "None" not in text


def test_a_script_that_uses_the_settings_of_another_is_named_itself(tmp_path):
    answer = subprocess.run(
        [sys.executable, str(ROOT / "dataset.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.startswith("usage: python dataset.py ")


def test_export_shows_its_flags_before_torch_is_loaded():
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "export.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\n  --ensemble " in answer.stdout
    assert not re.search(r"\| +(torch|pandas)$", answer.stderr, re.M)
