"""docs/architecture.md: its map is the code's, and each of its diffs fits and does what it says."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from configs import Config
from tests.test_house import LEVELS, NOUNS, ROOMS, SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def diffs() -> dict[str, str]:
    """Each diff of the page, by the file that it changes."""
    blocks = re.findall(r"```diff\n--- (\S+)\n(.*?)```", TEXT, re.S)
    assert len(dict(blocks)) == len(blocks)
    return dict(blocks)


def apply(diff: str, text: str) -> str:
    """Replace the old lines of each hunk by its new ones; old lines stand once in the text."""
    for hunk in re.split(r"^@@\n", diff, flags=re.M)[1:]:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"not once in the file:\n{old}"
        text = text.replace(old, new)
    return text


def patched(file: str, folder: Path) -> ModuleType:
    """A module with its diff applied, beside the real one."""
    path = folder / Path(file).name
    path.write_text(apply(diffs()[file], (ROOT / file).read_text(encoding="utf-8")))
    spec = importlib.util.spec_from_file_location(f"patched_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_there_is_a_diff_for_each_kind_of_addition():
    assert set(diffs()) == {
        *("losses/named.py", "scheduler.py", "transforms.py", "settings/sound.py"),
        *("configs.py", "inference/formats.py"),
    }


def test_the_loss_of_the_diff_trains_in_one_and_two_ways_and_with_masks(tmp_path):
    losses = patched("losses/named.py", tmp_path)
    output = {"logit": torch.zeros(2, 3), "framewise_logit": torch.zeros(2, 4, 3)}
    targets = torch.ones(2, 3)
    assert float(losses.get_loss("brier")(output, targets)) == 0.25  # (1 - sigmoid(0)) ** 2
    assert float(losses.get_loss("brier_2way", weights=(1.0, 2.0))(output, targets)) == 0.75
    targets[0] = float("nan")
    assert float(losses.get_loss("brier", has_masks=True)(output, targets)) == 0.25


def test_the_schedule_of_the_diff_falls(tmp_path):
    scheduler = patched("scheduler.py", tmp_path)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    config = Config(
        lr=0.1, scheduler_name="polynomial", scheduler_params={"total_iters": 4, "power": 2}
    )
    schedule = scheduler.get_scheduler(config, optimizer)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.75**2)


def test_the_augmentation_of_the_diffs_plays_backwards(tmp_path, rng):
    settings = patched("settings/sound.py", tmp_path).SoundSettings(p_reverse=1.0)
    config = SimpleNamespace(**vars(Config()) | vars(settings))
    augment = patched("transforms.py", tmp_path).build_waveform_augmentation(config)
    waveform = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(augment(waveform, rng), waveform[::-1])


def test_the_backbone_of_the_diff_is_one_of_timm(tmp_path):
    import timm

    name = patched("configs.py", tmp_path).Config().base_model_name
    assert name != Config().base_model_name and name in timm.list_pretrained()


def test_the_format_of_the_diff_is_in_the_table(tmp_path):
    formats = patched("inference/formats.py", tmp_path)
    assert formats.FORMATS["jsonl"].suffix == ".jsonl"

    class Selection:
        class_names = ["robin"]

        def found(self, recording, threshold):
            from inference.detections import Event

            return [Event(1.0, 6.0, 0, 0.75)]

    class Recording:
        name = "a.wav"

    n_rows = formats.FORMATS["jsonl"].write(
        tmp_path / "found.jsonl", [Recording()], Selection(), "jsonl", 0.0
    )
    assert n_rows == 1
    assert (tmp_path / "found.jsonl").read_text() == '["a.wav", 1.0, 6.0, "robin", 0.75]\n'


def test_the_map_names_every_room_and_every_noun():
    table = TEXT.split("## The rooms")[1].split("##")[0]
    named = set(re.findall(r"`(\w+)(?:\.py|/)`", table))
    there = {path.stem for path in ROOT.glob("*.py")}
    assert ROOMS | (NOUNS & there) <= named
    assert SCRIPTS & there <= set(re.findall(r"`(\w+)\.py`", TEXT))


def test_the_order_of_imports_is_that_of_the_tests():
    block = TEXT.split("## Who may import whom")[1].split("```")[1]
    lines = [re.split(r" {5,}", line)[0] for line in block.strip().splitlines()]
    found = [set(re.findall(r"\w+", line)) for line in lines]
    assert found[:-1] == LEVELS


def test_every_file_that_is_named_is_there():
    named = re.findall(r"`((?:\w+/)+\w+\.py|\w+\.py)`", TEXT)
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists(), name
