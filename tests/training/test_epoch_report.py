"""What the log and timing.csv say of an epoch."""

import pandas as pd

import train
from tests.small_run import build
from training.epoch_report import EpochClock


def test_an_epoch_of_which_nothing_was_left_to_train_has_no_negative_rate(df, config):
    """Stopped in validation, after all batches: the resumed run trains none of them."""
    fold = build(df, config)
    fold.progress.batch = len(fold.train_sampler)
    clock = EpochClock(fold)
    train.train_one_epoch(fold)
    clock.end_training(fold)
    train.finish_epoch(fold, *train.validate(fold))
    clock.report(fold)
    fold.writer.wait()
    assert pd.read_csv(fold.dir / "timing.csv")["clips_per_s"].tolist() == [0]
