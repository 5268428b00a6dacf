"""The loss of batches that were mixed, and of those that were not."""

import pytest
import torch

from training.mixed import Mixed, mixed_loss


def squared(output, targets):
    return (output["logit"] - targets).square().mean()


OUTPUT = {"logit": torch.tensor([[1.0, 2.0]]), "framewise_logit": torch.zeros(1, 4, 2)}
A, B = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])  # squared: 2.5 and 0.5
IMAGES = torch.zeros(1, 3, 4, 2)


@pytest.mark.parametrize("lam, expected", [(1.0, 2.5), (0.25, 1.0), (0.0, 0.5)])
def test_the_targets_of_both_clips_are_weighed_by_their_share(lam, expected):
    assert float(mixed_loss(squared, OUTPUT, Mixed(IMAGES, A, B, lam))) == pytest.approx(expected)


def test_unmixed_clips_ask_for_one_loss():
    asked = []
    mixed_loss(lambda output, targets: asked.append(targets), OUTPUT, Mixed(IMAGES, A, A, 1.0))
    assert len(asked) == 1


def test_a_process_without_clips_has_a_loss_that_touches_every_output():
    outputs = {name: value[:0].requires_grad_() for name, value in OUTPUT.items()}
    mixed_loss(squared, outputs, Mixed(IMAGES[:0], A[:0], B[:0], 1.0)).backward()
    assert all(value.grad is not None for value in outputs.values())


def test_a_part_takes_clips_and_their_targets_together():
    images, targets = torch.arange(4.0)[:, None, None, None], torch.arange(4.0)[:, None]
    part = Mixed(images, targets, targets + 10, 0.3).part(slice(1, 3))

    assert part.images.flatten().tolist() == part.targets_a.flatten().tolist() == [1.0, 2.0]
    assert part.targets_b.flatten().tolist() == [11.0, 12.0]
    assert part.lam == 0.3
