"""The figure of a fold's history, and the table of best epochs beside it."""

import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plot_loss_metric as plot
from plot_loss_metric import (
    HistoryError,
    best_epoch,
    draw_figure,
    find_folds,
    mean_history,
    read_history,
    spread,
)

HEADER = (
    "epoch,step,lr,train_loss,valid_loss,cmap_pad_1,cmap_pad_3,cmap_pad_5,cmap_pad_1_floor,cmap_pad_3_floor,"
    "cmap_pad_5_floor,macro_ap,macro_roc_auc,skipped_steps\n"
)
LOSSES = [0.05, 0.02, 0.03]


def row(epoch: int, valid_loss: float, shift: float = 0.0) -> str:
    scores = [0.3, 0.4, 0.5, 0.1, 0.2, 0.25, 0.35, 0.9]
    cells = [
        epoch,
        epoch * 10,
        0.001,
        valid_loss / 2,
        valid_loss,
        *(score + shift for score in scores),
        0,
    ]
    return ",".join(map(str, cells)) + "\n"


def write_fold(folder: Path, losses=LOSSES, tail: str = "", shift: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(epoch, loss, shift) for epoch, loss in enumerate(losses, 1)]
    (folder / "history.csv").write_text(HEADER + "".join(rows) + tail)
    return folder


def run_script(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, plot.__file__, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | env
    )


# Reading


def test_history_is_read_by_column(tmp_path):
    history = read_history(write_fold(tmp_path) / "history.csv")
    assert history["epoch"] == [1, 2, 3]
    assert history["valid_loss"] == LOSSES
    assert history["cmap_pad_5_floor"] == [0.25] * 3


@pytest.mark.parametrize("tail", ["4,40,0.001", "4", row(4, 0.01)[:-1], row(4, 0.01)[:-3]])
def test_a_line_that_is_being_written_is_left_out(tmp_path, tail):
    assert read_history(write_fold(tmp_path, tail=tail) / "history.csv")["epoch"] == [1, 2, 3]


def test_an_epoch_written_again_counts_as_written_last(tmp_path):
    history = read_history(write_fold(tmp_path, tail=row(2, 0.5)) / "history.csv")
    assert history["epoch"] == [1, 2, 3]
    assert history["valid_loss"] == [0.05, 0.5, 0.03]


def test_what_is_no_finite_number_is_nan(tmp_path):
    lines = row(4, math.inf) + row(5, math.nan) + row(6, 0.1).replace("0.35", "")
    history = read_history(write_fold(tmp_path, tail=lines) / "history.csv")
    assert [math.isnan(loss) for loss in history["valid_loss"]] == [False] * 3 + [True, True, False]
    assert math.isnan(history["macro_ap"][5])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no epoch has ended yet"),
        (HEADER, "no epoch has ended yet"),
        (HEADER[:-5], "no epoch has ended yet"),
        (HEADER + "1,10", "no epoch has ended yet"),
        ("epoch,loss\n1,2\n", "no column train_loss or valid_loss; the columns are epoch, loss"),
        (HEADER + "1,2\n" + row(2, 0.1), "line 2 has 2 cells, the header 14"),
        (
            HEADER + row(1, 0.1).replace("0.001", "fast"),
            "line 2: could not convert string to float: 'fast'",
        ),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_line(tmp_path, text, said):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(HistoryError, match=said):
        read_history(tmp_path / "history.csv")


# Choosing


def test_folds_come_in_order_of_their_numbers_and_missing_ones_are_named(tmp_path):
    for number in (10, 2, 0):
        write_fold(tmp_path / f"fold_{number}")
    (tmp_path / "fold_3").mkdir()
    for name in ("fold_notes", "fold_0_old", "fold_"):  # people's own
        write_fold(tmp_path / name)
    paths, notes = find_folds(tmp_path)
    assert list(paths) == ["fold_0", "fold_2", "fold_10"]
    assert notes == ["fold_3: no history.csv yet"]
    assert find_folds(tmp_path, 10) == ({"fold_10": tmp_path / "fold_10/history.csv"}, [])
    assert find_folds(tmp_path / "fold_2", 2) == ({"fold_2": tmp_path / "fold_2/history.csv"}, [])


def test_a_copied_folder_of_another_name_is_a_fold(tmp_path):
    write_fold(tmp_path / "best run")
    assert find_folds(tmp_path / "best run", 3)[0] == {
        "best run": tmp_path / "best run/history.csv"
    }


@pytest.mark.parametrize(
    ("folder", "fold", "said"),
    [
        ("Exp_9", None, "no such folder"),
        ("Exp_1", 7, r"no fold 7; there are \[0, 1\]"),
        ("Exp_1/fold_0", 1, "is not the folder of fold 1"),
        ("Exp_1/empty", None, "no fold_<k>/history.csv below"),
    ],
)
def test_folders_without_a_history_are_explained(tmp_path, folder, fold, said):
    write_fold(tmp_path / "Exp_1/fold_0")
    write_fold(tmp_path / "Exp_1/fold_1")
    (tmp_path / "Exp_1/empty").mkdir()
    with pytest.raises(HistoryError, match=said):
        find_folds(tmp_path / folder, fold)


def test_best_epoch_is_the_first_of_the_lowest_losses():
    assert best_epoch({"valid_loss": [math.nan, 3.0, 1.0, 1.0, 2.0]}) == 2
    assert best_epoch({"valid_loss": [math.nan, math.nan]}) is None


def test_mean_over_the_epochs_that_all_folds_have():
    one = {"epoch": [1.0, 2.0, 3.0], "valid_loss": [1.0, 2.0, 3.0], "extra": [0.0, 0.0, 0.0]}
    two = {"epoch": [2.0, 3.0, 4.0], "valid_loss": [4.0, 7.0, 9.0]}
    assert mean_history([one, two]) == {"epoch": [2.0, 3.0], "valid_loss": [3.0, 5.0]}


def test_table_by_hand(tmp_path):
    folds = {
        "fold_0": write_fold(tmp_path / "fold_0"),
        "fold_1": write_fold(tmp_path / "fold_1", [0.06, 0.04], shift=0.1),
    }
    table = plot.format_table(
        {name: read_history(path / "history.csv") for name, path in folds.items()}
    )
    header, first, second, mean = (" ".join(line.split()) for line in table.splitlines())
    assert header.startswith("epochs best valid loss cmAP(1) floor")
    assert first == "fold_0 3 2 0.02000 0.3000 0.1000 0.4000 0.2000 0.5000 0.2500 0.3500 0.9000"
    assert second == "fold_1 2 2 0.04000 0.4000 0.2000 0.5000 0.3000 0.6000 0.3500 0.4500 1.0000"
    assert mean == "mean 0.03000 0.3500 0.1500 0.4500 0.2500 0.5500 0.3000 0.4000 0.9500"
    assert len({len(line) for line in table.splitlines()}) == 1


def test_table_has_a_dash_for_what_is_not_known():
    history = {"epoch": [1.0], "train_loss": [1.0], "valid_loss": [math.nan], "macro_ap": [0.5]}
    assert plot.format_table({"fold_0": history}).splitlines()[1].split() == [
        "fold_0",
        "1",
        *["-"] * 4,
    ]


# Drawing


def test_figure_of_one_fold_shows_the_history(tmp_path):
    history = read_history(write_fold(tmp_path) / "history.csv")
    loss, score = draw_figure({"fold_0": history}, "Exp_1, fold_0").axes
    drawn = {tuple(line.get_ydata()): line for line in loss.lines}
    assert tuple(history["train_loss"]) in drawn
    assert list(drawn[tuple(LOSSES)].get_xdata()) == [1, 2, 3]
    assert [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in loss.lines
        if line.get_markersize() == 6
    ][-1] == (
        [2],
        [0.02],
    )
    assert [text.get_text() for text in loss.texts] == ["best: epoch 2", "training", "validation"]
    floor = next(line for line in score.lines if line.get_linestyle() == "--")
    assert list(floor.get_ydata()) == history["cmap_pad_5_floor"]
    assert [t.get_text() for t in score.texts] == [
        "floor of cmAP (5)",
        "macro AP",
        "padded cmAP (5)",
        "ROC-AUC",
    ]


def test_figure_of_several_folds_shows_each_and_their_mean(tmp_path):
    folds = {
        f"fold_{k}": write_fold(tmp_path / f"fold_{k}", [1.0 + k, 0.5 + k][: 2 - k], shift=k / 10)
        for k in (0, 1)
    }
    histories = {name: read_history(path / "history.csv") for name, path in folds.items()}
    loss, score = draw_figure(histories, "Exp_1").axes
    assert {text.get_text() for text in loss.texts} == {"fold 0", "fold 1", "mean"}
    assert {text.get_text() for text in score.texts} == {"fold 0", "fold 1", "mean", "floor"}
    mean = next(line for line in score.lines if line.get_color() == plot.INK)
    assert list(mean.get_xdata()) == [1]
    assert mean.get_ydata() == pytest.approx([0.55])


def test_epochs_are_whole_numbers_on_the_axis(tmp_path):
    for losses in ([0.1], [0.2, 0.1], [0.3] * 120):
        figure = draw_figure(
            {"fold_0": read_history(write_fold(tmp_path, losses) / "history.csv")}, "x"
        )
        figure.draw_without_rendering()
        assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_losses_that_span_decades_get_a_logarithmic_axis(tmp_path):
    for losses, scale in (
        ([0.3, 0.1], "linear"),
        ([30.0, 0.1], "log"),
        ([3.0, 0.0], "linear"),
        ([math.nan] * 2, "linear"),
    ):
        figure = draw_figure(
            {"fold_0": read_history(write_fold(tmp_path, losses) / "history.csv")}, "x"
        )
        assert figure.axes[0].get_yscale() == scale


def write_probed(folder: Path) -> Path:
    """A fold whose history has the probe's scores as well, the same in each row."""
    lines = (write_fold(folder) / "history.csv").read_text().splitlines()
    head, *rows = lines
    text = [head + ",probe_macro_ap,probe_cmap_pad_5", *(row + ",0.6,0.7" for row in rows)]
    (folder / "history.csv").write_text("\n".join(text) + "\n")
    return folder


def test_the_probe_is_a_dotted_line_of_a_fold_and_of_the_mean(tmp_path):
    one, other = (
        read_history(write_probed(tmp_path / name) / "history.csv") for name in ("fold_0", "fold_1")
    )
    for histories, heights in (
        ({"fold_0": one}, [0.7, 0.6]),
        ({"fold_0": one, "fold_1": other}, [0.7]),
    ):
        axes = draw_figure(histories, "x").axes[1]
        dotted = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        flat = [height for height in dotted if height in (0.6, 0.7)]
        assert flat == heights
        assert any("probe" in text.get_text() for text in axes.texts)


def test_an_experiment_is_found_and_titled_by_its_name(tmp_path, monkeypatch):
    write_fold(tmp_path / "Exp_3" / "fold_0")
    (tmp_path / "Exp_3" / "experiment.json").write_text('{"name": "baseline"}')
    titles = []
    original = plot.draw_figure
    monkeypatch.setattr(
        plot, "draw_figure", lambda found, title: titles.append(title) or original(found, title)
    )
    saved = plot.plot_loss_metric(tmp_path / "baseline" / "fold_0")
    assert saved == tmp_path / "Exp_3" / "fold_0" / "loss_metric.png" and saved.exists()
    assert titles == ["Exp_3 (baseline), fold_0"]


def test_labels_spread_by_hand():
    assert spread([0.1, 0.5], 0.06) == [0.1, 0.5]
    assert spread([0.5, 0.5], 0.06) == pytest.approx([0.47, 0.53])
    assert spread([0.99, 1.0], 0.06) == pytest.approx([0.94, 1.0])
    assert spread([], 0.06) == []


@settings(deadline=None)  # a busy machine is not slow code
@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_are_a_gap_apart_and_inside(heights):
    placed = spread(sorted(heights), 0.06)
    assert max(placed) <= 1 + 1e-9
    assert all(
        upper - lower >= 0.06 - 1e-9 for lower, upper in zip(placed, placed[1:], strict=False)
    )


# The function and the script


def test_function_returns_the_path_and_prints_what_is_missing(tmp_path, capsys):
    experiment = tmp_path / "Exp_47"
    for number in (0, 1):
        write_fold(experiment / f"fold_{number}")
    write_fold(experiment / "fold_2", [])
    assert plot.plot_loss_metric(experiment) == experiment / "loss_metric.png"
    assert plot.plot_loss_metric(str(experiment), 1) == experiment / "fold_1/loss_metric.png"
    assert (
        plot.plot_loss_metric(experiment / "fold_0", 0, tmp_path / "new/a.svg")
        == tmp_path / "new/a.svg"
    )
    said = capsys.readouterr().out
    assert "fold_2/history.csv: no epoch has ended yet" in said
    assert f"wrote {experiment / 'loss_metric.png'}" in said
    assert matplotlib.image.imread(experiment / "loss_metric.png").shape == (600, 1500, 4)


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    folder = write_fold(tmp_path / "fold_0")
    saved = plot.plot_loss_metric(folder)
    before = saved.read_bytes()

    def full(figure, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(HistoryError, match="cannot be written: No space left on device"):
        plot.plot_loss_metric(folder)
    assert saved.read_bytes() == before and len(list(folder.iterdir())) == 2


def test_missing_score_columns_are_named(tmp_path, capsys):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0/history.csv").write_text(
        "epoch,train_loss,valid_loss,cmap_pad_5\n1,2,3,0.5\n"
    )
    plot.plot_loss_metric(tmp_path / "fold_0")
    said = capsys.readouterr().out
    assert "fold_0: no macro_ap, not drawn\nfold_0: no macro_roc_auc, not drawn\n" in said
    assert "no cmap_pad_5" not in said


def test_script_works_without_a_display_and_by_either_form(tmp_path):
    folder = write_fold(tmp_path / "Exp_47/fold_0")
    env = {"DISPLAY": "", "MPLBACKEND": "TkAgg"}
    positional = run_script(folder, 0, tmp_path / "a.png", **env)
    assert (positional.returncode, positional.stderr) == (0, "")
    flags = run_script(
        "--train-dir", folder.parent, "--fold", 0, "--save", tmp_path / "b.png", **env
    )
    assert flags.stdout == positional.stdout.replace("a.png", "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "which folder?"),
        (["nowhere"], "nowhere: no such folder"),
        (["{}", "first"], "invalid int value: 'first'"),
        (["{}", "0", "--fold", "0"], "fold is given twice"),
        (["{}", "--colour"], "unrecognized arguments: --colour"),
        (["{}", "0", "{}/x.docx"], "cannot be saved: Format 'docx' is not supported"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(tmp_path, args, said):
    folder = write_fold(tmp_path / "fold_0")
    answer = run_script(*(arg.format(folder) for arg in args))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert said in answer.stderr


def test_help_loads_no_matplotlib():
    heavy = ["matplotlib", "numpy", "pandas", "configs"]
    code = f"import sys, plot_loss_metric; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(plot.__file__).parent,
    )
    assert answer.stdout == "[]\n"
    assert "models/Exp_47/fold_0 [fold] [save_path]" in run_script("--help").stdout
