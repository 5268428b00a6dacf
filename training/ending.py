"""How a run ends: its scores, the folds that lack epochs, and the next command."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs import Config
from metrics import describe_scores
from training.forecast import done_epochs, later_folds
from training.refit import refit_folder
from training.stopping import resume_command


def tell_ending(summary: Mapping[str, Any], config: Config) -> None:
    """Print the scores of a run's folds, which of them are not complete, and what comes next.

    Args:
        summary: as `folder.write_summary` returns it.
        config: settings of the run.
    """
    if config.find_lr:  # the search has told what it found
        return
    config = replace(config, exp_id=summary["exp_id"])
    exp_dir = config.exp_dir
    if config.refit:
        folder = refit_folder(config)
        print(f"wrote {folder}\nnext: {shlex.join(['python', 'export.py', str(folder)])}")
        return

    folds = summary["folds"]
    for number, best in folds.items():
        print(f"fold {number}: best epoch {best['epoch']:.0f}  {describe_scores(best)}")
    if folds:
        print(f"mean of {len(folds)}: {describe_scores(summary['mean'])}")

    script = "evaluate.py" if config.soup else "plot_loss_metric.py"  # a soup has no epochs
    following = shlex.join(["python", script, str(exp_dir)])
    if unfinished := summary.get("unfinished"):
        print(describe_unfinished(unfinished, exp_dir, config))
        following = resume_command()
    print(f"wrote {exp_dir}\nnext: {following}")


def unfinished_folds(config: Config, number: int) -> dict[int, int]:
    """Count the epochs done of the fold that was stopped, and of those after it that lack some."""
    counts = {number: done_epochs(config.fold_dir(number)), **later_folds(config, number)}
    return {fold: done for fold, done in counts.items() if done < config.epochs}


def describe_unfinished(unfinished: Mapping[Any, int], exp_dir: Path, config: Config) -> str:
    """Say how far each fold of an experiment has come that is not complete."""
    lines = [f"stopped by --max-hours {config.max_hours:g}; all is saved"]
    for number, done in unfinished.items():
        how_far = f"{done} of {config.epochs} epochs"
        if not done:
            has_begun = (exp_dir / f"fold_{number}" / "last.pth").exists()
            how_far = "in its first epoch" if has_begun else "not begun"
        lines.append(f"fold {number}: {how_far}")
    return "\n".join(lines)
