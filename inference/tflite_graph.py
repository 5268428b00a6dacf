"""The graph of a waveform model as a .tflite file, for phones and recorders."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.exported import ABOUT_FILE, LABELS_FILE
from inference.graph_file import quiet
from inference.waveform_model import WaveformModel
from network.tflite_file import add_texts

N_CLIPS = 1  # in a run: the shapes of a TFLite graph are fixed


class NamedOutputs(nn.Module):
    """A waveform model whose outputs have the names that the file's signature gives them."""

    def __init__(self, scorer: WaveformModel) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """(1, n_samples) -> clipwise (1, C) and framewise (1, n_frames, C) scores."""
        clipwise, framewise = self.scorer(waveform)
        return {"clipwise": clipwise, "framewise": framewise}


def write_tflite(
    path: Path, graph: WaveformModel, n_samples: int, about: Mapping[str, str]
) -> None:
    """Write a .tflite file that takes one clip, with its metadata and labels in it.

    Args:
        path: where to.
        graph: in float32; its weights are laid out anew.
        n_samples: of a clip.
        about: metadata; `class_names` is a JSON list.
    """
    in_row_order(graph)
    sample = {"waveform": torch.zeros(N_CLIPS, n_samples)}
    with quiet():
        import litert_torch

        litert_torch.config.show_progress = False
        named = NamedOutputs(graph).eval()
        litert_torch.convert(named, sample_kwargs=sample).export(str(path))

    labels = "\n".join(json.loads(about["class_names"])) + "\n"
    add_texts(path, {ABOUT_FILE: json.dumps(dict(about), ensure_ascii=False), LABELS_FILE: labels})


def in_row_order(graph: nn.Module) -> None:
    """Lay out every weight of a graph in row order, in place, channels_last ones as well.

    litert-torch 0.10 (backend/inline_consts.py) makes a copy in row order of any other weight and
    knows it again by the copy's address. The copy is freed, and the next one of that shape often
    gets the address, and with it the values of the first: scores of two folds moved by 0.035.
    """
    for tensor in [*graph.parameters(), *graph.buffers()]:
        tensor.data = tensor.data.contiguous()
