"""A step of training and of validation on a GPU that is not there: all is on it, and none waits."""

import pandas as pd
import pytest
import torch

import train
from catalog import train_table
from configs import Config
from tests.pretended import CUDA, pretended_cuda
from tests.small_run import CPU, SPECIES, copy_of
from tests.switches import SWITCHES, make_material
from training.fold import Fold


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> tuple[Config, pd.DataFrame]:
    return make_material(tmp_path_factory.mktemp("pretended"))


def build(df: pd.DataFrame, config: Config, device: torch.device) -> Fold:
    parts = train_table.split_fold(df, 0, [])
    return train.build_fold(*parts, 0, SPECIES, config, device, load_weights=False)


def step_on_cuda(material, monkeypatch, name: str, **changes: object) -> Fold:
    """Train a step and score a batch with a group of switches; return the fold."""
    config, df = material
    # Whether there are stripes is drawn on the CPU, and asks no GPU.
    of_step = {"p_spec_augment": 0.0, "accumulation_steps": 1}
    settings = {**SWITCHES[name], **changes, **of_step}
    config = copy_of(config, **settings)
    config.train_dir = config.fold_dir(0)
    here = build(df, config, CPU)
    here.train_sampler.set_position(1)
    batch, valid_batch = next(iter(here.train_loader)), next(iter(here.valid_loader))
    loaders = train.build_loader
    monkeypatch.setattr(
        train, "build_loader", lambda data, config, _, **share: loaders(data, config, CPU, **share)
    )

    with pretended_cuda(monkeypatch):
        fold = build(df, config, CUDA)

        def backward(loss: torch.Tensor) -> None:
            assert loss.is_cuda and loss.requires_grad
            for parameter in fold.parts.model.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        fold.parts.model.train()
        train.train_step(fold, batch)
        fold.parts.model.eval()
        with torch.no_grad():
            train.score_batch(fold, valid_batch)
    return fold


@pytest.mark.parametrize(
    ("name", "frontend"), [(name, "device") for name in SWITCHES] + [("waveforms", "cpu")]
)
def test_every_switch_stays_on_the_device_and_waits_for_nothing(
    material, monkeypatch, name, frontend
):
    fold = step_on_cuda(material, monkeypatch, name, frontend=frontend, amp_dtype="bfloat16")
    assert len(fold.late) == 1 and fold.progress.batch == 1
    assert {value.device.type for value in fold.parts.model.state_dict().values()} == {"cuda"}


def test_a_step_that_reads_its_loss_at_once_is_found(material, monkeypatch):
    monkeypatch.setattr(Fold, "__post_init__", _read_at_once(Fold.__post_init__))
    with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        step_on_cuda(material, monkeypatch, "gem, masked targets", amp_dtype="bfloat16")


def test_a_tensor_left_on_the_cpu_is_found(monkeypatch):
    with pretended_cuda(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        _ = torch.ones(2, device=CUDA) * torch.ones(2)


def _read_at_once(original):
    def changed(fold):
        original(fold)
        fold.late = None

    return changed
