"""The settings of an archive: who uses them, and what depends on them."""

import pytest

from configs import Config, settings, settings_where
from settings.archive import ArchiveSettings


def test_an_archive_has_settings_without_the_rest():
    assert ArchiveSettings(n_folds=3).n_folds == Config(n_folds=3).n_folds == 3


def test_arrays_are_made_anew_when_a_setting_of_theirs_changes():
    made = settings_where(makes_arrays=True)

    assert set(made) == {"sample_rate", "max_seconds", "audio_dtype", "trim_db"}
    assert set(made) <= set(ArchiveSettings.__dataclass_fields__)


def test_the_sample_rate_is_asked_of_every_stage_and_kept_on_resume():
    rate = settings()["sample_rate"]

    assert rate.used_by == ("prepare_audios", "split_data", "train")
    assert rate.on_resume == "fixed"


@pytest.mark.parametrize("name, value", [("n_folds", 1), ("empty_windows", 1.0), ("voice", "loud")])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Config(**{name: value})
