"""A refit trains on every row for as long as the folds found best, and is a model like theirs."""

import pandas as pd
import pytest

import checkpoint as ckpt
import train
from configs import Config, UserError
from inference.scorers import open_models
from tests.small_run import copy_of, make_recordings, run_until, same, tiny_config
from training import ending
from training.refit import refit_epochs, refit_folder, split_rows


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=6, epochs=4)


def write_histories(config: Config, *losses: list[float]) -> None:
    for number, of_fold in enumerate(losses):
        rows = {"epoch": range(1, len(of_fold) + 1), "valid_loss": of_fold}
        config.fold_dir(number).mkdir(parents=True)
        pd.DataFrame(rows).to_csv(config.fold_dir(number) / "history.csv", index=False)


def test_it_takes_the_median_of_the_best_epochs_rounded_up(config):
    write_histories(config, [3, 1, 2, 4], [4, 3, 2, 1], [1, 2, 3, 4])
    assert refit_epochs(config) == 2
    assert refit_epochs(copy_of(config, monitor="last")) == 4
    write_histories(copy_of(config, exp_id=1), [3, 1, 2, 4], [4, 2, 1, 3])
    assert refit_epochs(copy_of(config, exp_id=1)) == 3  # of 2 and 3


def test_the_row_of_an_average_counts_as_all_epochs(config):
    write_histories(config, [5, 4, 3, 2, 1])  # four epochs and the average
    assert refit_epochs(config) == 4


def test_without_trained_folds_it_says_what_to_run_first(config):
    with pytest.raises(UserError, match="history.csv: no fold is trained.*without --refit first"):
        refit_epochs(copy_of(config, refit=True))
    with pytest.raises(UserError, match="leave out --max-hours"):
        refit_epochs(copy_of(config, refit=True, max_hours=1.0))


def test_all_rows_are_trained_on(config):
    df = make_recordings(config, 6)
    train_part, valid_part = split_rows(df, 0, copy_of(config, refit=True))
    assert len(train_part) == 6 and valid_part.empty
    assert len(split_rows(df, 0, config)[1]) == 3


@pytest.mark.slow
def test_a_refit_is_a_model_that_a_stopped_one_equals(config, monkeypatch, capsys):
    df = make_recordings(config, 12)
    config = copy_of(config, head="linear", head_input="rows", mel_statistics=8, probe_start=True,
                     loss_name="cross_entropy", average_epochs=1)  # fmt: skip
    train.run(df, copy_of(config, epochs=2))
    summary = (config.exp_dir / "summary.json").read_bytes()

    refit = copy_of(config, epochs=2, refit=True, checkpoint_every_steps=1)
    ending.tell_ending(train.run(df, refit), refit)
    assert f"next: python export.py {refit_folder(config)}" in capsys.readouterr().out
    assert (config.exp_dir / "summary.json").read_bytes() == summary

    models = open_models(refit_folder(config), refit)
    assert models.class_names == ["bird0", "bird1", "bird2"]
    [named] = ckpt.named_checkpoints(refit_folder(config))
    history = pd.read_csv(refit_folder(config) / "history.csv")
    assert history["train_loss"].gt(0).all() and history["valid_loss"].isna().all()
    assert len(history) == named.epoch  # what it averages in the end has no row: no epoch, no score

    # Twelve recordings make two steps an epoch; all of the folds' files stay where they were.
    whole = ckpt.read_checkpoint(named.path)
    assert whole["history"][0]["step"] == 2
    refit_folder(config).rename(config.root / "whole")
    run_until(df, refit, monkeypatch, step=1)
    for _ in range(2):  # stopped and gone on, and then complete: the average stays
        train.run(df, refit)
        again = ckpt.read_checkpoint(refit_folder(config) / named.path.name)
        assert same(whole["model"], again["model"]) and same(whole["ema"], again["ema"])
