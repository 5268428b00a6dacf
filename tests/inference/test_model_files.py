"""Which checkpoints are taken, and with which settings."""

from pathlib import Path

import pytest

import checkpoint as ckpt
from configs import Config, UserError
from inference import model_files, scorers
from tests.predicting import SPECIES, named, save_model, tiny


def test_the_newest_best_checkpoint_of_each_fold_is_taken(tmp_path, caplog):
    exp = tmp_path / "Exp_1"
    for fold, epochs in ((0, (99, 100)), (10, (3,)), (2, (7, 8))):
        for epoch in epochs:
            save_model(named(exp / f"fold_{fold}", epoch), tiny())
    damaged = named(exp / "fold_2", 8)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    (exp / "fold_3").mkdir()
    for name in ("fold_0_old", "fold_", "fold_1.bak", "old_fold_1"):  # people's own, left alone
        save_model(named(exp / name, 500), tiny())
    found = [named(exp / "fold_0", 100), named(exp / "fold_2", 7), named(exp / "fold_10", 3)]
    assert model_files.find_checkpoints(exp) == found
    assert str(damaged) in caplog.text and "fold_3 holds no sound checkpoint" in caplog.text
    assert model_files.find_checkpoints(exp / "fold_0") == found[:1]
    assert model_files.find_checkpoints(found[1]) == found[1:2]


def test_where_there_is_no_model_it_says_where_it_looked(tmp_path):
    (tmp_path / "Exp_4").mkdir()
    with pytest.raises(UserError, match=r"Exp_47: no such model; there are .*Exp_4"):
        model_files.find_checkpoints(tmp_path / "Exp_47")
    with pytest.raises(UserError, match="no model in it"):
        model_files.find_checkpoints(tmp_path / "Exp_4")


def test_a_fold_without_a_finished_epoch_says_that_it_may_still_train(tmp_path):
    """train.log and half a checkpoint are there; the whole one has not got its name yet."""
    fold = tmp_path / "Exp_1" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "train.log").touch()
    best = named(fold, 1)
    best.with_name(f"{best.name}.123.part").write_bytes(b"half")
    for path in (fold, fold.parent):
        with pytest.raises(UserError, match="if it is still training, wait for its first epoch"):
            model_files.find_checkpoints(path)


def test_a_checkpoint_that_training_replaces_meanwhile_is_no_damage(tmp_path, monkeypatch, caplog):
    """Listed, then deleted before it is read; the newer one is found at the next look."""
    fold = tmp_path / "fold_0"
    old = save_model(named(fold, 1), tiny())
    read = ckpt.read_checkpoint

    def read_late(path: Path) -> dict:
        if old.exists():
            old.unlink()
            save_model(named(fold, 2), tiny())
        return read(path)

    monkeypatch.setattr(ckpt, "read_checkpoint", read_late)
    assert model_files.find_checkpoints(fold) == [named(fold, 2)]
    assert not caplog.messages


def test_a_checkpoint_that_goes_between_finding_and_opening_is_found_anew(tmp_path, monkeypatch):
    fold = tmp_path / "fold_0"
    save_model(named(fold, 1), tiny())
    find = model_files.find_checkpoints

    def find_and_lose(path: Path) -> list[Path]:
        found = find(path)
        if found == [named(fold, 1)]:
            found[0].unlink()
            save_model(named(fold, 2), tiny())
        return found

    monkeypatch.setattr(scorers, "find_checkpoints", find_and_lose)
    models = scorers.open_models(fold, tiny())
    assert models.identity[0].startswith(str(named(fold, 2)))


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
    settings = model_files.merge_settings(
        trained, Config(valid_bs=3, device="cpu", num_workers=1), Path("m.pth")
    )
    assert (settings.valid_bs, settings.num_workers, settings.n_mels) == (3, 1, 32)
    assert settings.amp_dtype == "bfloat16"  # as validation scored
    assert model_files.merge_settings(trained, Config(amp=False), Path("m.pth")).amp is False
    model_files.merge_settings(trained, tiny(), Path("m.pth"))  # the run's own YAML
    own = tiny(image_size=(16, 8))  # in a checkpoint pairs are lists
    model_files.merge_settings(own.to_dict(), own, Path("m.pth"))
    with pytest.raises(UserError, match=r"n_mels: m\.pth was trained with 32; 64 cannot"):
        model_files.merge_settings(trained, Config(n_mels=64), Path("m.pth"))
