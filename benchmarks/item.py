"""Training and validation items on one core, default recipe, against the straightforward way.

    python -m benchmarks.item [--root FOLDER] [--items 50] [--repeats 7] [--growth 0]

--root takes a folder with train.csv and train_np instead of made-up recordings; --growth N makes N
more training items and reports how much memory they left behind.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from audio.mel import check_bands
from benchmarks import timing
from benchmarks.baseline import BaselineDataset
from benchmarks.material import prepared_archive
from dataset import WaveformDataset
from training.batches import collate, item_bytes, pieces_of
from training.slots import Slots

BATCH = 32
PINK_IMAGES = 20  # enough to draw from; 2000 would take minutes before the first item


def main() -> None:
    """Measure and report."""
    options = timing.parse_options("item", __doc__ or "", root=None, items=50, growth=0)
    with prepared_archive(options.root) as (config, df), timing.one_core():
        # Data sets
        check_bands(config)  # imports scipy, once
        started = time.perf_counter()
        train = WaveformDataset(df, config, "train")
        ours_s = time.perf_counter() - started
        valid = WaveformDataset(df, config, "valid")

        started = time.perf_counter()
        baseline = BaselineDataset(df, config, "train", n_pink=PINK_IMAGES)
        baseline_s = time.perf_counter() - started
        baseline_valid = BaselineDataset(df, config, "valid")

        on_device = WaveformDataset(df, replace(config, frontend="device"), "train")
        for number in range(train.pink.size):
            train.pink.image(number)  # made once in a run

        rows = []
        compared: dict[str, dict[str, Any]] = {
            "training": {"ours": train, "baseline": baseline, 'ours, frontend="device"': on_device},
            "validation": {"ours": valid, "baseline": baseline_valid},
        }
        for what, datasets in compared.items():
            candidates = {name: take(dataset, options.items) for name, dataset in datasets.items()}
            runs = timing.alternate(candidates, options.repeats)
            rows += [{"item": what, **row} for row in timing.summarise(runs, options.items, "clip")]

        theirs = f"the baseline's construction with {PINK_IMAGES} pink-noise images, ms"
        settings = on_device.config
        slots = Slots(1, 4, BATCH * item_bytes(on_device[1, 0], settings.max_mixed_birds))
        batches = {
            "ours": take_batches(on_device, lambda items: slots.write(pieces_of(items))),
            "items made and joined": take_batches(on_device, collate, one_by_one=True),
        }
        runs = timing.alternate(batches, options.repeats)
        what = "into a slot, device"
        rows += [{"item": what, **row} for row in timing.summarise(runs, BATCH, "clip")]

        facts: dict[str, Any] = {"construction, ms": 1e3 * ours_s, theirs: 1e3 * baseline_s}
        for name, dataset in [("cpu", train), ("device", on_device)]:
            items = [dataset[1, index] for index in range(len(dataset))]
            per_clip = batch_bytes(collate(items)) / len(items)
            facts[f'bytes from the loader a clip, frontend="{name}"'] = per_clip
        if options.growth:
            left = growth(train, options.growth)
            facts[f"memory that {options.growth} items left behind, MB"] = left

    timing.report("item", rows, facts)


def take(dataset: Any, n_items: int) -> Callable[[], None]:
    """Return a function that makes the next `n_items` items, going round."""
    indices: Iterator[int] = itertools.cycle(range(len(dataset)))

    def run() -> None:
        for index in itertools.islice(indices, n_items):
            dataset[index]

    return run


def take_batches(
    dataset: WaveformDataset,
    collate: Callable[[list[Any]], Any],
    *,
    one_by_one: bool = False,
) -> Callable[[], None]:
    """Return a function that makes the next batch as a loader's worker does."""
    epochs = itertools.count(1)

    def run() -> None:
        epoch = next(epochs)
        keys = [(epoch, number % len(dataset)) for number in range(BATCH)]
        collate([dataset[key] for key in keys] if one_by_one else dataset.__getitems__(keys))

    return run


def batch_bytes(batch: dict[str, torch.Tensor]) -> int:
    """Count what a batch's tensors hold."""
    return sum(value.numel() * value.element_size() for value in batch.values())


def growth(dataset: WaveformDataset, n_items: int) -> float:
    """Make items of many epochs; return the MB that this process grew by after the first 200."""
    before = 0.0
    for number in range(n_items):
        if number == min(200, n_items // 2):
            before = timing.resident_mb()
        dataset[number // len(dataset), number % len(dataset)]
    return timing.resident_mb() - before


if __name__ == "__main__":
    main()
