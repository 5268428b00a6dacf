"""As many threads of torch in each test as in the first: libraries set them, and sums change."""

import functools
import sys


def reset_threads() -> None:
    """Go back to the first number of threads, where torch is loaded."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(_threads_at_first())


@functools.cache
def _threads_at_first() -> int:
    """Return torch's number of threads when it is first asked for."""
    return int(sys.modules["torch"].get_num_threads())
