"""What every benchmark shares: alternating runs, medians, one table and one line of JSON.

A machine's speed changes from one second to the next. So candidates take turns within one run, in
an order that is reversed each time, and are compared by their medians. Where other processes share
the machine, compare CPU time: it leaves out the turns of others, though not what they take of the
caches.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs import available_cpus

ROOT = Path(__file__).resolve().parent.parent


class Run(NamedTuple):
    """Seconds of one run on the clock, and CPU seconds of this process on all its cores."""

    wall_s: float
    cpu_s: float


Runs = dict[str, list[Run]]  # by candidate


def parse_options(name: str, description: str, **defaults: Any) -> argparse.Namespace:
    """Read `--repeats` and a benchmark's own options; each default gives its option's type.

    Args:
        name: of the module in `benchmarks`.
        description: what `--help` says, the module's docstring.
        defaults: the options by name; a Path or None takes a path.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, default in {"repeats": 7, **defaults}.items():
        kind = Path if default is None else type(default)
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=default, help=f"default: {default}")
    return parser.parse_args()


def alternate(candidates: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1) -> Runs:
    """Run the candidates in turns and time each run; the first `warm_up` turns do not count.

    A candidate may return a function that cleans up after it; that is called and not timed.
    """
    names = list(candidates)
    runs: Runs = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        for name in names if turn % 2 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            clean_up = candidates[name]()
            run = Run(time.perf_counter() - wall, time.process_time() - cpu)

            if callable(clean_up):
                clean_up()
            if turn >= 0:
                runs[name].append(run)
    return runs


def summarise(runs: Runs, units: float, unit: str, *, ours: str = "ours") -> list[dict[str, Any]]:
    """Make a row for each candidate: medians, the spread, and its time as a multiple of ours.

    Args:
        runs: of alternate.
        units: pieces of work in one run, clips say.
        unit: their name, in the singular.
        ours: the candidate that the others are compared with.
    """
    walls = {name: [run.wall_s for run in some] for name, some in runs.items()}
    cpus = {name: statistics.median(run.cpu_s for run in some) for name, some in runs.items()}

    return [
        {
            "candidate": name,
            f"ms/{unit}": 1e3 * statistics.median(walls[name]) / units,
            "fastest": 1e3 * min(walls[name]) / units,
            "slowest": 1e3 * max(walls[name]) / units,
            f"CPU ms/{unit}": 1e3 * cpus[name] / units,
            f"{unit}s/s": units / statistics.median(walls[name]),
            "times ours": statistics.median(walls[name]) / statistics.median(walls[ours]),
            "CPU times ours": cpus[name] / max(cpus[ours], 1e-9),
        }
        for name in runs
    ]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the ends of an interval that holds the true one in 95 % of cases.

    The ends are the k-th value from below and from above. The true median lies outside if fewer
    than k of n fair coins show heads, or fewer than k tails; no distribution is assumed.

    Args:
        values: six or more.
    """
    ordered, n = sorted(values), len(values)
    chance, k = 0.5**n, 0  # of at most k heads
    while chance <= 0.025:
        k += 1
        chance += math.comb(n, k) * 0.5**n

    if k == 0:
        raise ValueError(f"at least six values are wanted, got {n}")
    return statistics.median(ordered), ordered[k - 1], ordered[n - k]


def report(
    name: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None
) -> None:
    """Print the machine, a table of the rows, the facts, and all of it as one line of JSON."""
    machine = describe_machine()
    place = "{cpu}, {cpus} CPUs, load {load}, BLAS {blas}".format_map(machine)
    print(f"\n{name} on {place}")

    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    for line in cells:
        print("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]))

    facts = dict(facts or {})
    for fact, value in facts.items():
        print(f"{fact}: {_cell(value)}")
    print(json.dumps({"benchmark": name, "rows": list(rows), "facts": facts, "machine": machine}))


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def describe_machine() -> dict[str, Any]:
    """Name the processor, the CPUs that this process may use, the load, BLAS and its threads."""
    from threadpoolctl import threadpool_info

    pools = [
        f"{pool['internal_api']} {pool.get('architecture', '')}".strip()
        for pool in threadpool_info()
    ]
    torch = sys.modules.get("torch")
    return {
        "cpu": _name_processor(),
        "cpus": available_cpus(),
        "load": round(os.getloadavg()[0], 2),
        "blas": ", ".join(sorted(set(pools))),
        "torch_threads": torch.get_num_threads() if torch else None,
        "python": platform.python_version(),
    }


def _name_processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or "unknown"


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Give torch, BLAS and OpenMP one thread each, as a worker of the loader has."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def resident_mb() -> float:
    """Memory of this process in MB: the resident set now, without pages that belong to files."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize() / 1e6


def run_script(*words: str) -> float:
    """Run Python with these words in the project's folder; return the seconds that it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started
