"""Settings that make training faster: what they set, and that results stay what they were."""

import shutil

import numpy as np
import pytest
import torch

import checkpoint as ckpt
import dataset as data
import train
from configs import UserError
from model import compile_model, spec_augment
from tests.small_run import (
    CPU,
    SPECIES,
    assert_same_end,
    build,
    copy_of,
    positioned,
    run_until,
    weights,
)
from training.batches import build_loader, collate

CUDA = torch.device("cuda")  # a name; nothing here needs the device


# One plane in place of three channels -------------------------------------------------------------


def plane_items(rng: np.random.Generator, n: int) -> list[dict[str, torch.Tensor]]:
    planes = [torch.from_numpy(rng.random((5, 4), np.float32)) for _ in range(n)]
    return [
        {"image": plane.expand(3, -1, -1), "targets": torch.full((2,), 0.5)} for plane in planes
    ]


def test_a_plane_seen_three_times_travels_once_and_arrives_as_three_channels(rng, df, config):
    items = plane_items(rng, 4)
    batch = collate(items)
    assert batch["image"].shape == (4, 1, 5, 4) and batch["targets"].shape == (4, 2)
    images, targets = build(df, config).to_device(batch)
    assert torch.equal(images, torch.stack([item["image"] for item in items]))
    assert images.untyped_storage().nbytes() == 4 * 5 * 4 * 4
    assert torch.equal(targets, batch["targets"])


def test_three_channels_that_differ_stay_three(rng):
    items = plane_items(rng, 2)
    items[1]["image"] = torch.from_numpy(rng.random((3, 5, 4), np.float32))
    assert torch.equal(collate(items)["image"], torch.stack([item["image"] for item in items]))
    assert collate([]) == {}


@pytest.mark.parametrize("kind", ["p_mixup", "p_cutmix", "nothing"])
def test_a_step_with_planes_is_that_with_channels_to_the_bit(df, config, kind):
    config.p_mixup = config.p_cutmix = 0.0
    if kind != "nothing":
        setattr(config, kind, 1.0)
    found = []
    for n_channels in (1, 3):
        fold = build(df, config)
        fold.parts.model.train()
        batch = next(iter(positioned(fold, 1)))
        batch["image"] = batch["image"][:, :1].expand(-1, n_channels, -1, -1).contiguous()
        train.train_step(fold, batch)
        found.append(weights(fold))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


# What is set where --------------------------------------------------------------------------------


def test_memory_is_pinned_for_cuda_and_workers_fetch_ahead(df, config):
    dataset = data.WaveformDataset(df, config, "train", SPECIES)
    for num_workers, device in ((0, CPU), (2, CUDA)):
        config.num_workers = num_workers
        loader, _ = build_loader(dataset, config, device)
        assert loader.pin_memory == (device is CUDA)
        assert loader.prefetch_factor == (2 if num_workers else None)
        assert loader.persistent_workers == (num_workers > 0)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_the_settings_and_changes_no_result(df, config, channels_last):
    config.channels_last = channels_last
    fold = build(df, config)
    weight = fold.parts.model.encoder.conv_stem.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    seen = []
    fold.parts.model.encoder.conv_stem.register_forward_hook(
        lambda *args: seen.append(args[2].is_contiguous(memory_format=torch.channels_last))
    )
    config.channels_last = False
    plain = build(df, config)
    batch = next(iter(positioned(fold, 1)))
    outputs = [each.parts.model.eval()(each.to_device(batch)[0])["logit"] for each in (fold, plain)]
    assert seen == [
        channels_last
    ]  # the images are in no format of their own, the convolutions' outputs are
    assert torch.allclose(*outputs, atol=1e-5)


# torch.compile ------------------------------------------------------------------------------------


class Small(torch.nn.Module):
    """What tracing meets in the real model, with two layers in place of two hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4 * 32, 3)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training and torch.rand(()) < 0.5:
            images = spec_augment(images)
        x = torch.nn.functional.dropout(self.norm(self.conv(images)).relu(), 0.2, self.training)
        framewise = self.head(x.transpose(1, 2).flatten(2))
        logit = framewise.mean(dim=1)
        return {
            "logit": logit,
            "framewise_logit": framewise,
            "clipwise_output": logit.sigmoid().clamp(max=0.999),
        }


@pytest.fixture
def quick_compiler(monkeypatch):
    """The real tracing and its gradients, without the minute that C++ takes, of a small model."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic, options: original(
        model, dynamic=dynamic, backend="aot_eager"))  # fmt: skip
    monkeypatch.setattr(train, "build_model", lambda *args, **kwargs: Small())
    yield
    torch.compiler.reset()


TORCHS_OWN_TRACING = "ignore:The .grad attribute of a Tensor that is not a leaf"


@pytest.mark.filterwarnings(TORCHS_OWN_TRACING)
def test_a_compiled_run_makes_the_same_draws_and_its_files_fit_one_that_is_not(
    df, config, quick_compiler, monkeypatch
):  # fmt: skip
    config.ema_decay = 0.9
    compiled = copy_of(config, compile_model=True, models_dir=config.root / "compiled")
    sizes = []
    original = train.compile_model

    def counted(model, how):
        forward = original(model, how)
        return lambda images: (sizes.append(len(images)), forward(images))[1]

    monkeypatch.setattr(train, "compile_model", counted)
    train.run(df, config)
    train.run(df, compiled)
    assert sizes == [7, 7, 7, 7]  # in each epoch two whole batches; the third has four clips
    plain, other = (
        ckpt.read_checkpoint(each.fold_dir(0) / "last.pth") for each in (config, compiled)
    )
    for part in ("model", "ema"):
        assert {name: tensor.shape for name, tensor in plain[part].items()} == {
            name: tensor.shape for name, tensor in other[part].items()
        }
    for row, same in zip(plain["history"], other["history"], strict=True):
        assert row["train_loss"] == pytest.approx(same["train_loss"], rel=1e-5)
        assert row["valid_loss"] == pytest.approx(same["valid_loss"], rel=1e-5)
    train.run(df, copy_of(compiled, epochs=3, compile_model=False))
    assert ckpt.read_checkpoint(compiled.fold_dir(0) / "last.pth")["epoch"] == 3


@pytest.mark.filterwarnings(TORCHS_OWN_TRACING)
def test_a_compiled_run_resumes_exactly(df, config, quick_compiler, monkeypatch):
    config = copy_of(config, compile_model=True, checkpoint_every_steps=1, ema_decay=0.9)
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    run_until(df, broken, monkeypatch, step=2)  # before the epoch's last, smaller batch
    torch.compiler.reset()
    train.run(df, broken)
    assert_same_end(config, broken)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings(TORCHS_OWN_TRACING)
def test_compiled_code_drops_the_same_units_and_has_the_same_gradients():
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 2))
    found = []
    for forward in (model, compile_model(model)):
        torch.manual_seed(3)
        model.zero_grad()
        output = forward(torch.linspace(-1, 1, 24).view(4, 6))
        output.sum().backward()
        found.append([output.detach(), *(value.grad.clone() for value in model.parameters())])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_without_a_compiler_one_line_says_so(df, config):
    fold = build(df, config)

    def no_compiler(images):
        raise torch._dynamo.exc.BackendCompilerFailed(
            None, RuntimeError("No working C++ compiler found"), None
        )

    fold.precision.compiled = no_compiler
    with pytest.raises(
        UserError, match=r"^compile_model: .*No working C\+\+ compiler found.* train without it$"
    ):
        train.train_step(fold, next(iter(positioned(fold, 1))))
