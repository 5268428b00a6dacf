"""Exported files, run with the library they are for, against the checkpoints they were made from."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import checkpoint as ckpt
import dataset as data
import export
from configs import Config, UserError, run_main
from inference.comparison import Comparison, compare, judge, read_clips
from inference.exported import EXPORT_FORMAT, open_exported
from inference.model_files import find_checkpoints
from inference.scorers import TorchModels
from model import SED
from transforms import crop_or_pad

INSTALL = "python -m pip install -r requirements-export.txt"
SPECIES = ["NA", "22961", "bird"]
ROW = {
    "epoch": 3, "step": 30, "valid_loss": 0.125, "cmap_pad_5": 0.75, "cmap_pad_5_floor": 0.5, "macro_ap": 0.625,
    "macro_ap_floor": 0.25, "macro_roc_auc": 0.875,
}  # fmt: skip


def need_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"no {name}: {INSTALL}")


def save_fold(
    config: Config, fold: int, class_names: list[str], *, ema: bool = False, seed: int = 0
) -> Path:
    """Save an untrained network whose scores are spread out; with `ema`, other weights beside it that are wrong."""
    torch.manual_seed(seed)
    network = SED(config.base_model_name, num_classes=len(class_names), n_mels=config.n_mels)
    for block in network.att_blocks:
        block.cla.weight.data *= 20
    weights = network.state_dict()
    wrong = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    folder = config.fold_dir(fold)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ckpt.checkpoint_name(
        exp_id=config.exp_id, fold=fold, epoch=3, loss=0.125, cmap=0.75
    )
    state = {
        "model": wrong if ema else weights, "ema": weights if ema else None, "fold": fold, "epoch": 3, "step": 30,
        "history": [{**ROW, "epoch": 1}, ROW], "class_names": class_names, "config": config.to_dict(),
        "versions": {"torch": "2.10.0"},
    }  # fmt: skip
    ckpt.save_checkpoint(path, state)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """Recordings of two folds and an experiment with a network for each."""
    root = tmp_path_factory.mktemp("export")
    config = Config(root=root, exp_id=5, base_model_name="test_efficientnet", n_mels=32, period=1.0, n_folds=2,
                    device="cpu", num_workers=0)  # fmt: skip
    rng, rows = np.random.default_rng(2), []
    for number in range(24):
        label = SPECIES[number % 3]
        time = np.arange(20_000 + 1000 * number) / 32_000
        waveform = np.sin(
            2 * np.pi * (1000 + 2500 * (number % 3)) * time
        ) + 0.05 * rng.standard_normal(len(time))
        path = config.train_np_dir / label / f"{number}.ogg.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (waveform * 8000).astype(np.int16))
        rows.append({"primary_label": label, "labels": label, "filepath": f"{label}/{path.name}",
                     "kfold": number // 3 % 2, "license": "CC BY 4.0"})  # fmt: skip
    pd.DataFrame(rows).to_csv(config.train_dataframe_path, index=False)
    save_fold(config, 0, SPECIES)
    save_fold(config, 1, SPECIES, ema=True, seed=1)
    return config


def export_with(config: Config, *flags: str | Path) -> tuple[Path, Comparison]:
    return export.export(*export.read_command_line([*map(str, flags), "--root", str(config.root)]))


@pytest.fixture(scope="module")
def exported(config) -> tuple[Path, Comparison]:
    need_onnx()
    return export_with(config, config.fold_dir(0), "--licence", "MIT")


def expected_scores(path: Path, clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clipwise and framewise scores as validation gives them, the mean of the folds."""
    models = TorchModels(find_checkpoints(path), Config(device="cpu", amp=False))
    clipwise, _, framewise = models.score([models.prepare(clip) for clip in clips], frames=True)
    return clipwise.mean(axis=0), framewise.mean(axis=0)


# What a file gives --------------------------------------------------------------------------------


def test_scores_are_those_of_the_checkpoint(config, exported, rng):
    path, result = exported
    assert path == config.fold_dir(0) / "Exp_5_fold_0.onnx"
    assert result.n_clips == result.n_available == 12 and result.difference < 1e-4
    whole = rng.standard_normal(32_000).astype(np.float32)
    short = crop_or_pad(np.sin(np.arange(50, dtype=np.float32)), 32_000)
    clips = [whole, short, np.zeros(32_000, np.float32), whole * np.float32(1e-4)]
    score = open_exported(path)[0]
    for clip in clips:
        expected = expected_scores(config.fold_dir(0), [clip])
        for made, wanted in zip(score(clip[None]), expected, strict=True):
            assert made.dtype == np.float32 and made.shape == wanted.shape
            np.testing.assert_allclose(made, wanted, atol=1e-4)
    assert (
        np.ptp(expected_scores(config.fold_dir(0), clips)[0], axis=0).min() > 1e-3
    )  # the clips do differ


def test_a_batch_gives_what_single_clips_give(exported, rng):
    score = open_exported(exported[0])[0]
    clips = rng.standard_normal((3, 32_000)).astype(np.float32) * np.float32([[1], [0.01], [30]])
    together, alone = score(clips), [score(clip[None]) for clip in clips]
    for number in range(2):
        np.testing.assert_allclose(
            together[number], np.concatenate([one[number] for one in alone]), atol=2e-6
        )


def test_scores_of_validation_are_those_of_the_file(config, exported):
    table = data.check_table(data.read_train_table(config.train_dataframe_path))
    valid_part = data.split_fold(table, 0, [])[1]
    rows = data.WaveformDataset(valid_part, config, "valid", SPECIES)
    model = SED(config.base_model_name, num_classes=3, n_mels=32).eval()
    model.load_state_dict(ckpt.read_checkpoint(find_checkpoints(config.fold_dir(0))[0])["model"])
    with torch.inference_mode():
        expected = model(torch.stack([rows[index]["image"] for index in range(len(rows))]))[
            "clipwise_output"
        ].numpy()
    clips = [crop_or_pad(np.load(rows.path(index)), 32_000) for index in range(len(rows))]
    np.testing.assert_allclose(
        open_exported(exported[0])[0](np.stack(clips))[0], expected, atol=1e-4
    )


def test_metadata_can_be_read_without_torch(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == SPECIES
    assert (
        about["format"] == EXPORT_FORMAT
        and about["precision"] == "float32"
        and about["licence"] == "MIT"
    )
    assert json.loads(about["folds"]) == [{"fold": 0, **ROW}]
    assert json.loads(about["trained_with"]) == {"torch": "2.10.0"}
    assert json.loads(about["exported_with"]).keys() >= {"torch", "onnx", "git_commit"}
    settings = json.loads(about["settings"])
    assert "root" not in settings and "train_np_dir" not in settings  # nobody's folders
    again = Config(**settings)
    assert (again.n_mels, again.period, again.sample_rate) == (32, 1.0, 32_000)
    (waveform,) = session.get_inputs()
    assert waveform.name == "waveform" and waveform.shape[1] == again.n_samples
    assert isinstance(waveform.shape[0], str)  # a batch of any size
    assert [output.name for output in session.get_outputs()] == ["clipwise", "framewise"]


def test_model_card_says_what_a_stranger_needs(exported):
    card = exported[0].with_name("Exp_5_fold_0.onnx.md").read_text()
    for text in (
        "Licence: MIT", "(batch, 32000) float32", "- fold 0, epoch 3: loss 0.12500  padded cmAP 0.7500 (floor 0.5000)",
        "24 recordings of 3 species", "- CC BY 4.0: 24", "- 0: `NA`", "- 1: `22961`", "- n_mels: `32`",
        "- torch: `2.10.0`", "12 of 12 validation clips",
    ):  # fmt: skip
        assert text in card


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_folds(config, rng):
    need_onnx()
    path, result = export_with(config, config.exp_dir, "--ensemble")
    assert path == config.exp_dir / "Exp_5.onnx" and result.difference < 1e-4
    assert result.n_clips == result.n_available == 24  # what either fold held back
    clips = list(rng.standard_normal((2, 32_000)).astype(np.float32))
    folds = [expected_scores(config.fold_dir(fold), clips) for fold in (0, 1)]
    for number, made in enumerate(open_exported(path)[0](np.stack(clips))):
        np.testing.assert_allclose(made, (folds[0][number] + folds[1][number]) / 2, atol=1e-4)
    assert np.abs(folds[0][0] - folds[1][0]).max() > 0.01
    assert (
        "One fold held each of these clips back; the others were trained on it."
        in path.with_name("Exp_5.onnx.md").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_reduced_precision_holds_the_encoder_in_it(config, exported, precision):
    import onnx

    path, result = export_with(
        config, config.fold_dir(1), "--precision", precision, "--limit", "0.5"
    )
    assert path.name == f"Exp_5_fold_1_{precision}.onnx"
    assert 0 < result.difference < (0.05 if precision == "float16" else 0.5)
    kind = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    program = onnx.load(path)
    reduced = [
        one.name
        for one in program.graph.initializer
        if one.data_type == kind and len(one.dims) == 4
    ]
    assert len(reduced) >= 5 and all(".encoder." in name for name in reduced)
    about = {entry.key: entry.value for entry in program.metadata_props}
    assert about["precision"] == precision and json.loads(about["folds"])[0]["fold"] == 1


def test_openvino_files_give_the_same(config, exported, monkeypatch):
    openvino = pytest.importorskip("openvino", reason=f"no openvino: {INSTALL}")
    monkeypatch.setattr(export, "draft", lambda path, *_: shutil.copy(exported[0], path))
    path, result = export_with(config, config.fold_dir(0), "--to", "openvino")
    assert path.suffix == ".xml" and path.with_suffix(".bin").is_file() and result.difference < 1e-4
    about = openvino.Core().read_model(path).get_rt_info(["birdclef", "class_names"])
    assert json.loads(about.value if hasattr(about, "value") else about) == SPECIES


# What is refused ----------------------------------------------------------------------------------


def test_a_file_whose_scores_differ_is_deleted(config, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export, "draft", lambda path, *_: shutil.copy(exported[0], path)
    )  # fold 0's, for fold 1
    output = tmp_path / "wrong.onnx"
    with pytest.raises(UserError, match="differ by up to .* nothing was written"):
        export_with(config, config.fold_dir(1), "--output", output)
    output.write_text("an earlier file")
    with pytest.raises(UserError, match="nothing was written"):
        export_with(config, config.fold_dir(1), "--output", output)
    assert output.read_text() == "an earlier file" and list(tmp_path.iterdir()) == [output]


def comparison(**changes: float) -> Comparison:
    values = {"n_clips": 9, "n_available": 9, "difference": 0.0, "cmap": 0.9, "cmap_expected": 0.9, "floor": 0.5,
              "ms_per_clip": 1.0, "ms_per_clip_expected": 1.0}  # fmt: skip
    return Comparison(**values | changes)


def test_limits_go_by_precision_and_by_flag():
    judge(comparison(difference=4e-4), "float32", None)
    judge(comparison(difference=0.9, cmap=0.881), "int8", None)
    for precision, limit, changes in (
        ("float32", None, {"difference": 6e-4}), ("float16", None, {"difference": 0.06}),
        ("float16", 1e-3, {"difference": 2e-3}), ("int8", None, {"difference": float("inf")}),
        ("int8", None, {"cmap": 0.87}),
    ):  # fmt: skip
        with pytest.raises(UserError, match="nothing was written"):
            judge(comparison(**changes), precision, limit)


def test_scores_that_are_not_finite_never_pass(config, monkeypatch):
    models = TorchModels(find_checkpoints(config.fold_dir(0)), Config(device="cpu", amp=False))
    table = data.check_table(data.read_train_table(config.train_dataframe_path))
    clips = read_clips(table, 5, config, SPECIES)
    assert (
        len(clips.images) == 5
        and clips.n_available == 24
        and clips.labels.sum(axis=1).tolist() == [1] * 5
    )

    def broken(waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(waveforms), 3), np.nan, np.float32)
        return scores, np.repeat(scores[:, None], 63, axis=1)

    assert compare(broken, models, clips).difference == float("inf")


def test_mistakes_are_one_line(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    other = Config(
        root=tmp_path, exp_id=6, base_model_name="test_efficientnet", n_mels=32, period=1.0
    )
    save_fold(other, 0, SPECIES)
    save_fold(other, 1, ["NA", "22961", "fish"])
    for flags, message in (
        ((tmp_path / "nowhere",), "no such model"),
        ((tmp_path,), "no model in it"),
        (
            (config.exp_dir,),
            "has 2 folds; name one of them, or put all into one file with --ensemble",
        ),
        ((config.fold_dir(0), "--ensemble"), "wants the folder of an experiment"),
        ((other.exp_dir, "--ensemble"), "other classes"),
        (
            (other.fold_dir(0),),
            "train.csv: no such file, and the exported file has to be compared on real clips",
        ),
        (
            (config.fold_dir(0), "--output", tmp_path / "birds.pt"),
            "needs a file name that ends in .onnx",
        ),
        ((config.fold_dir(0), "--output", tmp_path / "none" / "b.onnx"), "there is no folder"),
        ((config.fold_dir(0), "--precision", "int4"), "invalid choice"),
        (
            (config.fold_dir(0), "--precision", "int8", "--to", "openvino"),
            "works with --to onnx only",
        ),
        ((config.fold_dir(0), "--clips", "0"), "0 is not 1 or more"),
        ((config.fold_dir(0), "--presision", "int8"), "--presision"),
    ):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, flags)])
        with pytest.raises(SystemExit) as stopped:
            run_main(export.main)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and message in said, (flags, said)
        assert [
            line.startswith("error: ") for line in said.splitlines() if "WARNING" not in line
        ] == [True], said


def test_missing_packages_are_named_with_the_remedy(config, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"onnx, onnxruntime, onnxscript missing; {INSTALL}"):
        export_with(config, config.fold_dir(0))
