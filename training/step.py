"""One training step: mixing, forward, backward, and the optimizer; what it does with numbers that break."""

import logging
import math
from typing import NamedTuple

import numpy as np
import torch

import checkpoint as ckpt
from configs import UserError
from scheduler import stepped_on
from training import processes
from training.fold_run import FoldRun
from transforms import cutmix, mixup

logger = logging.getLogger("birdclef.train")


def train_step(run: FoldRun, batch: dict[str, torch.Tensor]) -> bool:
    """Go forward and backward on one batch; take an optimizer step when its group is complete.

    Args:
        run: its model, optimizer, scaler, schedule and counters move on.
        batch: image (B, 1 or 3, T, F) and targets (B, C), on the CPU; of several processes, this
            one's share.

    Returns:
        Whether the group of `accumulation_steps` batches is complete.
    """
    first, last, group_size = accumulation_group(run)
    if run.batch == first:
        run.optimizer.zero_grad(set_to_none=True)
        run.group_is_sound = True
        run.buffers_before = [buffer.clone() for buffer in run.model.buffers()]
    with run.watch.part("copy to the device"):
        mixed = mix_batch(run, batch)
    loss, n_clips = backward_in_memory(run, mixed, group_size)
    if math.isfinite(loss):
        run.train_loss.update(loss, n_clips)
    else:
        run.group_is_sound = False
        report_bad_batch(run, f"loss {loss}")
    if complete := run.batch == last:
        with run.watch.part("optimizer step"):
            take_optimizer_step(run)
    run.batch += 1
    return complete


def accumulation_group(run: FoldRun) -> tuple[int, int, int]:
    """Find the first and last batch, and the clips, of the group that the current batch belongs to."""
    sampler, size = run.train_sampler, run.config.accumulation_steps
    first = run.batch - run.batch % size
    last = min(first + size, len(sampler)) - 1
    return (
        first,
        last,
        min((last + 1) * sampler.batch_size, sampler.n_items) - first * sampler.batch_size,
    )


def step_seed(run: FoldRun) -> int:
    """Make the seed of torch's generators from (seed, epoch, batch, process)."""
    sequence = np.random.SeedSequence((run.config.seed, run.epoch + 1, run.batch, processes.rank()))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class Mixed(NamedTuple):
    """A batch on the device, after MixUp or CutMix: images (B, 3, T, F), and the targets (B, C) of both parts."""

    images: torch.Tensor
    targets_a: torch.Tensor
    targets_b: torch.Tensor
    lam: float

    def part(self, clips: slice) -> "Mixed":
        """Take some of the clips."""
        return Mixed(self.images[clips], self.targets_a[clips], self.targets_b[clips], self.lam)


def mix_batch(run: FoldRun, batch: dict[str, torch.Tensor]) -> Mixed:
    """Mix the clips of a batch among themselves, or leave them, as (seed, epoch, batch) decides."""
    config = run.config
    images, targets = to_device(run, batch)
    rng = np.random.default_rng((config.seed, run.epoch + 1, run.batch, 1))
    if rng.random() < config.p_mixup and len(images):
        return Mixed(*mixup(images, targets, config.mixup_alpha, rng))
    if rng.random() < config.p_cutmix and len(images):
        return Mixed(*cutmix(images, targets, config.cutmix_alpha, rng))
    return Mixed(images, targets, targets, 1.0)


def backward_in_memory(run: FoldRun, mixed: Mixed, group_size: int) -> tuple[float, int]:
    """Go forward and backward in as few parts as the device's memory allows; see `backward`.

    Raises:
        UserError: one clip alone is too much, or the batch is shared by several processes.
    """
    is_first = run.batch % run.config.accumulation_steps == 0
    buffers = run.buffers_before if is_first else [buffer.clone() for buffer in run.model.buffers()]
    gradients = [
        None if value.grad is None else value.grad.clone() for value in run.model.parameters()
    ]
    while True:
        try:
            return backward(run, mixed, group_size)
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
        halve_micro_batch(
            run, len(mixed.images), reason
        )  # out of the except block, which holds on to the memory
        put_back_buffers(run.model, buffers)
        for parameter, gradient in zip(run.model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()


def backward(run: FoldRun, mixed: Mixed, group_size: int) -> tuple[float, int]:
    """Add a batch's gradients, weighed by its clips in the group, be they finite or not.

    Returns:
        The loss averaged over the batch's clips, and their number, those of all processes.
    """
    torch.manual_seed(step_seed(run))  # dropout, drop path, SpecAugment
    size = run.micro_batch or len(mixed.images)
    losses = []
    for start in range(0, max(1, len(mixed.images)), max(1, size)):
        part = mixed.part(slice(start, start + size))
        with run.watch.part("forward"):
            loss = forward_loss(run, part)
        with run.watch.part("backward"):
            run.scaler.scale(loss * (len(part.images) / group_size)).backward()
        losses.append((loss.detach(), len(part.images)))
    # Read last: for a number the program waits until a GPU is done, which then waits for the
    # program to go on.
    summed = sum(float(loss) * n_clips for loss, n_clips in losses)
    batch_loss, batch_clips = processes.total(summed, len(mixed.images))
    return batch_loss / batch_clips, int(batch_clips)


def halve_micro_batch(run: FoldRun, n_clips: int, reason: str) -> None:
    """From here on, let half as many clips through the model at once; the optimizer step stays the same."""
    if processes.world_size() > 1:  # the others are in the middle of this batch
        raise UserError(
            f"{reason}; with several processes a batch cannot be split on the way: lower train_bs"
        )
    run.micro_batch = halve(min(run.micro_batch or n_clips, n_clips), reason)
    logger.warning(
        "%s; from here on %d clips at a time, added up to the same batch (batch statistics are those of the %d)",
        reason, run.micro_batch, run.micro_batch,
    )  # fmt: skip


def halve(n_clips: int, reason: str) -> int:
    """Return half as many clips, rounded up, and free what CUDA holds in reserve.

    Raises:
        UserError: one clip was too many.
    """
    if n_clips == 1:
        raise UserError(
            f"{reason}; one clip alone does not fit: take a smaller base_model_name, period or n_mels"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return -(-n_clips // 2)


def score_in_memory(run: FoldRun, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Score a validation batch in as few parts as the device's memory allows, which changes no score.

    Returns:
        The loss averaged over the batch's clips, and the clipwise scores (B, C), on the CPU.

    Raises:
        UserError: one clip alone is too much.
    """
    images, targets = to_device(run, batch)
    while True:
        try:
            return score(run, images, targets)
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
        run.valid_micro_batch = halve(
            min(run.valid_micro_batch or len(images), len(images)), reason
        )
        logger.warning(
            "%s; from here on %d clips at a time are validated", reason, run.valid_micro_batch
        )


def score(run: FoldRun, images: torch.Tensor, targets: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Go through the model that is scored; see score_in_memory."""
    size, loss, scores = run.valid_micro_batch or len(images), 0.0, []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        with torch.autocast(
            run.device.type, dtype=run.amp_dtype, enabled=run.amp_dtype is not None
        ):
            output = run.scored_model(images[part])
        loss += float(run.criterion(output, targets[part])) * len(images[part]) / len(images)
        scores.append(output["clipwise_output"].cpu())
    return loss, torch.cat(scores)


def put_back_buffers(model: torch.nn.Module, before: list[torch.Tensor]) -> None:
    """Undo what forward passes did to the running statistics."""
    for buffer, old in zip(model.buffers(), before, strict=True):
        buffer.copy_(old)


def forward_loss(run: FoldRun, mixed: Mixed) -> torch.Tensor:
    """Go forward under autocast and take the lam-weighted loss in float32, a scalar; that of no clips is 0."""
    with torch.autocast(run.device.type, dtype=run.amp_dtype, enabled=run.amp_dtype is not None):
        # Whole batches alone: another number of clips would take minutes to compile, too.
        is_compiled = run.compiled is not None and len(mixed.images) == run.config.train_bs
        output = compiled_forward(run, mixed.images) if is_compiled else run.model(mixed.images)
    if not len(
        mixed.images
    ):  # still a part of the graph: the other processes wait for its backward pass
        return torch.stack([value.sum() for value in output.values()]).sum()
    loss = run.criterion(output, mixed.targets_a)
    return (
        loss
        if mixed.lam == 1.0
        else mixed.lam * loss + (1.0 - mixed.lam) * run.criterion(output, mixed.targets_b)
    )


def compiled_forward(run: FoldRun, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Go through the compiled model; the first time it is compiled, and the first time that a batch is masked.

    Raises:
        UserError: it cannot be compiled here.
    """
    assert run.compiled is not None
    try:
        return run.compiled(images)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"compile_model: this model cannot be compiled here ({reason}); train without it"
        ) from error


def to_device(run: FoldRun, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy a batch to the device: images (B, 3, T, F), maybe one plane seen three times, and targets (B, C).

    The model's first layers rearrange the images whatever their memory format, so they are not
    brought into its.
    """
    if not batch:  # this process has no share in it
        empty = torch.zeros(0, 3, run.config.n_frames, run.config.n_mels)
        batch = {"image": empty, "targets": torch.zeros(0, len(run.class_names))}
    # A copy from pinned memory that does not block runs while the program goes on; from other
    # memory it blocks anyway.
    batch = {name: value.to(run.device, non_blocking=True) for name, value in batch.items()}
    if "image" not in batch:  # frontend="device"
        assert run.frontend is not None
        return run.frontend(batch), batch["targets"]
    return batch["image"].expand(-1, 3, -1, -1), batch["targets"]


def take_optimizer_step(run: FoldRun) -> None:
    """Unscale, clip and step; where loss or gradients are not finite, leave the weights as they were and count."""
    sound = run.group_is_sound
    if sound:
        processes.sum_gradients(run.model.parameters())
        run.scaler.unscale_(
            run.optimizer
        )  # before clipping, or the limit would be on scaled gradients
        norm = torch.nn.utils.clip_grad_norm_(
            run.model.parameters(), run.config.grad_clip or math.inf
        )
        sound = bool(norm.isfinite())
        if (
            sound or run.scaler.is_enabled()
        ):  # an enabled scaler skips the step itself, and halves its scale
            run.scaler.step(run.optimizer)
            run.scaler.update()
    run.step += 1
    if not sound:
        skip_step(run)
        return
    run.bad_steps = 0
    if run.ema:
        run.ema.update(run.model, step=run.step)
    if stepped_on(run.config.scheduler_name) == "step":
        run.scheduler.step()


def skip_step(run: FoldRun) -> None:
    """Count a step without effect and undo what its forward pass did to the running statistics.

    Raises:
        UserError: `max_bad_steps` in a row.
    """
    put_back_buffers(run.model, run.buffers_before)
    run.skipped_steps += 1
    run.bad_steps += 1
    if run.bad_steps >= run.config.max_bad_steps:
        raise UserError(
            f"{run.bad_steps} steps in a row without a finite loss and gradient (epoch {run.epoch + 1}); "
            f"{run.train_dir / ckpt.LAST_NAME} holds the last good state; try a lower lr, a grad_clip, or "
            "amp_dtype=bfloat16"
        )


def report_bad_batch(run: FoldRun, what: str) -> None:
    """Log the recordings in the current batch, those that were mixed in too."""
    birds = {
        bird for key in run.train_sampler.keys(run.batch) for bird in run.train_set.birds_of(key)
    }
    names = ", ".join(sorted(run.train_set.filename(bird) for bird in birds))
    logger.warning(
        "epoch %d batch %d: %s, the step is skipped; its recordings: %s",
        run.epoch + 1,
        run.batch,
        what,
        names,
    )
