"""In what the classes of two models differ, for the message that refuses them."""

from collections.abc import Sequence

N_NAMED = 5


def difference(names: Sequence[str], others: Sequence[str]) -> str:
    """Name the first species that are in one list alone; "their order" where there are none."""
    alone = sorted(set(names) ^ set(others))
    return ", ".join(alone[:N_NAMED]) or "their order"
