"""A fold followed in TensorBoard or Weights & Biases as well: `--log tensorboard wandb`.

history.csv stays the truth; a logger is told what stands in it. One that fails is warned of once
and left out, and random states are as if it had not been there. What has been sent is kept in
`loggers.json`, so that a resumed run goes on in the same log.
"""

import contextlib
import importlib
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from configs import Config, UserError, capture_rng, restore_rng
from files import experiment_title, write_file
from training import processes

logger = logging.getLogger("birdclef.train")

SENT_NAME = "loggers.json"  # in a fold's folder: which epochs and pictures each log has
PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}  # what each one imports
INSTALL_LOGGERS = "python -m pip install -r requirements-log.txt -c constraints.txt"

Row = Mapping[str, float]


class Logger(Protocol):
    """Where a fold is followed. Epochs come once each, in their order."""

    def row(self, epoch: int, numbers: Row) -> None:
        """Take an epoch's row of the history."""

    def picture(self, name: str, path: Path, epoch: int) -> None:
        """Take a PNG, drawn after that many epochs."""

    def close(self) -> None:
        """Write out what is left."""


class TensorBoardLogger:
    """Event files in the fold's folder, `tensorboard/`; see them by `tensorboard --logdir models`.

    Args:
        config: settings of the fold, with its folder as `train_dir`.
        memory: what `loggers.json` keeps of this logger.
        is_new: whether the log begins here, with the settings.
    """

    def __init__(self, config: Config, memory: dict[str, Any], *, is_new: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Of a killed process there may be events that loggers.json does not know: they are void.
        void_from = 0 if is_new else memory["epoch"] + 1
        folder = fold_dir(config) / "tensorboard"
        self.writer = SummaryWriter(str(folder), purge_step=void_from)
        if is_new:
            lines = [f"| {name} | {value} |" for name, value in config.to_dict().items()]
            table = "\n".join(["| setting | value |", "| --- | --- |", *lines])
            self.writer.add_text("settings", table, 0)

    def row(self, epoch: int, numbers: Row) -> None:
        """Add a scalar for each number of the row."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def picture(self, name: str, path: Path, epoch: int) -> None:
        """Add an image."""
        from matplotlib.image import imread

        image = imread(path)[..., :3]  # (H, W, 3) float32, 0 to 1
        self.writer.add_image(name, image, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases for the fold, in the group of its experiment.

    Project, entity and mode follow wandb's own variables, such as WANDB_MODE=offline.

    Args:
        config: settings of the fold, with its folder as `train_dir`.
        memory: what `loggers.json` keeps of this logger: the run's id, for one.
        is_new: whether the log begins here.
    """

    def __init__(self, config: Config, memory: dict[str, Any], *, is_new: bool) -> None:
        import wandb

        self.wandb = wandb
        if is_new:
            memory["id"] = uuid.uuid4().hex[:8]
        folder = fold_dir(config)
        experiment = experiment_title(folder.parent)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "birds"),
            group=experiment,
            name=f"{experiment}, {folder.name}",
            notes=config.notes or None,
            id=memory["id"],
            resume="allow",
            config=config.to_dict(),
            dir=str(folder),
            settings=wandb.Settings(console="off", silent=True),
        )

    def row(self, epoch: int, numbers: Row) -> None:
        """Log the row at its epoch."""
        self.run.log(dict(numbers), step=epoch)

    def picture(self, name: str, path: Path, epoch: int) -> None:
        """Log an image."""
        self.run.log({name: self.wandb.Image(str(path))}, step=epoch)

    def close(self) -> None:
        """End the run; what is not uploaded yet is."""
        self.run.finish()


LOGGERS: dict[str, Callable[..., Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
}


def fold_dir(config: Config) -> Path:
    """Return the folder of the fold that settings are of."""
    assert config.train_dir is not None
    return config.train_dir


def check_loggers(names: Sequence[str]) -> None:
    """Import what the loggers of `--log` need (UserError: it is not installed)."""
    for name in names:
        try:
            importlib.import_module(PACKAGES[name])
        except ImportError as error:
            raise UserError(f"--log {name}: {error}; install it by `{INSTALL_LOGGERS}`") from None


# All loggers of a fold ----------------------------------------------------------------------------


class Logs:
    """The loggers of a fold, and what has been sent to each; without a name it does nothing."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(dict.fromkeys(names))
        self.open: dict[str, Logger] = {}
        self.sent: dict[str, dict[str, Any]] = {}  # by logger: epoch, pictures and its own
        self.folder = Path()

    def begin(self, config: Config, history: Sequence[Row]) -> None:
        """Open the loggers, or go on with them, and send the rows that they lack.

        Args:
            config: settings of the fold, with its folder as `train_dir`.
            history: rows of the epochs that are done.
        """
        self.folder = fold_dir(config)
        earlier = _read_sent(self.folder / SENT_NAME) if self.names else {}
        for name in self.names:
            memory = earlier.get(name)
            # Where an older checkpoint is gone on from, epochs come again: a log of its own
            is_new = memory is None or memory["epoch"] > len(history)
            self.sent[name] = memory if memory and not is_new else {"epoch": 0, "pictures": []}
            with self._trying(name):
                self.open[name] = LOGGERS[name](config, self.sent[name], is_new=is_new)
        self.rows(history)

    def rows(self, history: Sequence[Row]) -> None:
        """Send the rows that each logger lacks, without what is not a number."""
        for name, one in list(self.open.items()):
            memory = self.sent[name]
            for row in history:
                epoch = int(row["epoch"])
                if epoch <= memory["epoch"]:
                    continue
                with self._trying(name):
                    one.row(epoch, {key: x for key, x in row.items() if not math.isnan(x)})
                    memory["epoch"] = epoch
        self._remember()

    def picture(self, name: str, path: Path) -> None:
        """Send a PNG, to those that have none of this name from this epoch yet."""
        for logger_name, one in list(self.open.items()):
            memory = self.sent[logger_name]
            what = f"{name} {memory['epoch']}"
            if what in memory["pictures"]:
                continue
            with self._trying(logger_name):
                one.picture(name, path, memory["epoch"])
                memory["pictures"].append(what)
        self._remember()

    def close(self) -> None:
        """Close all loggers."""
        for name, one in list(self.open.items()):
            with self._trying(name):
                one.close()
        self.open = {}

    def _remember(self) -> None:
        if self.open:
            with contextlib.suppress(OSError):  # a full disk may cost a doubled step, no run
                write_file(self.folder / SENT_NAME, json.dumps(self.sent, indent=2))

    @contextlib.contextmanager
    def _trying(self, name: str) -> Iterator[None]:
        """Leave random states as they were; an error is warned of, and ends this logger alone."""
        states = capture_rng()
        try:
            yield
        except Exception as error:  # anything that a stranger's code may raise
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("--log %s failed and is left out: %s; training goes on", name, reason)
            self.open.pop(name, None)
        finally:
            restore_rng(states)


@contextlib.contextmanager
def followed(config: Config) -> Iterator[Logs]:
    """Make a fold's loggers for the block, in the first process; `Logs.begin` opens them."""
    logs = Logs(config.log if processes.is_first() else ())
    try:
        yield logs
    finally:
        logs.close()


def _read_sent(path: Path) -> dict[str, dict[str, Any]]:
    """Read what has been sent; nothing where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: memory | {"epoch": int(memory["epoch"])} for name, memory in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}
