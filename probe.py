"""Fit a linear head to the frozen features of a backbone: a floor for training, in a minute or two.

    python probe.py --base-model-name tf_efficientnet_lite0 --folds 0 1

The settings and flags are those of train.py. Each prepared recording gives up to `probe_clips`
clips, once as they are and `probe_noisy` times over a background of `background_dir`. The backbone
is not trained: what its last block makes of a clip, row by row of frequency, and the mean,
deviation and maximum of each mel band go into a logistic regression. It leaves in
`models/Exp_47_probe` what train.py leaves in `models/Exp_47`: predict.py and export.py take it.

With --teacher-embeddings FILE it is fitted to vectors of embed.py, too, or with
`--teacher-features alone` to them alone. Scores are left as ever, but no model: predict.py has no
vectors of new recordings.
"""

import logging
from dataclasses import replace
from typing import Any

from configs import Config, check_command_line, configure_logger, load_config, run_main

check_command_line(__name__, __doc__, "probe")  # --help need not wait for torch

import pandas as pd  # noqa: E402

from catalog import train_table  # noqa: E402
from catalog.annotated import expand_windows  # noqa: E402
from catalog.sources import check_sources  # noqa: E402
from catalog.vectors import Vectors, read_vectors  # noqa: E402
from metrics import describe_scores  # noqa: E402
from model import find_backbone, pick_device  # noqa: E402
from training import folder  # noqa: E402
from training.floor import leave_frozen  # noqa: E402
from training.verifying import check_folds, check_pseudo_labels  # noqa: E402

logger = logging.getLogger("birdclef.train")


def main() -> int:
    """Fit the folds of the settings and print their scores."""
    config = load_config(description=__doc__ or "", script="probe")
    configure_logger(config)
    table = train_table.read_train_table(config.train_dataframe_path)
    summary = run(table, config)

    for number, row in summary["folds"].items():
        print(f"fold {number}: C {row['probe_c']:g}  {describe_scores(row)}")
    print(f"mean of {len(summary['folds'])}: {describe_scores(summary['mean'])}")
    print(f"wrote {folder_of(config)}\nnext: python evaluate.py {folder_of(config)}")
    return 0


def folder_of(config: Config) -> Any:
    """Folder of the probe, beside that of the experiment."""
    return config.exp_dir.with_name(config.exp_dir.name + "_probe")


def run(train_df: pd.DataFrame, config: Config | None = None) -> dict[str, Any]:
    """Fit a probe for each fold of `config.folds`.

    Args:
        train_df: the table of split_data.py; it is not changed.
        config: settings; None takes the defaults.

    Returns:
        The summary, as in `summary.json`: scores of each fold and their mean.

    Raises:
        UserError: a table, fold, file or weights that cannot be worked with.
    """
    config = config or Config()
    device = pick_device(config.device)
    find_backbone(config.base_model_name)

    check_sources(config)
    table = train_table.check_table(train_df, str(config.train_dataframe_path))
    check_folds(table, config)
    train_table.check_prepared(table, config.train_np_dir)
    check_pseudo_labels(table, config)
    rows = expand_windows(table, config)
    class_names = train_table.load_class_names(rows)

    vectors = None
    if config.teacher_embeddings:
        vectors = read_vectors(config.teacher_embeddings)
        config = replace(config, teacher_source=vectors.source)
        logger.info("teacher: %s", vectors.source)
    for number in config.folds:
        probe_fold(rows, number, class_names, config, device, vectors)
    return folder.write_summary(config, folder_of(config))


def probe_fold(
    table: pd.DataFrame,
    number: int,
    class_names: list[str],
    config: Config,
    device: Any,
    vectors: Vectors | None = None,
) -> None:
    """Fit and score one fold and leave its files."""
    config = replace(config, train_dir=folder_of(config) / f"fold_{number}")
    with folder.opened(config):
        if config.debug:
            table, config = train_table.shrink(table, number, config)
        train_part, valid_part = train_table.split_fold(
            table, number, config.rare_birds, empty_windows=config.empty_windows
        )

        leave_frozen(train_part, valid_part, number, class_names, config, device, vectors)


if __name__ == "__main__":
    run_main(main)
