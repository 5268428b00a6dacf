"""planning/rules.py: where each rule turns."""

import pytest

from audio.mel import count_empty_bands
from configs import Config
from planning.archive import Grouping
from planning.decide import RECIPES_DIR, config_of, decide
from planning.facts import Pace
from planning.rules import LEAVE, RECIPE_EPOCHS, RULES, disk_gb, epoch_s
from tests.planning.made_up import facts

MB = {rule.setting: rule for rule in RULES}
BASE = Config().to_dict() | {"recipe": "birdclef_2023", "n_folds": 5}
GROUPS = (Grouping("site", 12, 0.6), Grouping("author", 30, 0.9), Grouping("day", 80, 1.0))
PACE = Pace(16, 100.0, 400.0)

# setting, facts, settings chosen before, value
TURNS = [
    ("recipe", {"median": 5}, {}, "few_shot"),
    ("recipe", {"median": 5, "has_backgrounds": True}, {}, "small_set"),
    ("recipe", {"median": 6}, {}, "small_set"),
    ("recipe", {"median": 50, "background_share": 0}, {}, "single_label"),
    ("recipe", {"median": 51}, {}, "birdclef_2023"),
    ("recipe", {"median": 20, "is_annotated": True}, {}, "birdclef_2023"),
    ("sample_rate", {}, {}, 32_000),
    ("sample_rate", {"used_hz": 8_000}, {}, 16_000),
    ("sample_rate", {"usual_rate": 22_050, "used_hz": 11_000, "high_hz": 9_900}, {}, 24_000),
    ("sample_rate", {"usual_rate": 192_000, "used_hz": 9e4, "high_hz": 8e4}, {}, 192_000),
    ("sample_rate", {"usual_rate": 48_000, "used_hz": 23e3, "high_hz": 20e3}, {}, 48_000),
    ("fmin", {"low_hz": 99}, {}, 20.0),
    ("fmin", {"low_hz": 101}, {}, 50.0),
    ("fmax", {"high_hz": 9_000}, {"sample_rate": 32_000}, 10_000.0),
    ("fmax", {"high_hz": 3_000}, {"sample_rate": 32_000}, 8_000.0),
    ("fmax", {"high_hz": 15_900}, {"sample_rate": 32_000}, 16_000.0),
    ("n_fft", {}, {"sample_rate": 32_000}, 2048),
    ("n_fft", {}, {"sample_rate": 16_000}, 1024),
    ("n_fft", {"short_call_s": 0.02, "call_s": 0.05}, {"sample_rate": 32_000}, 1024),
    ("hop_length", {"short_call_s": 0.2}, {"sample_rate": 32_000}, 512),
    ("hop_length", {"short_call_s": 0.02}, {"sample_rate": 32_000}, 320),
    ("hop_length", {"short_call_s": 0.048}, {"sample_rate": 32_000}, 384),
    ("n_mels", {}, {"n_fft": 2048, "fmin": 50, "fmax": 16_000}, 224),
    ("n_mels", {}, {"n_fft": 512, "fmin": 50, "fmax": 16_000}, 64),
    ("period", {}, {}, 5.0),
    ("period", {"longest_s": 2.2}, {}, 3.0),
    ("period", {"call_s": 4.0}, {}, 10.0),
    ("period", {"is_annotated": True, "label_s": 2.0}, {}, 3.0),
    ("period", {"is_annotated": True, "label_s": 6.5}, {}, 7.0),
    ("max_seconds", {}, {}, 30.0),
    ("max_seconds", {"median": 4}, {}, 30.0),
    ("max_seconds", {"median": 4, "longest_s": 90}, {}, 60.0),
    ("max_seconds", {"hours": 1000, "n_recordings": 60_000, "disk_gb": 60}, {}, 7.0),
    ("max_seconds", {"is_annotated": True}, {}, LEAVE),
    ("audio_dtype", {}, {}, "float32"),
    ("audio_dtype", {"disk_gb": 3}, {}, "int16"),
    ("n_folds", {}, {}, 5),
    ("n_folds", {"median": 4}, {}, 4),
    ("n_folds", {"published_folds": 3}, {}, 3),
    ("fold_group", {"groupings": GROUPS}, {}, "author"),
    ("fold_group", {"groupings": GROUPS[:1]}, {}, LEAVE),
    ("fold_group", {"groupings": GROUPS}, {"n_folds": 20}, "day"),
    ("fold_group", {"published_folds": 5}, {}, "fold"),
    ("rare_birds", {}, {}, []),
    ("sampling", {"least": 16}, {}, "square_root"),
    ("sampling", {"least": 17}, {}, "rows"),
    ("loss_name", {}, {}, "bce_2way"),
    ("loss_name", {"background_share": 0.04}, {}, "cross_entropy"),
    ("loss_name", {}, {"recipe": "small_set"}, "cross_entropy"),
    ("no_bird_class", {}, {}, False),
    ("no_bird_class", {"has_backgrounds": True}, {}, LEAVE),
    ("negative_share", {}, {}, 0.0),
    ("p_background", {}, {}, 0.0),
    ("p_background", {"has_backgrounds": True}, {}, LEAVE),
    ("valid_clips", {"longest_s": 30}, {"period": 5.0}, 6),
    ("valid_clips", {"longest_s": 4}, {"period": 5.0}, 1),
    ("valid_clips", {"is_annotated": True}, {"period": 5.0}, 1),
    ("base_model_name", {}, {}, "tf_efficientnet_lite0"),
    ("base_model_name", {"device": "cuda", "n_recordings": 2001}, {}, BASE["base_model_name"]),
    ("channels_last", {}, {}, "on"),
    ("channels_last", {"device": "cuda"}, {"base_model_name": "eca_nfnet_l0"}, "off"),
    ("channels_last", {"device": "cpu"}, {"base_model_name": "eca_nfnet_l0"}, "on"),
    ("train_bs", {}, {}, 64),
    ("train_bs", {"pace": PACE}, {}, 16),
    ("train_bs", {}, {"recipe": "few_shot"}, 16),
    ("num_workers", {}, {}, 4),
    ("num_workers", {"cores": 64, "memory_gb": 256}, {}, 8),
    ("num_workers", {"memory_gb": 4}, {}, 2),
    ("probe_below", {}, {}, 100_000),
    ("probe_below", {"n_recordings": 20_000}, {}, LEAVE),
    ("folds", {}, {}, [0, 1, 2, 3, 4]),
    # 960 clips at 100 and 240 at 400 a second: 10.2 s an epoch; 25 epochs a fold at least
    ("folds", {"hours_wanted": 0.16, "pace": PACE}, {}, [0]),
    ("folds", {"hours_wanted": 0.25, "pace": PACE}, {}, [0, 1, 2]),
    ("epochs", {}, {"folds": [0]}, 50),
    ("epochs", {"hours_wanted": 0.1, "pace": PACE}, {"folds": [0]}, 30),
    ("epochs", {"hours_wanted": 9, "pace": PACE}, {"folds": [0]}, 100),
    ("epochs", {"hours_wanted": 9, "pace": PACE}, {"recipe": "few_shot", "frozen_epochs": 9}, 10),
    ("scheduler_params", {}, {"epochs": 16, "scheduler_name": "linear_warmup_cosine"},
     {"warmup_epochs": 1.6}),
    ("scheduler_params", {}, {"scheduler_name": "cosine"}, LEAVE),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "changes", "chosen", "value"), TURNS)
def test_a_rule_turns_where_it_says(setting, changes, chosen, value):
    if value is LEAVE:
        assert MB[setting].decide(facts(**changes), BASE | chosen) is LEAVE
    else:
        assert MB[setting].decide(facts(**changes), BASE | chosen) == value


def test_every_rule_is_tried_and_gives_reason_and_evidence():
    assert {setting for setting, *_ in TURNS} == set(MB)
    assert len(MB) == len(RULES)
    for rule in RULES:
        assert rule.fact and rule.threshold and rule.source
        assert "{" not in rule.why(facts())


def test_recipes_are_files_and_their_epochs_are_known():
    for name, epochs in RECIPE_EPOCHS.items():
        text = (RECIPES_DIR / f"{name}.yaml").read_text()
        assert f"\nepochs: {epochs}\n" in text


@pytest.mark.parametrize("rate", [16_000, 22_050, 32_000, 44_100, 96_000, 256_000])
@pytest.mark.parametrize("high_hz", [2_000, 7_500, 15_000, 60_000])
def test_whatever_was_recorded_no_band_is_empty(rate, high_hz):
    used = min(rate / 2, 1.2 * high_hz)
    found = facts(usual_rate=rate, used_hz=used, high_hz=min(high_hz, used), short_call_s=0.02)
    config = config_of(decide(found, {}))
    names = ("sample_rate", "n_fft", "n_mels", "fmin", "fmax")
    assert count_empty_bands(**{name: getattr(config, name) for name in names}) == 0


def test_room_and_time_by_hand():
    found = facts(n_recordings=100, hours=100 * 20 / 3600, pace=PACE)
    assert disk_gb(found, 32_000, 30, "float32") == pytest.approx(100 * 20 * 32_000 * 4 / 1e9)
    assert disk_gb(found, 32_000, 10, "int16") == pytest.approx(100 * 10 * 32_000 * 2 / 1e9)
    chosen = {"n_folds": 5, "clips_per_recording": 2, "valid_clips": 3}
    assert epoch_s(found, chosen) == pytest.approx(80 * 2 / 100 + 20 * 3 / 400)
