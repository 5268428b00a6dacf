"""Where people speak in a recording, found by silero-vad's network.

silero-vad (MIT, https://github.com/snakers4/silero-vad) brings its weights in its package. Only the
network is used, through onnxruntime; the package itself, which imports torch, is never imported, so
a decoder process stays small. requirements-voice.txt names what must be installed.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

RATE = 16_000  # Hz; what the network was trained on
VOICE_FRAME = 512  # samples; 32 ms, of which it gives one probability
VOICE_CONTEXT = 64  # samples of the frame before, which it hears with each
FRAMES_AT_A_TIME = 512
STATE = (1, 1, 128)  # of its LSTM

SPOKEN = 0.5  # probability from which a frame counts as voice, silero-vad's own default
SHORTEST_S = 0.5  # shorter voice does not count: most of it is birds and sneezes
PAUSE_S = 0.5  # shorter pauses between two voices count as voice
AROUND_S = 0.1  # seconds before and after voice that count as voice

WEIGHTS = "data/silero_vad_16k_sequence.onnx"  # takes many frames at once
HOW_TO_INSTALL = "python -m pip install -r requirements-voice.txt"


def find_weights() -> Path:
    """Find the network's weights in the installed package, without importing it.

    Raises:
        ModuleNotFoundError: silero-vad or onnxruntime is not installed, or too old.
    """
    package = importlib.util.find_spec("silero_vad")
    folders = (package.submodule_search_locations or []) if package else []
    for folder in folders:
        if (weights := Path(folder) / WEIGHTS).is_file() and importlib.util.find_spec(
            "onnxruntime"
        ):
            return weights
    raise ModuleNotFoundError(
        f"finding voices needs silero-vad 6.2.3 and onnxruntime: {HOW_TO_INSTALL}"
    )


def find_voice(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Find where people speak.

    Args:
        waveform: (n,) float32.
        sample_rate: Hz.

    Returns:
        (n_spans, 2) int64, first sample and end of each, in order and apart from each other.
    """
    heard = waveform
    if sample_rate != RATE and len(waveform):
        heard = soxr.resample(waveform, sample_rate, RATE, quality="HQ")
    spans = _to_spans(speech_probabilities(heard))
    samples = np.round(spans * sample_rate).astype(np.int64)
    return np.clip(samples, 0, len(waveform))


def _to_spans(probabilities: np.ndarray) -> np.ndarray:
    """Make spans (n, 2) in seconds of one probability a frame."""
    is_voice = probabilities >= SPOKEN
    edges = np.flatnonzero(np.diff(is_voice, prepend=False, append=False)).reshape(-1, 2)
    spans = edges * (VOICE_FRAME / RATE)
    if not len(spans):
        return spans

    pauses = spans[1:, 0] - spans[:-1, 1]  # (n - 1,)
    is_new = np.concatenate([[True], pauses >= PAUSE_S])
    is_last = np.concatenate([is_new[1:], [True]])
    spans = np.stack([spans[is_new, 0], spans[is_last, 1]], axis=1)
    spans = spans[spans[:, 1] - spans[:, 0] >= SHORTEST_S]
    return spans + [-AROUND_S, AROUND_S]


def speech_probabilities(waveform: np.ndarray) -> np.ndarray:
    """Say for each frame of 32 ms how likely it is that somebody speaks.

    Args:
        waveform: (n,) float32 at 16 kHz.

    Returns:
        (ceil(n / 512),) float32.
    """
    if not len(waveform):
        return np.zeros(0, np.float32)
    n_frames = -(-len(waveform) // VOICE_FRAME)
    padded = np.zeros(VOICE_CONTEXT + n_frames * VOICE_FRAME, np.float32)
    padded[VOICE_CONTEXT : VOICE_CONTEXT + len(waveform)] = waveform
    frames = np.lib.stride_tricks.sliding_window_view(padded, VOICE_CONTEXT + VOICE_FRAME)[
        ::VOICE_FRAME
    ]

    network = _load_network()
    hidden, cell = np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)
    found = []
    for start in range(0, n_frames, FRAMES_AT_A_TIME):
        some = np.ascontiguousarray(frames[start : start + FRAMES_AT_A_TIME])  # (frames, 576)
        inputs = {"input": some, "h": hidden, "c": cell}
        probabilities, hidden, cell = network.run(["speech_probs", "hn", "cn"], inputs)
        found.append(probabilities.reshape(-1))
    return np.concatenate(found)


@lru_cache(maxsize=1)
def _load_network() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(
        str(find_weights()), options, providers=["CPUExecutionProvider"]
    )
