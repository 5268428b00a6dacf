"""The progress bar of a run."""

import time

BAR = "{percentage:3.0f} %|{bar}| {elapsed} and {remaining} to go, done at {eta:%H:%M}{postfix}"


class Progress:
    """A bar over the bytes of the recordings, with speed and expected end.

    Without a terminal there is no bar.

    Args:
        sizes: bytes of each recording, by name.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        from tqdm import tqdm

        self._sizes = sizes
        self._began, self._seconds, self._n_done = time.monotonic(), 0.0, 0
        self._bar = tqdm(total=sum(self._sizes.values()), leave=False, disable=None, bar_format=BAR)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, name: str, seconds: float, expected_s: float) -> None:
        """Show how far a recording is scored.

        Args:
            name: of the recording.
            seconds: scored so far.
            expected_s: length that its header promises, or 0.
        """
        share = min(1.0, seconds / expected_s) if expected_s else 0.0
        self._move(self._n_done + int(share * self._sizes[name]), self._seconds + seconds)

    def finish(self, name: str, seconds: float) -> None:
        """Show that a recording is done."""
        self._n_done += self._sizes[name]
        self._seconds += seconds
        self._move(self._n_done, self._seconds)

    def _move(self, n_bytes: int, seconds: float) -> None:
        speed = seconds / max(1e-9, time.monotonic() - self._began)
        self._bar.set_postfix_str(f"{speed:,.0f} x real time", refresh=False)
        self._bar.update(n_bytes - self._bar.n)
