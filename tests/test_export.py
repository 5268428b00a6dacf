"""Exported files, run with the library they are for, against their checkpoints."""

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch

import checkpoint as ckpt
import dataset as data
import export
from configs import Config, UserError, run_main
from inference.exported import open_exported
from inference.model_files import find_checkpoints
from inference.scorers import open_models
from model import SED
from tests.exporting import (
    CLASSES,
    INSTALL,
    expected_scores,
    export_with,
    need_onnx,
    save_fold,
)
from transforms import crop_or_pad


def test_scores_are_those_of_the_checkpoint(trained_folds, exported, rng):
    path, result = exported
    assert path == trained_folds.fold_dir(0) / "Exp_5_fold_0.onnx"
    assert result.n_clips == result.n_available == 12 and result.difference < 1e-4
    whole = rng.standard_normal(32_000).astype(np.float32)
    short = crop_or_pad(np.sin(np.arange(50, dtype=np.float32)), 32_000)
    clips = [whole, short, np.zeros(32_000, np.float32), whole * np.float32(1e-4)]
    score = open_exported(path)[0]
    for clip in clips:
        expected = expected_scores(trained_folds.fold_dir(0), [clip])
        for made, wanted in zip(score(clip[None]), expected, strict=True):
            assert made.dtype == np.float32 and made.shape == wanted.shape
            np.testing.assert_allclose(made, wanted, atol=1e-4)
    assert (
        np.ptp(expected_scores(trained_folds.fold_dir(0), clips)[0], axis=0).min() > 1e-3
    )  # the clips do differ


def test_a_batch_gives_what_single_clips_give(exported, rng):
    score = open_exported(exported[0])[0]
    clips = rng.standard_normal((3, 32_000)).astype(np.float32) * np.float32([[1], [0.01], [30]])
    together, alone = score(clips), [score(clip[None]) for clip in clips]
    for number in range(2):
        np.testing.assert_allclose(
            together[number], np.concatenate([one[number] for one in alone]), atol=2e-6
        )


def test_scores_of_validation_are_those_of_the_file(trained_folds, exported):
    table = data.check_table(data.read_train_table(trained_folds.train_dataframe_path))
    valid_part = data.split_fold(table, 0, [])[1]
    rows = data.WaveformDataset(valid_part, trained_folds, "valid", CLASSES)
    model = SED(trained_folds.base_model_name, num_classes=3, n_mels=32).eval()
    model.load_state_dict(
        ckpt.read_checkpoint(find_checkpoints(trained_folds.fold_dir(0))[0])["model"]
    )
    with torch.inference_mode():
        expected = model(torch.stack([rows[index]["image"] for index in range(len(rows))]))[
            "clipwise_output"
        ].numpy()
    clips = [crop_or_pad(np.load(rows.path(index)), 32_000) for index in range(len(rows))]
    np.testing.assert_allclose(
        open_exported(exported[0])[0](np.stack(clips))[0], expected, atol=1e-4
    )


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_folds(trained_folds, rng):
    need_onnx()
    path, result = export_with(trained_folds, trained_folds.exp_dir, "--ensemble")
    assert path == trained_folds.exp_dir / "Exp_5.onnx" and result.difference < 1e-4
    assert result.n_clips == result.n_available == 24  # what either fold held back
    clips = list(rng.standard_normal((2, 32_000)).astype(np.float32))
    folds = [expected_scores(trained_folds.fold_dir(fold), clips) for fold in (0, 1)]
    for number, made in enumerate(open_exported(path)[0](np.stack(clips))):
        np.testing.assert_allclose(made, (folds[0][number] + folds[1][number]) / 2, atol=1e-4)
    assert np.abs(folds[0][0] - folds[1][0]).max() > 0.01
    assert (
        "One fold held each of these clips back; the others were trained on it."
        in path.with_name("Exp_5.onnx.md").read_text()
    )


@pytest.mark.slow
def test_a_blend_of_experiments_is_one_file_with_one_log_mel(trained_folds, rng, tmp_path):
    need_onnx()
    import onnx

    other = Config(**{**trained_folds.to_dict(), "exp_id": 7, "base_model_name": "test_resnet"})
    save_fold(other, 0, CLASSES, seed=5)
    blend = tmp_path / "blend.yaml"
    first, second = trained_folds.exp_dir, other.exp_dir
    blend.write_text(
        f"models:\n- {{model: {first}, weight: 3}}\n- {{model: {second}, weight: 1}}\n"
    )
    path, result = export_with(trained_folds, blend, "--output", tmp_path / "birds.onnx")
    assert result.n_clips == result.n_available == 24 and result.difference < 1e-4

    clips = list(rng.standard_normal((2, 32_000)).astype(np.float32))
    singles = [expected_scores(trained_folds.fold_dir(fold), clips) for fold in (0, 1)]
    singles.append(expected_scores(other.fold_dir(0), clips))
    opened = open_models(blend, Config(device="cpu", amp=False))  # what predict.py averages
    ours = opened.score([opened.prepare(clip) for clip in clips], frames=False)[0]
    assert opened.weights == (0.375, 0.375, 0.25)
    for number, made in enumerate(open_exported(path)[0](np.stack(clips))):
        weighed = zip((0.375, 0.375, 0.25), singles, strict=True)
        wanted = sum(weight * one[number] for weight, one in weighed)
        np.testing.assert_allclose(made, wanted, atol=1e-5)
        if number == 0:
            np.testing.assert_allclose(
                made, np.average(ours, axis=0, weights=opened.weights), atol=1e-5
            )
    assert np.abs(singles[0][0] - singles[2][0]).max() > 0.01

    names = [node.name for node in onnx.load(path).graph.initializer]
    assert sum("front_end.bank" in name for name in names) <= 1
    assert sum("encoder.conv_stem" in name or "encoder.stem" in name for name in names) >= 2
    card = path.with_name("birds.onnx.md").read_text()
    assert "- test_efficientnet: weight 0.375" in card and "- test_resnet: weight 0.25" in card


def test_openvino_files_give_the_same(trained_folds, exported, monkeypatch):
    openvino = pytest.importorskip("openvino", reason=f"no openvino: {INSTALL}")
    monkeypatch.setattr(export, "draft", lambda path, *_: shutil.copy(exported[0], path))
    path, result = export_with(trained_folds, trained_folds.fold_dir(0), "--to", "openvino")
    assert path.suffix == ".xml" and path.with_suffix(".bin").is_file() and result.difference < 1e-4
    about = openvino.Core().read_model(path).get_rt_info(["birdclef", "class_names"])
    assert json.loads(about.value if hasattr(about, "value") else about) == CLASSES


def test_a_file_whose_scores_differ_is_deleted(trained_folds, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export, "draft", lambda path, *_: shutil.copy(exported[0], path)
    )  # fold 0's, for fold 1
    output = tmp_path / "wrong.onnx"
    with pytest.raises(UserError, match="differ by up to .* nothing was written"):
        export_with(trained_folds, trained_folds.fold_dir(1), "--output", output)
    output.write_text("an earlier file")
    with pytest.raises(UserError, match="nothing was written"):
        export_with(trained_folds, trained_folds.fold_dir(1), "--output", output)
    assert output.read_text() == "an earlier file" and list(tmp_path.iterdir()) == [output]


def test_mistakes_are_one_line(trained_folds, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    other = Config(
        root=tmp_path, exp_id=6, base_model_name="test_efficientnet", n_mels=32, period=1.0
    )
    save_fold(other, 0, CLASSES)
    save_fold(other, 1, ["NA", "22961", "fish"])
    for flags, message in (
        ((tmp_path / "nowhere",), "no such model"),
        ((tmp_path,), "no model in it"),
        (
            (trained_folds.exp_dir,),
            "has 2 folds; name one of them, or put all into one file with --ensemble",
        ),
        ((trained_folds.fold_dir(0), "--ensemble"), "wants the folder of an experiment"),
        ((other.exp_dir, "--ensemble"), "other classes"),
        (
            (other.fold_dir(0),),
            "train.csv: no such file, and the exported file has to be compared on real clips",
        ),
        (
            (trained_folds.fold_dir(0), "--output", tmp_path / "birds.pt"),
            "needs a file name that ends in .onnx",
        ),
        (
            (trained_folds.fold_dir(0), "--output", tmp_path / "none" / "b.onnx"),
            "there is no folder",
        ),
        ((trained_folds.fold_dir(0), "--precision", "int4"), "invalid choice"),
        (
            (trained_folds.fold_dir(0), "--precision", "int8", "--to", "openvino"),
            "works with --to onnx only",
        ),
        (
            (trained_folds.fold_dir(0), "--precision", "float16", "--to", "tflite"),
            "--to tflite writes float32 alone",
        ),
        ((tmp_path / "b.yaml", "--to", "hub"), "takes one experiment"),
        ((tmp_path / "b.yaml",), "b.yaml: cannot be read"),
        ((trained_folds.fold_dir(0), "--clips", "0"), "0 is not 1 or more"),
        ((trained_folds.fold_dir(0), "--presision", "int8"), "--presision"),
    ):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, flags)])
        with pytest.raises(SystemExit) as stopped:
            run_main(export.main)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and message in said, (flags, said)
        assert [
            line.startswith("error: ") for line in said.splitlines() if "WARNING" not in line
        ] == [True], said


def test_missing_packages_are_named_with_the_remedy(trained_folds, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"onnx, onnxruntime, onnxscript missing; {INSTALL}"):
        export_with(trained_folds, trained_folds.fold_dir(0))
    tflite = "litert_torch missing; python -m pip install --no-deps -r requirements-tflite.txt"
    with pytest.raises(UserError, match=tflite):
        export_with(trained_folds, trained_folds.fold_dir(0), "--to", "tflite")
