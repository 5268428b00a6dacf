"""The flags of predict.py."""

import pytest

from inference.command_line import read_command_line

NEEDED = ["models/Exp_1", "field", "--output", "o.csv"]


def test_settings_of_the_run_reach_the_config():
    args = ["--device", "cpu", "--valid-bs", "7", "--num-workers", "3", "--file-timeout-s", "9"]
    flags, config = read_command_line([*NEEDED, *args, "--no-amp", "--amp-dtype", "bfloat16"])
    assert (config.device, config.valid_bs, config.num_workers) == ("cpu", 7, 3)
    assert (config.file_timeout_s, config.amp, config.amp_dtype) == (9.0, False, "bfloat16")
    assert flags.model.name == "Exp_1" and flags.output.name == "o.csv"


def test_a_yaml_file_and_flags_go_together(tmp_path):
    (tmp_path / "c.yaml").write_text("valid_bs: 5\nnum_workers: 1\n")
    args = ["--config", str(tmp_path / "c.yaml"), "--num-workers", "2"]
    _, config = read_command_line([*NEEDED, *args])
    assert (config.valid_bs, config.num_workers) == (5, 2)


def test_help_fits_80_columns_and_explains_every_flag(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        read_command_line(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert max(map(len, text.splitlines())) < 80
    for group in ("what to read", "species", "windows", "detections", "events", "run", "examples"):
        assert group in text

    shown = text.split("options:")[1].split("examples:")[0].splitlines()
    flags = [number for number, line in enumerate(shown) if line.startswith("  -")]
    for number in flags:  # its help stands behind the flag, or on the next line, indented
        after = shown[number + 1] if number + 1 < len(shown) else ""
        assert len(shown[number].rstrip()) > 24 or after.startswith(" " * 24), shown[number]
    assert len(flags) > 25
