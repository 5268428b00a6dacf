"""Which checkpoints are taken, and with which settings."""

from pathlib import Path

import pytest

from configs import Config, UserError
from inference import scorers
from tests.predicting import (
    SPECIES,
    named,
    save_model,
    tiny,
)

# Models -------------------------------------------------------------------------------------------


def test_the_newest_best_checkpoint_of_each_fold_is_taken(tmp_path, caplog):
    exp = tmp_path / "Exp_1"
    for fold, epochs in ((0, (99, 100)), (10, (3,)), (2, (7, 8))):
        for epoch in epochs:
            save_model(named(exp / f"fold_{fold}", epoch), tiny())
    damaged = named(exp / "fold_2", 8)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    (exp / "fold_3").mkdir()
    found = [named(exp / "fold_0", 100), named(exp / "fold_2", 7), named(exp / "fold_10", 3)]
    assert scorers.find_checkpoints(exp) == found
    assert str(damaged) in caplog.text and "fold_3 holds no sound checkpoint" in caplog.text
    assert scorers.find_checkpoints(exp / "fold_0") == found[:1]
    assert scorers.find_checkpoints(found[1]) == found[1:2]


def test_where_there_is_no_model_it_says_where_it_looked(tmp_path):
    (tmp_path / "Exp_4").mkdir()
    with pytest.raises(UserError, match=r"Exp_47: no such model; there are .*Exp_4"):
        scorers.find_checkpoints(tmp_path / "Exp_47")
    with pytest.raises(UserError, match="no model in it"):
        scorers.find_checkpoints(tmp_path / "Exp_4")


def test_folds_that_do_not_fit_together_are_refused(tmp_path):
    one = save_model(tmp_path / "1.pth", tiny())
    other = save_model(tmp_path / "2.pth", tiny(), class_names=["NA", "bird1", "bird3"])
    with pytest.raises(UserError, match=r"other classes \(bird2, bird3\)"):
        scorers.TorchModels([one, other], tiny())
    with pytest.raises(UserError, match=r"other classes \(their order\)"):
        scorers.TorchModels(
            [one, save_model(tmp_path / "3.pth", tiny(), class_names=SPECIES[::-1])], tiny()
        )
    with pytest.raises(UserError, match=r"top_db=60\.0"):
        scorers.TorchModels([one, save_model(tmp_path / "4.pth", tiny(top_db=60.0))], tiny())


def test_settings_of_the_model_cannot_be_changed_and_those_of_the_run_can(tmp_path):
    trained = tiny(amp_dtype="bfloat16", valid_bs=7).to_dict()
    settings = scorers.merge_settings(
        trained, Config(valid_bs=3, device="cpu", num_workers=1), Path("m.pth")
    )
    assert (settings.valid_bs, settings.num_workers, settings.n_mels) == (3, 1, 32)
    assert settings.amp_dtype == "bfloat16"  # as validation scored
    assert scorers.merge_settings(trained, Config(amp=False), Path("m.pth")).amp is False
    scorers.merge_settings(trained, tiny(), Path("m.pth"))  # the run's own YAML
    with pytest.raises(UserError, match=r"n_mels: m\.pth was trained with 32; 64 cannot"):
        scorers.merge_settings(trained, Config(n_mels=64), Path("m.pth"))
