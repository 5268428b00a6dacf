"""What an exported file says about itself."""

import json

from configs import Config
from inference.exported import EXPORT_FORMAT
from tests.exporting import (
    CLASSES,
    ROW,
)


def test_metadata_can_be_read_without_torch(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == CLASSES
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
        "Licence: MIT",
        "(batch, 32000) float32",
        "- fold 0, epoch 3: loss 0.12500  padded cmAP 0.7500 (floor 0.5000)",
        "24 recordings of 3 species",
        "- CC BY 4.0: 24",
        "- 0: `NA`",
        "- 1: `22961`",
        "- n_mels: `32`",
        "- torch: `2.10.0`",
        "12 of 12 validation clips",
    ):
        assert text in card
