"""What a CUDA device does with this project, in one command of at most eight minutes.

    python -m benchmarks.cuda [--try] [--only step exact] [--out cuda.jsonl]

Each section is a process of its own with a limit, so one that fails or hangs costs only itself.
Results are lines of JSON, printed and written as they come; a table stands at the end. --try runs
all of it at tiny sizes on whatever device there is, a CPU too: it shows that the script works and
measures nothing. benchmarks/cuda_sections.py holds the sections.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Seconds that each section may take, in the order in which they run; 460 in all.
LIMITS = {
    "step": 80,
    "launches": 120,
    "start": 60,
    "feed": 55,
    "between": 35,
    "exact": 60,
    "predict": 30,
    "memory": 20,
}
TRY_LIMIT = 240  # of each section on a slow or busy CPU
# Read when CUDA starts, so it has to be there before (torch.use_deterministic_algorithms)
ENVIRONMENT = {"exact": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}


def main() -> int:
    """Run the sections that are asked for; the status is 1 if one of them did not end well."""
    options = parse_options()
    if options.section:  # this process is one of them
        from benchmarks.cuda_sections import run_section

        run_section(options.section, is_try=options.is_try)
        return 0

    rows: list[dict[str, Any]] = []
    with options.out.open("a", encoding="utf-8") as out:
        for name in options.only or LIMITS:
            for row in run_apart(name, is_try=options.is_try):
                rows.append(row)
                line = json.dumps(row)
                print(line, flush=True)
                out.write(line + "\n")
                out.flush()
    print(table(rows))
    return 1 if any("failed" in row for row in rows) else 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--try", dest="is_try", action="store_true", help="tiny, on any device")
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), help="these sections alone")
    parser.add_argument("--out", type=Path, default=Path("cuda.jsonl"), help="default: cuda.jsonl")
    parser.add_argument("--section", choices=list(LIMITS), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_apart(name: str, *, is_try: bool) -> Iterator[dict[str, Any]]:
    """Run a section in a process of its own.

    Yields:
        Its rows as they come; then a last one with its seconds, which says how it `failed` if so.
    """
    words = ["--section", name, *(["--try"] if is_try else [])]
    limit = TRY_LIMIT if is_try else LIMITS[name]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cuda", *words],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT.get(name, {})},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # so that what it started ends with it
        )
        timer = threading.Timer(limit, end_group, [process.pid])
        timer.start()
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                yield from (json.loads(line) for line in lines if line.startswith("{"))
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                end_group(process.pid)
                process.wait()
        errors.seek(0)
        reason = last_line(errors.read())

    seconds = time.perf_counter() - started
    end: dict[str, Any] = {"section": name, "seconds": round(seconds, 1)}
    if status:
        end["failed"] = f"not done after {limit} s" if seconds >= limit else reason
    yield end


def end_group(number: int) -> None:
    """End a section and the processes that it started; one that has ended is left alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


def last_line(errors: str) -> str:
    """Return the last line of what a process wrote to stderr, which names its error."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def table(rows: list[dict[str, Any]]) -> str:
    """Draw a line for each row: its section, then its values by name."""
    lines = []
    for row in rows:
        values = [f"{key} {show(value)}" for key, value in row.items() if key != "section"]
        lines.append(f"{row['section']:<9} {'  '.join(values)}")
    return "\n".join(lines)


def show(value: Any) -> str:
    """Write a number with four digits, and anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
