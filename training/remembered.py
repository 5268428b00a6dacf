"""Tensors and a copy of them to go back to, so that a step can be undone."""

from collections.abc import Iterable

import torch
from torch import Tensor

# Integers of a value's size: as these, NaN times zero is zero.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Remembered:
    """Tensors, such as a model's running means and variances, and a copy of each.

    The copies are made once and then written over, all tensors of a dtype in one call, so that a
    good step pays next to nothing for being undoable.

    Args:
        tensors: on one device; they are written in place, and never replaced by others.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        found = [one.detach() for one in tensors]
        dtypes = dict.fromkeys(one.dtype for one in found)
        self.tensors = [[one for one in found if one.dtype == dtype] for dtype in dtypes]
        self.copies = [[torch.empty_like(one) for one in group] for group in self.tensors]
        self._bits = [(_bits_of(group), _bits_of(own)) for group, own in self._pairs()]

    @torch.no_grad()
    def remember(self) -> None:
        """Copy the tensors as they are now."""
        for tensors, copies in self._pairs():
            torch._foreach_copy_(copies, tensors)

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what was done to the tensors since `remember`."""
        for tensors, copies in self._pairs():
            torch._foreach_copy_(tensors, copies)

    @torch.no_grad()
    def put_back_where(self, is_bad: Tensor) -> None:
        """Do the same where a device finds it necessary, without asking it; the copies are lost.

        Args:
            is_bad: () float on the device, 1 to put back and 0 to leave as it is.
        """
        for new, old in self._bits:
            is_old = is_bad.to(new[0].dtype)
            torch._foreach_mul_(new, 1 - is_old)
            torch._foreach_mul_(old, is_old)
            torch._foreach_add_(new, old)

    def _pairs(self) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Pair the tensors of each dtype with their copies."""
        return list(zip(self.tensors, self.copies, strict=True))


def _bits_of(tensors: list[Tensor]) -> list[Tensor]:
    """See tensors of a dtype as integers in the same places."""
    return [one.view(BITS[one.element_size()]) for one in tensors]
