"""Draw the losses and scores of a fold, or of all folds of an experiment, and print the best epochs.

python plot_loss_metric.py models/Exp_47/fold_0 [fold] [save_path]
python plot_loss_metric.py models/Exp_47        # every fold in one figure

Reads history.csv as train.py writes it, also while it is still being written.
"""

import argparse
import csv
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Column -> values by epoch. Every column has the same length; what is not a finite number is NaN.
History = dict[str, list[float]]

NEEDED = ("epoch", "train_loss", "valid_loss")
PADDINGS = (1, 3, 5)
SCORES = {  # column -> label in the figure
    "cmap_pad_5": "padded cmAP (5)",
    "macro_ap": "macro AP",
    "macro_roc_auc": "ROC-AUC",
}
# Okabe and Ito's palette, told apart by colour-blind eyes too.
BLUE, ORANGE, GREEN, PINK, SKY, AMBER = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
)
FOLD_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER)
GREY, NOTE, INK = "#8A8A8A", "#666666", "#222222"


class HistoryError(ValueError):
    """A history that is not there, or cannot be drawn."""


def read_history(path: Path) -> History:
    """Read a fold's history.csv; a last line that is still being written is left out.

    Args:
        path: comma-separated with a header, `epoch` (from 1), `train_loss`, `valid_loss` and any
            other columns.

    Returns:
        Columns in order of the epochs; an epoch that stands there twice counts as written last. At
        least one epoch.

    Raises:
        HistoryError: no file, no epoch yet, a column or a cell missing, or a cell that is not a
            number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise HistoryError(
            f"{path}: no such file; train.py writes it when the first epoch ends"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path}: cannot be read: {error}") from None
    rows = list(csv.reader(line for line in lines if line.endswith("\n")))
    header = rows[0] if rows else []
    if missing := [name for name in NEEDED if rows and name not in header]:
        raise HistoryError(
            f"{path}: no column {' or '.join(missing)}; the columns are {', '.join(header)}"
        )
    epochs: dict[float, dict[str, float]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise HistoryError(
                f"{path}: line {number} has {len(row)} cells, the header {len(header)}"
            )
        try:
            values = {name: float(cell or "nan") for name, cell in zip(header, row, strict=True)}
        except ValueError as error:
            raise HistoryError(f"{path}: line {number}: {error}") from None
        epochs[values["epoch"]] = values
    if not epochs:
        raise HistoryError(f"{path}: no epoch has ended yet; try again later")
    ordered = [epochs[epoch] for epoch in sorted(epochs)]
    return {
        name: [row[name] if math.isfinite(row[name]) else math.nan for row in ordered]
        for name in header
    }


def find_folds(train_dir: Path, fold: int | None = None) -> tuple[dict[str, Path], list[str]]:
    """Find the histories below an experiment's folder, or the one in a fold's.

    Args:
        train_dir: `models/Exp_47` or `models/Exp_47/fold_0`.
        fold: take this fold only.

    Returns:
        Name of each fold -> its history.csv, in order of the numbers; and a line about each fold
        without one.

    Raises:
        HistoryError: no such folder or fold, or nothing to draw.
    """
    if not train_dir.is_dir():
        raise HistoryError(
            f"{train_dir}: no such folder; give a fold's, models/Exp_47/fold_0, or an experiment's"
        )
    own = re.fullmatch(r"fold_(\d+)", train_dir.name)
    if own or (train_dir / "history.csv").exists():
        if own and fold is not None and fold != int(own[1]):
            raise HistoryError(
                f"{train_dir} is not the folder of fold {fold}; give {train_dir.parent} to choose one"
            )
        return {train_dir.name: train_dir / "history.csv"}, []
    found = {
        int(path.name[5:]): path for path in train_dir.glob("fold_*") if path.name[5:].isdecimal()
    }
    if fold is not None and fold not in found:
        raise HistoryError(f"{train_dir}: no fold {fold}; there are {sorted(found) or 'none'}")
    chosen = [found[number] for number in sorted(found) if fold in (None, number)]
    if fold is not None:
        return {chosen[0].name: chosen[0] / "history.csv"}, []
    histories = {
        path.name: path / "history.csv" for path in chosen if (path / "history.csv").exists()
    }
    if not histories:
        raise HistoryError(
            f"{train_dir}: no fold_<k>/history.csv below; train.py writes it when the first epoch ends"
        )
    return histories, [
        f"{path.name}: no history.csv yet" for path in chosen if path.name not in histories
    ]


def best_epoch(history: History) -> int | None:
    """Index of the lowest validation loss, the first of equal ones; None where every loss is NaN."""
    known = [
        (loss, index) for index, loss in enumerate(history["valid_loss"]) if not math.isnan(loss)
    ]
    return min(known)[1] if known else None


def mean_history(histories: Sequence[History]) -> History:
    """Average each column over the folds, at the epochs and for the columns that all of them have."""
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
    """Lay out each fold's best epoch (lowest validation loss), its scores beside their floors, and the means."""
    scores = [
        name
        for padding in PADDINGS
        for name in (f"cmap_pad_{padding}", f"cmap_pad_{padding}_floor")
    ]
    scores += ["macro_ap", "macro_roc_auc"]
    titles = [title for padding in PADDINGS for title in (f"cmAP({padding})", "floor")]
    rows = [["", "epochs", "best", "valid loss", *titles, "macro AP", "ROC-AUC"]]
    chosen = []
    for name, history in histories.items():
        best = best_epoch(history)
        at = "-" if best is None else f"{history['epoch'][best]:.0f}"
        at_best = (
            {column: values[best] for column, values in history.items()} if best is not None else {}
        )
        chosen.append([at_best.get(column, math.nan) for column in ("valid_loss", *scores)])
        rows.append([name, f"{history['epoch'][-1]:.0f}", at, *_numbers(chosen[-1])])
    if len(chosen) > 1:
        rows.append(
            ["mean", "", "", *_numbers([_mean(values) for values in zip(*chosen, strict=True)])]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _numbers(values: Sequence[float]) -> list[str]:
    """Write a loss and scores; what is not known as a dash."""
    digits = [5] + [4] * (len(values) - 1)
    return [
        "-" if math.isnan(value) else f"{value:.{n}f}"
        for value, n in zip(values, digits, strict=True)
    ]


def draw_figure(histories: dict[str, History], title: str) -> "Figure":
    """Draw losses on the left and scores on the right: one fold in full, or several folds and their mean."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")  # inches
    figure.suptitle(title, fontsize=12, color=INK)
    loss_axes, score_axes = figure.subplots(1, 2)
    draw = _draw_one if len(histories) == 1 else _draw_several
    loss_labels, score_labels = draw(histories, loss_axes, score_axes)
    last = max(history["epoch"][-1] for history in histories.values())
    for axes, name in [(loss_axes, "loss"), (score_axes, "validation score")]:
        axes.set_xlim(1, max(last, 2))
        axes.set_xlabel("epoch")
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, length=3)
    _scale_losses(loss_axes, [loss for history in histories.values() for loss in _losses(history)])
    score_axes.set_ylim(0, 1)
    _label_ends(loss_axes, loss_labels)
    _label_ends(score_axes, score_labels)
    return figure


Labels = list[tuple[float, str, str]]  # height of a line's end, its name, its colour


def _draw_one(
    histories: dict[str, History], loss_axes: "Axes", score_axes: "Axes"
) -> tuple[Labels, Labels]:
    (history,) = histories.values()
    epochs, best = history["epoch"], best_epoch(history)
    losses = [
        _line(loss_axes, history, "train_loss", "training", SKY),
        _line(loss_axes, history, "valid_loss", "validation", BLUE, width=2),
    ]
    scores = []
    for (name, label), colour in zip(SCORES.items(), (ORANGE, GREEN, PINK), strict=True):
        if _has(history, name):
            scores.append(
                _line(
                    score_axes,
                    history,
                    name,
                    label,
                    colour,
                    width=2 if name == "cmap_pad_5" else 1.3,
                )
            )
    if _has(history, "cmap_pad_5_floor"):
        scores.append(
            _line(
                score_axes,
                history,
                "cmap_pad_5_floor",
                "floor of cmAP (5)",
                ORANGE,
                style="--",
                width=1,
            )
        )
    if best is not None:
        for axes in (loss_axes, score_axes):
            axes.axvline(epochs[best], color=GREY, linewidth=0.8, linestyle=":")
        loss_axes.plot(
            epochs[best],
            history["valid_loss"][best],
            "o",
            color=BLUE,
            markersize=6,
            clip_on=False,
            zorder=5,
        )
        near_end = best > len(epochs) / 2
        loss_axes.annotate(
            f"best: epoch {epochs[best]:.0f}",
            (epochs[best], 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if near_end else 4, -4),
            textcoords="offset points",
            ha="right" if near_end else "left",
            va="top",
            fontsize=9,
            color=INK,
        )
    return losses, scores


def _draw_several(
    histories: dict[str, History], loss_axes: "Axes", score_axes: "Axes"
) -> tuple[Labels, Labels]:
    losses, scores = [], []
    for number, (name, history) in enumerate(histories.items()):
        colour, label = FOLD_COLOURS[number % len(FOLD_COLOURS)], name.replace("_", " ")
        _line(loss_axes, history, "train_loss", label, colour, style=":", width=1)
        losses.append(_line(loss_axes, history, "valid_loss", label, colour, width=1.2))
        if (best := best_epoch(history)) is not None:
            loss_axes.plot(
                history["epoch"][best],
                history["valid_loss"][best],
                "o",
                color=colour,
                markersize=5,
                zorder=5,
            )
        if _has(history, "cmap_pad_5"):
            scores.append(_line(score_axes, history, "cmap_pad_5", label, colour, width=1.2))
    mean = mean_history(list(histories.values()))
    if mean["epoch"]:
        losses.append(_line(loss_axes, mean, "valid_loss", "mean", INK, width=2.2))
        for name, label, colour, style in [
            ("cmap_pad_5", "mean", INK, "-"),
            ("cmap_pad_5_floor", "floor", GREY, "--"),
        ]:
            if name in mean and _has(mean, name):
                scores.append(
                    _line(
                        score_axes,
                        mean,
                        name,
                        label,
                        colour,
                        style=style,
                        width=2.2 if style == "-" else 1.2,
                    )
                )
    loss_axes.set_title(
        "validation, training dotted, best epochs marked", loc="right", fontsize=8, color=NOTE
    )
    score_axes.set_title("padded cmAP (5)", loc="right", fontsize=8, color=NOTE)
    return losses, scores


def _line(
    axes: "Axes",
    history: History,
    name: str,
    label: str,
    colour: str,
    *,
    style: str = "-",
    width: float = 1.3,
) -> tuple[float, str, str]:
    """Draw a column over the epochs; return what its label needs."""
    values = history[name]
    marker = "o" if len(values) < 10 and style == "-" else None
    axes.plot(
        history["epoch"],
        values,
        style,
        color=colour,
        linewidth=width,
        marker=marker,
        markersize=3,
        clip_on=False,
    )
    ends = [value for value in values if not math.isnan(value)]
    return (ends[-1] if ends else math.nan), label, colour


def _has(history: History, name: str) -> bool:
    return name in history and not all(map(math.isnan, history[name]))


def _losses(history: History) -> list[float]:
    return [
        loss
        for name in ("train_loss", "valid_loss")
        for loss in history[name]
        if not math.isnan(loss)
    ]


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
    """Move sorted heights as little as possible (least squares) until neighbours are `gap` apart, all below 1."""
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
    heights = sorted(
        (to_fraction((1, value))[1], name, colour)
        for value, name, colour in labels
        if not math.isnan(value)
    )
    placed = spread([height for height, _, _ in heights], gap)
    for (_, name, colour), height in zip(heights, placed, strict=True):
        dark = [0.75 * part for part in to_rgb(colour)]  # pale letters are hard to read
        axes.text(1.02, height, name, color=dark, fontsize=9, va="center", transform=axes.transAxes)


def plot_loss_metric(
    train_dir: str | Path, fold: int | None = None, save_path: str | Path | None = None
) -> Path:
    """Draw a fold's history, or all folds of an experiment in one figure, and print the best epochs.

    Args:
        train_dir: a fold's folder (`models/Exp_47/fold_0`) or an experiment's (`models/Exp_47`).
        fold: of an experiment, draw this fold only.
        save_path: the figure; its ending chooses the format. None is `loss_metric.png` in the
            folder drawn.

    Returns:
        Path of the figure.

    Raises:
        HistoryError: nothing to draw, a history that is damaged, or a figure that cannot be saved.
    """
    train_dir = Path(train_dir)
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
    one = next(iter(paths.values())).parent
    folder = train_dir if fold is None else one
    for name, history in histories.items():
        notes += [
            f"{name}: no {column}, not drawn" for column in SCORES if not _has(history, column)
        ]
    title = (
        f"{one.resolve().parent.name}, {one.name}" if len(paths) == 1 else train_dir.resolve().name
    )
    saved = _save(draw_figure(histories, title), Path(save_path or folder))
    print(format_table(histories))
    print(*notes, f"wrote {saved}", sep="\n")
    return saved


def _save(figure: "Figure", path: Path) -> Path:
    path = (
        path / "loss_metric.png"
        if path.is_dir()
        else path
        if path.suffix
        else path.with_name(path.name + ".png")
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # a ValueError is an ending matplotlib has no format for
        raise HistoryError(f"{path}: cannot be saved: {error}") from None
    return path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line."""
        self.exit(2, f"error: {message}; --help shows the usage\n")


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line and draw; exit status 2 and one line for a mistake."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, text in [
        (
            "train_dir",
            Path,
            "a fold's folder, models/Exp_47/fold_0, or an experiment's, models/Exp_47",
        ),
        ("fold", int, "of an experiment, draw this fold only"),
        ("save_path", Path, "the figure (default: loss_metric.png in the folder drawn)"),
    ]:
        parser.add_argument(name, type=kind, nargs="?", help=text)
    parser.add_argument(
        "--train-dir", dest="train_dir_flag", type=Path, metavar="DIR", help="the same as train_dir"
    )
    parser.add_argument("--fold", dest="fold_flag", type=int, metavar="K", help="the same as fold")
    parser.add_argument(
        "--save", dest="save_path_flag", type=Path, metavar="FILE", help="the same as save_path"
    )
    given = vars(parser.parse_args(args))
    for name in ("train_dir", "fold", "save_path"):
        if given[name] is not None and given[f"{name}_flag"] is not None:
            parser.error(f"{name} is given twice")
    train_dir, fold, save_path = (
        given[name] if given[name] is not None else given[f"{name}_flag"]
        for name in ("train_dir", "fold", "save_path")
    )
    if train_dir is None:
        parser.error("which folder? give models/Exp_47 or models/Exp_47/fold_0")
    try:
        plot_loss_metric(train_dir, fold, save_path)
    except HistoryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
