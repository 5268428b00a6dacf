"""benchmarks/cuda.py: it survives what fails in it, and what it finds on CUDA is right."""

import json
import sys

import pytest
import torch

from benchmarks import cuda, cuda_sections
from benchmarks.cuda_sections import SECTIONS, TINY, run_section

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ON_CUDA = pytest.param(torch.device("cuda"), marks=[pytest.mark.gpu, NO_CUDA], id="cuda")
DEVICES = [pytest.param(torch.device("cpu"), marks=pytest.mark.slow, id="cpu"), ON_CUDA]

FAKE = """
import json, os, sys, time
section = sys.argv[sys.argv.index("--section") + 1]
print(json.dumps({"section": section, "value": 1.5}), flush=True)
if section == "step":
    raise RuntimeError("no such kernel")
if section == "launches":
    time.sleep(60)
"""


@pytest.fixture
def fake_sections(tmp_path, monkeypatch):
    """Sections that print a row; the first then fails and the second hangs."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "cuda.py").write_text(FAKE)
    monkeypatch.setattr(cuda, "ROOT", tmp_path)
    monkeypatch.setattr(cuda, "TRY_LIMIT", 2.0)
    return tmp_path


def test_a_section_that_fails_or_hangs_costs_only_itself(fake_sections, monkeypatch, capsys):
    out = fake_sections / "rows.jsonl"
    words = ["cuda", "--try", "--only", "step", "launches", "memory", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    assert cuda.main() == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["section"] for row in rows] == ["step"] * 2 + ["launches"] * 2 + ["memory"] * 2
    failures = {row["section"]: row.get("failed") for row in rows if "seconds" in row}
    assert failures == {
        "step": "RuntimeError: no such kernel",
        "launches": "not done after 2.0 s",
        "memory": None,
    }
    said = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in said if line.startswith("{")] == rows
    assert "memory    value 1.5" in said


def test_all_sections_together_take_at_most_eight_minutes():
    assert sum(cuda.LIMITS.values()) <= 480 and list(cuda.LIMITS) == list(SECTIONS)


def test_without_a_card_only_a_try_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device here; --try runs on any"):
        run_section("step", is_try=False)


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic_runs_and_resumed_ones_are_equal_to_the_bit(device):
    rows = list(cuda_sections.exact(TINY, device))
    assert len(rows) == 2  # images made on either side
    for row in rows:
        assert row["a second run differs in"] == row["a resumed run differs in"] == []


@pytest.mark.gpu
@NO_CUDA
def test_scores_on_cuda_are_those_of_the_cpu():
    for row in cuda_sections.predict(TINY, torch.device("cuda")):
        assert row["largest difference"] <= row["allowed"]


@pytest.mark.gpu
@NO_CUDA
def test_a_batch_that_does_not_fit_is_halved_and_the_epoch_ends():
    (row,) = cuda_sections.memory(cuda_sections.Sizes(batches=(32,)), torch.device("cuda"))
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert 0 < row["clips at a time with 0.6 of it"] < 32 and row["skipped steps"] == 0
