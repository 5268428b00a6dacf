"""What a run checks of its recordings before it trains on them."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import train
from benchmarks.kill_loop import make_run
from catalog import train_table
from catalog.report import write_rows
from configs import Config, UserError
from tests.small_run import tiny_config
from training import verifying


def make_report(config: Config, df: pd.DataFrame, *, check_sums: bool) -> None:
    """Write the report that prepare_audios.py would have; older versions wrote no check sums."""
    rows = {}
    for filepath in df["filepath"]:
        samples = np.load(config.train_np_dir / filepath)
        facts = {
            "peak": np.abs(samples).max().round(6),
            "crc32": f"{zlib.crc32(samples.tobytes()):08x}",
        }
        rows[filepath.removesuffix(".npy")] = {"status": "ok", "seconds": 2.0} | facts
    write_rows(config.report_path, rows)
    if not check_sums:
        pd.read_csv(config.report_path).drop(columns="crc32").to_csv(
            config.report_path, index=False
        )


def change_a_sample(path: Path, value: float) -> None:
    samples = np.load(path)
    samples[100] = value
    np.save(path, samples)


def test_verify_finds_a_sample_that_changed(tmp_path):
    config, df = make_run(tmp_path, epochs=1, verify=True)
    make_report(config, df, check_sums=True)
    train.run(df, config)
    path = config.train_np_dir / df["filepath"][3]
    change_a_sample(path, np.nextafter(np.load(path)[100], np.float32(1)))  # by its last bit
    with pytest.raises(
        UserError, match=r"1 of 16 prepared recordings are damaged; .*bird0/3.ogg.npy: its samples"
    ):
        train.run(df, config)


def test_verify_reads_what_the_header_does_not_tell(tmp_path):
    config, df = make_run(tmp_path, epochs=1, verify=True)
    make_report(config, df, check_sums=False)
    train.run(df, config)
    for row, damage in ((2, np.nan), (5, 3e5)):
        change_a_sample(config.train_np_dir / df["filepath"][row], damage)
    with pytest.raises(
        UserError,
        match=r"2 of 16 prepared recordings are damaged; .*bird2/2.ogg.npy: its peak is nan",
    ):
        train.run(df, config)
    config.report_path.unlink()  # without any report they must be finite
    with pytest.raises(
        UserError,
        match=r"1 of 16 prepared recordings are damaged; .*bird2/2.ogg.npy: its peak is nan",
    ):
        train.run(df, config)
    config.verify = False
    (config.train_np_dir / df["filepath"][0]).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 of 16 prepared recordings cannot be used; .*bird0/0.ogg.npy"
    ):
        train.run(df, config)


# What the report of prepare_audios.py says --------------------------------------------------------


def test_recordings_prepared_at_another_rate_are_refused_with_both_rates(tmp_path):
    config, df = make_run(tmp_path, epochs=1, sample_rate=22_050, fmax=11_025)
    make_report(config, df, check_sums=True)  # two seconds of 32,000 samples each
    with pytest.raises(
        UserError, match="was prepared at 32000 Hz, training is set to sample_rate=22050"
    ):
        train.run(df, config)


@pytest.mark.parametrize("n_samples", [31_999, 1, 64_001])
def test_a_rate_is_told_from_any_length(tmp_path, n_samples):
    config = tiny_config(tmp_path)
    config.train_np_dir.mkdir()
    np.save(config.train_np_dir / "a.npy", np.zeros(n_samples, np.float32))
    rows = pd.DataFrame({"filepath": ["a.npy"], "seconds": [round(n_samples / 32_000, 6)]})
    verifying.check_sample_rate(rows, config)


def test_a_recording_that_has_gone_from_the_archive_is_not_trained_on(tmp_path, caplog):
    config, df = make_run(tmp_path, epochs=1)
    make_report(config, df, check_sums=True)
    report = pd.read_csv(config.report_path)
    report.loc[3, "status"] = "missing"
    report.to_csv(config.report_path, index=False)
    name = report["filename"][3]
    with pytest.raises(UserError, match=f"1 of 16 .* no audio any more .{name} is missing"):
        train.run(df, config)
    report.drop(index=3).to_csv(config.report_path, index=False)
    train.run(df, config)
    assert "1 of 16 recordings are not in" in caplog.text


def test_one_species_without_negatives_is_warned_of(caplog, tmp_path):
    config = tiny_config(tmp_path)
    verifying.warn_of_one_species(["frog"], config)
    assert "frog is the only species" in caplog.text and "--background-dir" in caplog.text
    caplog.clear()
    verifying.warn_of_one_species(["frog", "toad"], config)
    verifying.warn_of_one_species(["frog"], tiny_config(tmp_path, background_dir=tmp_path))
    assert caplog.text == ""


def test_one_recording_of_each_species_leaves_nothing_to_validate(tmp_path):
    table = pd.DataFrame(
        {"primary_label": list("abcd"), "labels": list("abcd"), "kfold": [0, 0, 1, 1]}
    )
    with pytest.raises(UserError, match="one recording.*add recordings of the same species"):
        train_table.split_fold(table, 0, [])


def test_empty_mel_bands_are_refused_before_the_first_epoch(df, config):
    config.n_mels, config.n_fft = 256, 512
    with pytest.raises(UserError, match=r"\d+ of 256 mel bands are empty"):
        train.run(df, config)
