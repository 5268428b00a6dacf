"""A fold keeps its last best checkpoints, and never loses the newest sound one."""

from pathlib import Path

import checkpoint as ckpt
from configs import Config
from tests.test_checkpoint import make_state, save_named
from training.best_checkpoints import prune_checkpoints, save_best


def epochs(folder: Path) -> list[int]:
    return [item.epoch for item in ckpt.named_checkpoints(folder)]


def test_the_best_is_saved_under_its_scores_and_the_oldest_goes(tmp_path):
    for epoch in (1, 2, 3):
        row = {"epoch": epoch, "valid_loss": epoch / 8, "cmap_pad_5": 0.5}
        save_best(tmp_path, make_state(epoch, history=[row], fold=2), keep=2)
    names = [item.path.name for item in ckpt.named_checkpoints(tmp_path)]
    exp_id = Config().exp_id
    assert names == [
        f"Exp_{exp_id}_fold_2_epoch_2_loss_0.25000_cmap_0.50000.pth",
        f"Exp_{exp_id}_fold_2_epoch_3_loss_0.37500_cmap_0.50000.pth",
    ]
    assert ckpt.read_checkpoint(tmp_path / names[1])["history"][0]["valid_loss"] == 0.375


def test_pruning_keeps_the_last_ones_by_number(tmp_path):
    for epoch in (2, 9, 10, 100):
        save_named(tmp_path, epoch)
    (tmp_path / "Exp_47_notes.pth").write_text("mine")
    prune_checkpoints(tmp_path, 2)
    assert epochs(tmp_path) == [10, 100]
    assert (tmp_path / "Exp_47_notes.pth").exists()


def test_pruning_never_deletes_the_newest_sound_one(tmp_path):
    for epoch in (2, 3, 4):
        save_named(tmp_path, epoch)
    newest = ckpt.named_checkpoints(tmp_path)[-1].path
    newest.write_bytes(newest.read_bytes()[:-1])
    prune_checkpoints(tmp_path, 1)
    assert epochs(tmp_path) == [3, 4]
    initial = ckpt.get_initial_checkpoint(Config(train_dir=tmp_path))
    assert initial.name.startswith("Exp_47_fold_0_epoch_3_")
