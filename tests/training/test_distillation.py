"""A teacher's vectors in training: what an item carries, what is mixed, what is learned."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import checkpoint as ckpt
import train
from catalog.vectors import About, write_vectors
from configs import Config, UserError
from dataset import WaveformDataset
from inference.hub_card import hub_card
from inference.scorers import open_models
from model import PROJECTION, build_model
from tests.small_run import build, copy_of, make_recordings, run_until, same, tiny_config
from tests.switches import LICENCE, write_teacher
from tests.switches import VECTOR_SIZE as SIZE
from training.batches import collate
from training.distillation import beside, cosine_loss, taught
from training.mixed import Mixed, mix_batch, mixed_loss
from training.rates import begin_training

CALM = {"p_mixup": 0.0, "p_cutmix": 0.0, "p_spec_augment": 0.0, "max_mixed_birds": 1}


@pytest.fixture
def config(tmp_path) -> Config:
    return tiny_config(tmp_path, train_bs=5, epochs=2, keep_checkpoints=9)


@pytest.fixture
def df(config) -> pd.DataFrame:
    return make_recordings(config, 16)


@pytest.fixture
def taught_config(df, config) -> Config:
    path = write_teacher(config.root / "vectors.npz", df)
    return copy_of(config, teacher_embeddings=path, distill_weight=0.5)


# What an item carries -----------------------------------------------------------------------------


def vectors_in(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as stored:
        rows = stored["recording"] == name
        return stored["start_s"][rows], stored["vector"][rows].astype(np.float64)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def place_of(clip: np.ndarray, recording: np.ndarray) -> int:
    """Find where a clip, scaled to a peak of 1, was cut out of a recording."""
    windows = np.lib.stride_tricks.sliding_window_view(recording, len(clip))[:, :64]
    return int((windows @ clip[:64] / np.linalg.norm(windows, axis=1)).argmax())


@pytest.mark.parametrize("frontend", ["cpu", "device"])
def test_a_crop_has_the_vectors_of_the_seconds_that_it_covers(df, taught_config, frontend):
    config = copy_of(taught_config, frontend=frontend, **CALM)
    dataset = WaveformDataset(df, config, "train")
    assert dataset.vector_size == SIZE
    for index in range(4):
        item = dataset[1, index]
        clip = dataset._waveforms.training_clip(index, dataset._rng((1, index)))
        name = dataset.filename(index)
        start_s = place_of(clip, np.load(config.train_np_dir / f"{name}.npy")) / 32_000
        starts, vectors = vectors_in(config.teacher_embeddings, name)
        is_inside = (starts + 0.25 >= start_s) & (starts + 0.25 < start_s + 1)
        expected = unit(vectors[is_inside].mean(axis=0))
        np.testing.assert_allclose(item["vector"].numpy(), expected, atol=1e-5)


def test_the_last_recording_has_none_and_other_items_are_as_without_a_teacher(df, taught_config):
    taught_set = WaveformDataset(df, taught_config, "train")
    plain_set = WaveformDataset(df, copy_of(taught_config, distill_weight=0.0), "train")
    last = WaveformDataset(df, copy_of(taught_config, **CALM), "train")[1, len(df) - 1]
    assert last["vector"].isnan().all()
    for index in (0, 3):
        item, plain = taught_set[1, index], plain_set[1, index]
        assert item.keys() - plain.keys() == {"vector"}
        assert all(torch.equal(item[name], value) for name, value in plain.items())
    assert "vector" not in WaveformDataset(df, taught_config, "valid")[0]


def test_mixup_of_waveforms_weighs_the_vectors_by_its_share(df, taught_config):
    config = copy_of(taught_config, p_waveform_mixup=1.0, period=2.5, **CALM)
    dataset = WaveformDataset(df.head(8), config, "train")  # each clip is a whole recording
    for index in range(4):
        own, partner = dataset.birds_of((1, index))
        share = dataset._draw_mixing((1, index)).lam
        each = [vectors_in(config.teacher_embeddings, dataset.filename(row))[1].mean(axis=0)
                for row in (own, partner)]  # fmt: skip
        expected = share * unit(each[0]) + (1 - share) * unit(each[1])
        np.testing.assert_allclose(dataset[1, index]["vector"].numpy(), expected, atol=1e-5)


# The loss -----------------------------------------------------------------------------------------


def test_the_cosine_loss_is_that_by_hand_and_unknown_vectors_count_nothing():
    projected = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    vectors = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [0.0, -7.0]])
    loss = cosine_loss(projected, vectors)
    assert float(loss.detach()) == pytest.approx(((1 - 0.6) + 0 + 2) / 3)
    loss.backward()
    assert projected.grad.isfinite().all() and not projected.grad[1].any()
    parts = [cosine_loss(projected[part], vectors[part]) for part in (slice(2), slice(2, 3))]
    torch.testing.assert_close(2 * parts[0] + parts[1], 3 * loss)


def squared(output, targets):
    return (output["logit"] - targets).square().mean()


OUTPUT = {"logit": torch.zeros(2, 2), "vector": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
LABELS = torch.tensor([[1.0, 1.0], [3.0, 3.0]])
VECTORS = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # distances 1 and 0


@pytest.mark.parametrize(
    ("epoch", "weight", "expected"), [(0, 0.2, 0.5), (1, 0.2, 0.1 + 4.0), (1, 0.0, 5.0)]
)
def test_the_shares_of_both_losses(config, epoch, weight, expected):
    config = copy_of(config, distill_weight=weight, distill_epochs=1)
    loss = taught(squared, config, 2, lambda: epoch)
    assert float(loss(OUTPUT, beside(LABELS, VECTORS))) == pytest.approx(expected)
    assert float(loss(OUTPUT, LABELS)) == 5.0  # validation has no vectors

    timed = beside(LABELS[:, None].expand(-1, 4, -1), VECTORS)  # of a clip and three steps
    assert timed.shape == (2, 4, 4)

    def of_steps(output, targets):
        return squared(output, targets[:, 0])

    loss = taught(of_steps, config, 2, lambda: epoch)
    assert float(loss(OUTPUT, timed)) == pytest.approx(expected)


@pytest.mark.parametrize(("epoch", "weight"), [(0, 0.5), (1, 0.5), (1, 0.0)])
def test_a_process_without_a_clip_has_gradients_of_the_same_layers(
    df, taught_config, epoch, weight
):
    """Else the sum over processes would add up those of unlike layers."""
    fold = build(df, copy_of(taught_config, distill_weight=weight, distill_epochs=1))
    begin_training(fold.parts.model, fold.config, epoch)  # what an epoch does not teach is frozen
    fold.progress.epoch = epoch
    model, found = fold.parts.model.eval(), []
    for n_clips in (2, 0):
        model.zero_grad(set_to_none=True)
        images = torch.rand(n_clips, 3, fold.config.image_frames, fold.config.image_bands)
        targets = torch.full((n_clips, 3), 0.5)
        if n_clips:
            targets = beside(targets, torch.ones(n_clips, SIZE))
        mixed_loss(fold.criterion, model(images), Mixed(images, targets, targets, 1.0)).backward()
        named = model.named_parameters()
        found.append({name for name, value in named if value.grad is not None})
    assert found[0] == found[1] and any(name.startswith("encoder.") for name in found[0])
    assert any(name.startswith(PROJECTION) for name in found[0]) == (epoch == 0 or weight > 0)


def test_without_a_teacher_the_loss_is_the_labels_own(config):
    assert taught(squared, config, 2, lambda: 0) is squared


@pytest.mark.parametrize("kind", ["p_mixup", "p_cutmix"])
def test_a_mixed_batch_mixes_the_vectors_as_the_targets(df, taught_config, kind):
    config = copy_of(taught_config, **CALM | {kind: 1.0})
    fold = build(df, config)
    batch = collate([fold.train_set[1, index] for index in range(6)])
    images, targets = fold.to_device(batch)
    mixed = mix_batch(fold, images, targets)
    assert targets.shape == (6, 3 + SIZE) and 0 < mixed.lam < 1
    # Vectors and labels are of the same clips.
    for side in (mixed.targets_a, mixed.targets_b):
        for row in side:
            is_it = (targets[:, :3] == row[:3]).all(1) & targets[:, 3:].isclose(row[3:]).all(1)
            assert is_it.any()

    output = fold.parts.model.eval()(mixed.images)
    expected = torch.zeros(())
    for side, share in ((mixed.targets_a, mixed.lam), (mixed.targets_b, 1 - mixed.lam)):
        pointed = output["vector"] / output["vector"].norm(dim=1, keepdim=True)
        distance = 1 - (pointed * side[:, 3:]).sum(1)
        labels_loss = train.build_loss(config)(output, side[:, :3])
        expected = expected + share * (0.5 * distance.mean() + 0.5 * labels_loss)
    torch.testing.assert_close(mixed_loss(fold.criterion, output, mixed), expected)
    assert isinstance(mixed.part(slice(2)), Mixed) and len(mixed.part(slice(2)).targets_b) == 2


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_taught_run_stopped_and_gone_on_ends_as_an_unbroken_one(df, taught_config, monkeypatch):
    config = copy_of(
        taught_config, distill_epochs=1, checkpoint_every_steps=1, ema_decay=0.9, lr=1e-2
    )
    train.run(df, config)
    broken = copy_of(config, models_dir=config.root / "other")
    for step in (1, 3):
        run_until(df, broken, monkeypatch, step=step)
    train.run(df, broken)
    states = [ckpt.read_checkpoint(one.fold_dir(0) / "last.pth") for one in (config, broken)]
    assert f"{PROJECTION}weight" in states[0]["model"]
    assert same(states[0]["model"], states[1]["model"]) and same(states[0]["ema"], states[1]["ema"])

    # In the first epoch the head has nothing to learn from, and stays.
    first = ckpt.read_checkpoint(ckpt.named_checkpoints(config.fold_dir(0))[0].path)["model"]
    begun = build(df, copy_of(config)).parts.model.state_dict()
    is_kept = {name: torch.equal(value, first[name]) for name, value in begun.items()}
    assert is_kept["fc1.weight"] and not is_kept[f"{PROJECTION}weight"]
    assert not torch.equal(first["fc1.weight"], states[0]["model"]["fc1.weight"])

    # What comes of it is a model like any other, which says whom it has learned from.
    models = open_models(config.fold_dir(0), config)
    assert not any(name.startswith(PROJECTION) for name in models.models[0].state_dict())
    settings = yaml.safe_load((config.fold_dir(0) / "config.yaml").read_text())["config"]
    assert settings["teacher_source"].startswith(f"Owl ({LICENCE}), vectors ")
    about = {"settings": settings, "class_names": [], "folds": [], "licence": "MIT"}
    assert f"- Taught by Owl ({LICENCE})" in hub_card("birds", about, df)

    # Its backbone is a start for others; other vectors are another experiment.
    build_model(copy_of(config, pretrained_checkpoint=config.fold_dir(0) / "last.pth"), 7)
    write_teacher(config.teacher_embeddings, df, seed=6)
    with pytest.raises(ckpt.CheckpointError, match="teacher_source"):
        train.run(df, copy_of(broken, epochs=3))


@pytest.mark.slow
def test_the_projection_learns_to_point_where_the_teacher_does(df, taught_config):
    config = copy_of(taught_config, distill_weight=1.0, epochs=12, lr=1e-2, **CALM)
    train.run(df, config)
    history = pd.read_csv(config.fold_dir(0) / "history.csv")
    assert history["train_loss"].iloc[-1] < 0.6 * history["train_loss"].iloc[0]


def test_a_teacher_without_a_file_and_one_of_other_recordings_are_refused(df, config, tmp_path):
    with pytest.raises(UserError, match="name the file that embed.py wrote"):
        train.run(df, copy_of(config, distill_weight=0.5))
    path = tmp_path / "others.npz"
    write_vectors(path, ["x/1.ogg"], np.zeros(1), np.ones((1, 3)), About("Owl", LICENCE, 1.0))
    with pytest.raises(UserError, match=r"others.npz: no vectors of any of the .* recordings"):
        train.run(df, copy_of(config, distill_weight=0.5, teacher_embeddings=path))
