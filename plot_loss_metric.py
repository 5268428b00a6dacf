"""Draw the losses and scores of a fold, or of all folds of an experiment; print the best epochs.

python plot_loss_metric.py models/Exp_47/fold_0 [fold] [save_path]
python plot_loss_metric.py models/Exp_47        # every fold in one figure

Reads history.csv, also while train.py still writes it.
"""

import argparse
import csv
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from files import AmbiguousNameError, CannotWriteError, experiment_title, find_experiment, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Column -> values by epoch. Every column has the same length; what is not a finite number is NaN.
History = dict[str, list[float]]

ALWAYS = ("epoch", "train_loss", "valid_loss")
PADDED = re.compile(r"cmap_pad_(\d+)")  # columns of padded cmAP
FOLD_NAME = re.compile(r"fold_([0-9]+)")  # fold_0_old and the like are left alone
# Okabe and Ito's palette, told apart by colour-blind eyes too.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, SKY, AMBER = "#CC79A7", "#56B4E9", "#E69F00"
FOLD_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER)
GREY, NOTE, INK = "#8A8A8A", "#666666", "#222222"


class Line(NamedTuple):
    """A column of the history as a line of the figure."""

    column: str
    label: str
    colour: str
    width: float = 1.3
    style: str = "-"


LOSS_LINES = (Line("train_loss", "training", SKY), Line("valid_loss", "validation", BLUE, 2))
SCORE_LINES = (
    Line("cmap_pad_5", "padded cmAP (5)", ORANGE, 2),
    Line("macro_ap", "macro AP", GREEN),
    Line("macro_roc_auc", "ROC-AUC", PINK),
    Line("cmap_pad_5_floor", "floor of cmAP (5)", ORANGE, 1, "--"),
    Line("probe_cmap_pad_5", "probe's cmAP (5)", ORANGE, 1, ":"),
    Line("probe_macro_ap", "probe's macro AP", GREEN, 1, ":"),
)
EXPECTED = ("cmap_pad_5", "macro_ap", "macro_roc_auc")  # whose absence is said


class HistoryError(ValueError):
    """A history that is missing or cannot be drawn."""


# Reading ------------------------------------------------------------------------------------------


def read_history(path: Path) -> History:
    """Read a fold's history.csv; a last line that is still being written is left out.

    Args:
        path: comma-separated with a header, `epoch` (from 1), `train_loss`, `valid_loss` and any
            other columns.

    Returns:
        Columns in order of the epochs, at least one; the later row of an epoch written twice.

    Raises:
        HistoryError: no file, no epoch yet, a column or cell missing, or a cell without a number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise HistoryError(f"{path}: no such file; an epoch must end first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path}: cannot be read: {error}") from None

    header, *rows = list(csv.reader(line for line in lines if line.endswith("\n"))) or [[]]
    if missing := " or ".join(name for name in ALWAYS if header and name not in header):
        raise HistoryError(f"{path}: no column {missing}; the columns are {', '.join(header)}")

    epochs: dict[float, dict[str, float]] = {}
    for number, row in enumerate(rows, 2):
        values = _read_row(f"{path}: line {number}", header, row)
        epochs[values["epoch"]] = values
    if not epochs:
        raise HistoryError(f"{path}: no epoch has ended yet; try again later")

    ordered = [epochs[epoch] for epoch in sorted(epochs)]
    return {name: [row[name] for row in ordered] for name in header}


def _read_row(place: str, header: list[str], row: list[str]) -> dict[str, float]:
    if len(row) != len(header):
        raise HistoryError(f"{place} has {len(row)} cells, the header {len(header)}")
    try:
        values = [float(cell or "nan") for cell in row]
    except ValueError as error:
        raise HistoryError(f"{place}: {error}") from None
    known = [value if math.isfinite(value) else math.nan for value in values]
    return dict(zip(header, known, strict=True))


def find_folds(train_dir: Path, fold: int | None = None) -> tuple[dict[str, Path], list[str]]:
    """Find the histories below an experiment's folder, or the one in a fold's.

    Returns:
        history.csv of each fold (or of `fold` alone) by the fold's name, in order of the numbers;
        and a line about each fold without one.

    Raises:
        HistoryError: no such folder or fold, or nothing to draw.
    """
    if not train_dir.is_dir():
        raise HistoryError(f"{train_dir}: no such folder; give models/Exp_47 or one of its folds")
    own = FOLD_NAME.fullmatch(train_dir.name)
    if own or (train_dir / "history.csv").exists():
        if own and fold is not None and fold != int(own[1]):
            raise HistoryError(f"{train_dir} is not the folder of fold {fold}")
        return {train_dir.name: train_dir / "history.csv"}, []

    matches = [(FOLD_NAME.fullmatch(path.name), path) for path in train_dir.iterdir()]
    found = {int(match[1]): path for match, path in matches if match}
    if fold is not None:
        if fold not in found:
            raise HistoryError(f"{train_dir}: no fold {fold}; there are {sorted(found) or 'none'}")
        return {found[fold].name: found[fold] / "history.csv"}, []

    histories, notes = {}, []
    for _, folder in sorted(found.items()):
        if (folder / "history.csv").exists():
            histories[folder.name] = folder / "history.csv"
        else:
            notes.append(f"{folder.name}: no history.csv yet")
    if not histories:
        raise HistoryError(f"{train_dir}: no fold_<k>/history.csv below; an epoch must end first")
    return histories, notes


# Best epochs --------------------------------------------------------------------------------------


def best_epoch(history: History) -> int | None:
    """Index of the lowest validation loss, the first of equal ones; None where all are NaN."""
    losses = history["valid_loss"]
    known = [(loss, index) for index, loss in enumerate(losses) if not math.isnan(loss)]
    return min(known)[1] if known else None


def mean_history(histories: Sequence[History]) -> History:
    """Average the columns that all folds have, at the epochs that all of them have."""
    common = set.intersection(*(set(history["epoch"]) for history in histories))
    names = [name for name in histories[0] if all(name in history for history in histories)]
    mean: History = {name: [] for name in names}
    for epoch in sorted(common):
        rows = [history["epoch"].index(epoch) for history in histories]
        for name in names:
            values = [history[name][row] for history, row in zip(histories, rows, strict=True)]
            mean[name].append(_mean(values))
    return mean


def format_table(histories: dict[str, History]) -> str:
    """Lay out each fold's best epoch, its scores beside their floors, and the means."""
    columns = {name for history in histories.values() for name in history}
    paddings = sorted(int(match[1]) for name in columns if (match := PADDED.fullmatch(name)))
    titles, scores = ["valid loss"], ["valid_loss"]
    for padding in paddings:
        titles += [f"cmAP({padding})", "floor"]
        scores += [f"cmap_pad_{padding}", f"cmap_pad_{padding}_floor"]
    rows = [["", "epochs", "best", *titles, "macro AP", "ROC-AUC"]]
    scores += ["macro_ap", "macro_roc_auc"]

    chosen = []
    for name, history in histories.items():
        best, at, at_best = best_epoch(history), "-", {}
        if best is not None:
            at_best = {column: values[best] for column, values in history.items()}
            at = f"{at_best['epoch']:.0f}"
        chosen.append([at_best.get(score, math.nan) for score in scores])
        rows.append([name, f"{history['epoch'][-1]:.0f}", at, *_numbers(chosen[-1])])
    if len(chosen) > 1:
        means = [_mean(values) for values in zip(*chosen, strict=True)]
        rows.append(["mean", "", "", *_numbers(means)])

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def _numbers(values: Sequence[float]) -> list[str]:
    """Write a loss and scores; what is not known as a dash."""
    loss, *scores = values
    texts = [f"{loss:.5f}", *(f"{score:.4f}" for score in scores)]
    return ["-" if math.isnan(value) else text for value, text in zip(values, texts, strict=True)]


# Drawing ------------------------------------------------------------------------------------------

Labels = list[tuple[float, str, str]]  # height of a line's end, its name, its colour


def draw_figure(histories: dict[str, History], title: str) -> "Figure":
    """Draw losses on the left, scores on the right: one fold in full, or several and their mean."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")  # inches
    figure.suptitle(title, fontsize=12, color=INK)
    loss_axes, score_axes = figure.subplots(1, 2)
    draw = _draw_one if len(histories) == 1 else _draw_several
    loss_labels, score_labels = draw(histories, loss_axes, score_axes)

    last = max(history["epoch"][-1] for history in histories.values())
    for axes, name in [(loss_axes, "loss"), (score_axes, "validation score")]:
        axes.set(xlim=(1, max(last, 2)), xlabel="epoch")
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, length=3)
    columns = [history[name] for history in histories.values() for name in ALWAYS[1:]]
    _scale_losses(loss_axes, [loss for column in columns for loss in column if loss == loss])
    score_axes.set_ylim(0, 1)
    _label_ends(loss_axes, loss_labels)
    _label_ends(score_axes, score_labels)
    return figure


def _draw_one(
    histories: dict[str, History], loss_axes: "Axes", score_axes: "Axes"
) -> tuple[Labels, Labels]:
    (history,) = histories.values()
    losses = _draw_lines(loss_axes, history, LOSS_LINES)
    scores = _draw_lines(score_axes, history, SCORE_LINES)
    best = best_epoch(history)
    if best is None:
        return losses, scores

    epoch, near_end = history["epoch"][best], best > len(history["epoch"]) / 2
    for axes in (loss_axes, score_axes):
        axes.axvline(epoch, color=GREY, linewidth=0.8, linestyle=":")
    _dot(loss_axes, history, best, BLUE, size=6)
    beside, side = (-4, "right") if near_end else (4, "left")
    how: dict[str, Any] = {"ha": side, "va": "top", "fontsize": 9, "color": INK}
    text, top = f"best: epoch {epoch:.0f}", ("data", "axes fraction")
    loss_axes.annotate(text, (epoch, 1), (beside, -4), top, "offset points", **how)
    return losses, scores


def _draw_several(
    histories: dict[str, History], loss_axes: "Axes", score_axes: "Axes"
) -> tuple[Labels, Labels]:
    losses, scores = [], []
    for number, (name, history) in enumerate(histories.items()):
        colour, label = FOLD_COLOURS[number % len(FOLD_COLOURS)], name.replace("_", " ")
        _draw_lines(loss_axes, history, [Line("train_loss", label, colour, 1, ":")])
        losses += _draw_lines(loss_axes, history, [Line("valid_loss", label, colour, 1.2)])
        scores += _draw_lines(score_axes, history, [Line("cmap_pad_5", label, colour, 1.2)])
        if (best := best_epoch(history)) is not None:
            _dot(loss_axes, history, best, colour, size=5)

    mean = mean_history(list(histories.values()))
    floor = Line("cmap_pad_5_floor", "floor", GREY, 1.2, "--")
    probe = Line("probe_cmap_pad_5", "probe", GREY, 1.2, ":")
    if mean["epoch"]:
        losses += _draw_lines(loss_axes, mean, [Line("valid_loss", "mean", INK, 2.2)])
        scores += _draw_lines(
            score_axes, mean, [Line("cmap_pad_5", "mean", INK, 2.2), floor, probe]
        )

    note: dict[str, Any] = {"loc": "right", "fontsize": 8, "color": NOTE}
    loss_axes.set_title("validation, training dotted, best epochs marked", **note)
    score_axes.set_title("padded cmAP (5)", **note)
    return losses, scores


def _draw_lines(axes: "Axes", history: History, lines: Iterable[Line]) -> Labels:
    """Draw columns over the epochs, those that the history has; return what their labels need."""
    labels = []
    for line in lines:
        if all(map(math.isnan, history.get(line.column, []))):
            continue
        epochs, values = history["epoch"], history[line.column]
        (drawn,) = axes.plot(epochs, values, line.style, color=line.colour, linewidth=line.width)
        drawn.set_clip_on(False)
        if len(values) < 10 and line.style == "-":
            drawn.set(marker="o", markersize=3)
        last = [value for value in values if not math.isnan(value)][-1]
        labels.append((last, line.label, line.colour))
    return labels


def _dot(axes: "Axes", history: History, index: int, colour: str, size: float) -> None:
    at = history["epoch"][index], history["valid_loss"][index]
    axes.plot(*at, "o", color=colour, markersize=size, clip_on=False, zorder=5)


def _scale_losses(axes: "Axes", losses: list[float]) -> None:
    """Take a logarithmic axis where the losses span more than a factor of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif losses:
        axes.set_ylim(0, 1.05 * max(losses) or 1)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights below 1 as little as possible (least squares) until `gap` apart."""
    blocks: list[list[float]] = []  # of heights less the gaps below them, which then must not fall
    for index, height in enumerate(heights):
        blocks.append([height - index * gap])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = [_mean(block) for block in blocks for _ in block]
    highest = 1 - gap * (len(level) - 1)
    return [min(value, highest) + index * gap for index, value in enumerate(level)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _label_ends(axes: "Axes", labels: Labels, gap: float = 0.06) -> None:
    """Name the lines at their right ends, at least `gap` of the axes' height apart."""
    from matplotlib.colors import to_rgb

    to_fraction = (axes.transData + axes.transAxes.inverted()).transform
    heights = sorted((to_fraction((1, value))[1], name, colour) for value, name, colour in labels)
    placed = spread([height for height, _, _ in heights], gap)
    for (_, name, colour), height in zip(heights, placed, strict=True):
        dark = [0.75 * part for part in to_rgb(colour)]  # pale letters are hard to read
        axes.text(1.02, height, name, color=dark, fontsize=9, va="center", transform=axes.transAxes)


# The function and the script ----------------------------------------------------------------------


def plot_loss_metric(
    train_dir: str | Path, fold: int | None = None, save_path: str | Path | None = None
) -> Path:
    """Draw a fold's history, or all folds of an experiment in one figure; print the best epochs.

    Args:
        train_dir: a fold's folder (`models/Exp_47/fold_0`) or an experiment's (`models/Exp_47`);
            an experiment's name may stand for its number.
        fold: of an experiment, draw this fold only.
        save_path: the figure; its ending chooses the format. None is loss_metric.png in the folder.

    Returns:
        Path of the figure.

    Raises:
        HistoryError: nothing to draw, a damaged history, or a figure that cannot be saved.
    """
    train_dir = find_experiment(train_dir)
    if train_dir.name in ("", ".."):  # the folder's own name says what it is
        train_dir = train_dir.resolve()
    paths, notes = find_folds(train_dir, fold)
    histories = {}
    for name, path in paths.items():
        try:
            histories[name] = read_history(path)
        except HistoryError as error:
            if len(paths) == 1:
                raise
            notes.append(str(error))
    if not histories:
        raise HistoryError("; ".join(notes))
    for name, history in histories.items():
        missing = [score for score in EXPECTED if all(map(math.isnan, history.get(score, [])))]
        notes += [f"{name}: no {score}, not drawn" for score in missing]

    one, title = next(iter(paths.values())).parent, experiment_title(train_dir.resolve())
    if len(paths) == 1:
        title = f"{experiment_title(one.resolve().parent)}, {one.name}"
    folder = train_dir if fold is None else one
    saved = _save(draw_figure(histories, title), Path(save_path or folder))
    print(format_table(histories))
    print(*notes, f"wrote {saved}", sep="\n")
    return saved


def _save(figure: "Figure", path: Path) -> Path:
    if path.is_dir():
        path = path / "loss_metric.png"
    elif not path.suffix:
        path = path.with_name(path.name + ".png")
    try:
        with replacing(path) as file:
            figure.savefig(file, dpi=150, format=path.suffix.removeprefix("."))
    except CannotWriteError as error:
        raise HistoryError(str(error)) from None
    except ValueError as error:  # an ending that matplotlib has no format for
        raise HistoryError(f"{path}: cannot be saved: {error}") from None
    return path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help shows the usage\n")


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line and draw; exit status 2 and one line for a mistake."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, flag, metavar, kind, text in (
        ("train_dir", "--train-dir", "DIR", Path, "an experiment's or a fold's folder, or name"),
        ("fold", "--fold", "K", int, "of an experiment, draw this fold only"),
        ("save_path", "--save", "FILE", Path, "the figure (default: loss_metric.png in DIR)"),
    ):
        same = f"the same as {name}"
        parser.add_argument(name, type=kind, nargs="?", help=text)
        parser.add_argument(flag, dest=f"{name}_flag", type=kind, metavar=metavar, help=same)

    given = vars(parser.parse_args(args))
    chosen: dict[str, Any] = {}
    for name in ("train_dir", "fold", "save_path"):
        values = [given[key] for key in (name, f"{name}_flag") if given[key] is not None]
        if len(values) == 2:
            parser.error(f"{name} is given twice")
        chosen[name] = values[0] if values else None
    if chosen["train_dir"] is None:
        parser.error("which folder? give models/Exp_47 or models/Exp_47/fold_0")

    try:
        plot_loss_metric(**chosen)
    except (HistoryError, AmbiguousNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
