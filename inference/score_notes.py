"""What was done to the scores in a table of predict.py, in a small file beside it.

Scores that were calibrated are no longer what the network gave: a calibration or a threshold that
is found in them would be applied to other scores. `found.csv` has `found.scores.yaml` beside it if
that is so, and evaluate.py turns calibrated scores back into what they were.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs import UserError
from files import CannotWriteError, write_file
from inference.adjusting import Adjustment
from inference.calibration import Calibration

if TYPE_CHECKING:
    from inference.predicted import Predicted  # with pandas, which predict.py does without

logger = logging.getLogger("birdclef.evaluate")

ADJUSTED = {
    "powers": "--power", "neighbours": "--smooth", "lean": "--lean", "site_shifts": "--site-prior",
}  # fmt: skip


@dataclass(frozen=True)
class Note:
    """What was done to scores.

    Attributes:
        calibration: by which they were calibrated; None: they were not.
        changed_by: flags of predict.py that changed them after that.
    """

    calibration: Calibration | None = None
    changed_by: tuple[str, ...] = ()

    @property
    def undoes(self) -> Calibration | None:
        """The calibration that can be undone: none came after it."""
        return None if self.changed_by else self.calibration

    def given(self, scores: np.ndarray) -> np.ndarray | None:
        """Make of the network's scores, any shape, those given; None: they are the same."""
        return None if self.undoes is None else self.undoes.apply(scores)


def note_path(output: Path) -> Path:
    """Name the note of a file that predict.py wrote."""
    return output.with_name(f"{output.stem}.scores.yaml")


def write_note(output: Path, adjustment: Adjustment) -> None:
    """Note what was done to the scores of a file; of one with scores as they are there is no note.

    Raises:
        CannotWriteError: the disk refuses.
    """
    import yaml

    changed = [flag for name, flag in ADJUSTED.items() if _is_set(getattr(adjustment, name))]
    path, line = note_path(output), adjustment.calibration
    if line is None and not changed:
        try:
            path.unlink(missing_ok=True)  # of an earlier run
        except OSError as error:
            raise CannotWriteError(path, error) from None
        return
    content: dict[str, Any] = {"calibration": asdict(line) if line else None}
    write_file(path, yaml.safe_dump(content | {"changed_by": changed}, sort_keys=False))


def _is_set(value: Any) -> bool:
    return value is not None and (not isinstance(value, float | tuple) or bool(value))


def read_note(output: Path) -> Note:
    """Read what was done to the scores of a file.

    Raises:
        UserError: the note is there and cannot be read.
    """
    import yaml

    path = note_path(output)
    if not path.exists():
        return Note()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        line = content["calibration"]
        calibration = None if line is None else Calibration(**line)
        if calibration is not None and not calibration.slope > 0:
            raise ValueError(f"slope {calibration.slope}")
        return Note(calibration, tuple(map(str, content["changed_by"])))
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{path}: says what was done to the scores of {output.name}, and cannot be read: "
            f"{reason}; write both again with predict.py"
        ) from None


def as_network_gave(predicted: "Predicted", note: Note) -> "Predicted":
    """Turn calibrated scores back, unless they were changed after it."""
    if note.undoes is None:
        return predicted
    logger.info("scores were calibrated by predict.py; they are taken as the network gave them")
    scores = note.undoes.undo(predicted.spans["score"].to_numpy(np.float32))
    return replace(predicted, spans=predicted.spans.assign(score=scores))
