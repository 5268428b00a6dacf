"""The global random generators of Python, numpy and torch: seeding, saving and restoring them.

Our own draws come from generators of their own; these are for libraries that use the global ones.
"""

import random
from typing import Any


def set_seed(seed: int) -> None:
    """Seed the generators, on every device."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def capture_rng() -> dict[str, Any]:
    """Return the states of the generators, in plain types and tensors."""
    import numpy as np
    import torch

    version, words, next_gauss = random.getstate()
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    numbers = [int(key) for key in keys]
    return {
        "python": [version, list(words), next_gauss],
        "numpy": [str(kind), numbers, int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Set the generators to what `capture_rng` returned; CUDA's only where there is a device."""
    import numpy as np
    import torch

    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))

    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))  # noqa: NPY002

    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
