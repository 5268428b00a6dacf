"""What stands in for ai-edge-litert, which the tests do without."""

import sys
import threading
import types

import numpy as np
import pytest


class Interpreter:
    """Scores each clip by its mean; like the real one, one clip and one thread at a time."""

    def __init__(self, path: str, **given: object) -> None:
        self.path, self.given, self.is_allocated = path, given, False
        self.threads: set[int] = set()

    def allocate_tensors(self) -> None:
        self.is_allocated = True

    def get_signature_runner(self):
        def run(waveform: np.ndarray) -> dict[str, np.ndarray]:
            assert self.is_allocated and waveform.shape[0] == 1 and waveform.dtype == np.float32
            self.threads.add(threading.get_ident())
            assert len(self.threads) == 1
            mean = waveform.mean(axis=1)[:, None]  # (1, 1)
            frames = np.stack([mean, mean / 2], axis=1)  # (1, 2, 1)
            return {"framewise": frames, "clipwise": mean}

        return run


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it where ai-edge-litert is imported from."""
    module = types.ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
