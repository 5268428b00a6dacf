"""How the C library keeps the memory that a program frees; CPU training hangs on it."""

import ctypes
import functools
import sys

# Parameters of glibc's mallopt (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1  # as a threshold, the largest there is
TOP_PAD = 64 * 2**20  # bytes that the heap grows by at a time, beyond what is asked for


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next step, in place of handing them back to the kernel.

    By default glibc maps every block above 32 MB anew, and the kernel fills its pages with zeros
    when they are touched. The activations of a training batch are such blocks, freed and asked for
    again at each step. Kept, they are there already.

    Returns:
        Whether it could be set: with glibc, on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: TOP_PAD}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
