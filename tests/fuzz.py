"""Feed bytes of all kinds to the readers of files: recordings, tables, settings, checkpoints.

    python -m tests.fuzz ogg --seconds 300

A target takes bytes and raises unless the answer is right or the documented error.
tests/test_fuzz.py runs the targets on the kept corpus, tests/corpus/<target>/, and on what
hypothesis makes of it. This driver lets atheris (requirements-fuzz.txt) explore them: it looks for
inputs that reach new lines of the code, and stops at the first failure.
"""

import argparse
import contextlib
import csv
import functools
import inspect
import io
import logging
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

import checkpoint as ckpt
import configs
from audio import damage
from catalog import labels, metadata, tables
from configs import Config, UserError, capture_rng, restore_rng
from files import FORMULA, NUMBER, csv_text, original_cell
from training import changes, resuming
from training.fold import Parts, Progress

CORPUS = Path(__file__).parent / "corpus"
LONGEST_S = 10.0  # an input of a few kilobytes that takes longer than this is one that hangs


@functools.cache
def scratch() -> Path:
    """Make a folder for the files that targets read; it goes when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz_")
    scratch.keep = folder  # type: ignore[attr-defined]
    return Path(folder.name)


# Recordings ---------------------------------------------------------------------------------------


def ogg_crc(page: bytes) -> int:
    """Check sum by the definition (RFC 3533): polynomial 0x04c11db7, not reflected, from 0."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ crc_table()[crc >> 24 ^ byte]
    return crc


@functools.cache
def crc_table() -> list[int]:
    """Work out what each value of the highest byte does to the rest."""
    table = []
    for value in range(256):
        crc = value << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 * (crc >> 31)) & 0xFFFFFFFF
        table.append(crc)
    return table


def ogg_page(serial: int, number: int, flags: int, payload: bytes) -> bytes:
    """A page with one segment and its right check sum; flags: 2 begins a stream, 4 ends it."""
    numbers = serial.to_bytes(4, "little") + number.to_bytes(4, "little")
    head = b"OggS\0" + bytes([flags]) + bytes(8) + numbers + bytes(4)
    page = head + bytes([1, len(payload)]) + payload
    return page[:22] + ogg_crc(page).to_bytes(4, "little") + page[26:]


def ogg_pages(data: bytes, *, repair: bool) -> tuple[bytes, list[bytes]]:
    """Find the whole pages with a right check sum, each behind the one before.

    Returns:
        The data and its pages; with `repair` every page gets its right check sum first.
    """
    made, pages, at = bytearray(data), [], 0
    while (at := data.find(b"OggS", at)) >= 0:
        lacing = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
        end = at + 27 + len(lacing) + sum(lacing)
        whole = at + 27 <= len(data) and len(lacing) == data[at + 26] and end <= len(data)
        if whole and repair:
            made[at + 22 : at + 26] = ogg_crc(bytes(made[at:end])).to_bytes(4, "little")

        said = int.from_bytes(made[at + 22 : at + 26], "little")
        if whole and ogg_crc(bytes(made[at:end])) == said:
            pages.append(bytes(made[at:end]))
            at = end
        else:
            at += 4
    return bytes(made), pages


def expect_ogg_damage(pages: list[bytes], *, all_decoded: bool) -> bool:
    """Say whether a file lost audio, from the pages of each stream by itself."""
    streams: dict[bytes, list[bytes]] = {}
    for page in pages:
        streams.setdefault(page[14:18], []).append(page)

    for own in streams.values():
        numbers = [int.from_bytes(page[18:22], "little") for page in own]
        begins = [bool(page[5] & 2) for page in own]
        ends = [bool(page[5] & 4) for page in own]
        if not begins[0] or not ends[-1]:
            return True
        for place in range(1, len(own)):
            # Begins anew, or goes on with what has not ended.
            if not begins[place] and (ends[place - 1] or numbers[place] != numbers[place - 1] + 1):
                return True

    begins = [bool(page[5] & 2) for page in pages]
    links = sum(here and not before for before, here in zip([False, *begins], begins, strict=False))
    return links > 1 and not all_decoded


def fuzz_ogg(data: bytes) -> None:
    """The first byte: whether check sums are repaired, and whether all wanted was decoded."""
    mode, data = data[:1] or b"\0", data[1:]
    repair, all_decoded = bool(mode[0] & 1), bool(mode[0] & 2)
    made, pages = ogg_pages(data, repair=repair)
    said = damage.CHECKS["OGG"](made, None, 100 if all_decoded else 10, 100)
    assert bool(said) == expect_ogg_damage(pages, all_decoded=all_decoded), said


def fuzz_mp3(data: bytes) -> None:
    """Any bytes get an answer: no damage inside whole frames, damage where the last is cut."""

    def check(made: bytes) -> str:
        return damage.CHECKS["MP3"](made, None, 10**9, 10**9)

    assert isinstance(check(data), str)

    header, size = b"\xff\xfb\x90\xc4", 413  # of 128 kbit/s at 44,100 Hz, and what follows it
    starts = range(0, len(data) + 1, size)
    parts = [bytes(size), *(data[start : start + size].ljust(size, b"\0") for start in starts)]
    whole = b"".join(header + part for part in parts)
    assert check(whole) == "" and check(whole[: -1 - len(data) % size]) != ""


def fuzz_wav(data: bytes) -> None:
    """Any bytes get an answer, and a file whose audio is cut is never called whole."""
    said = damage.CHECKS["WAV"](data, None, 0, 0)
    chunk = re.search(rb"\Adata(.{4})", data[12:20], re.DOTALL)
    if chunk and (size := int.from_bytes(chunk[1], "little")) not in damage.WAV_UNKNOWN:
        assert bool(said) >= (len(data) < 20 + size)


# Tables -------------------------------------------------------------------------------------------


def fuzz_metadata(data: bytes) -> None:
    """A table is refused by a UserError of one line, or each row is safe and has its labels."""
    path = scratch() / "metadata.csv"
    path.write_bytes(data)
    try:
        read = tables.read_table(path)
        rows, _ = metadata.tidy_archive(read, Config(), [])
        table, malformed = labels.add_labels(rows)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        return

    assert len(table) <= len(read) <= data.count(b"\n") + data.count(b"\r") + 1
    assert table.index.is_monotonic_increasing and (table.index >= 2).all()
    assert set(malformed.index) <= set(table.index)

    folder = scratch() / "audio"
    columns = ["primary_label", "filename", "labels"]
    for primary, filename, cell in table[columns].itertuples(index=False):
        path = folder / filename
        assert path != folder and path.resolve().is_relative_to(folder.resolve())
        names = labels.split_labels(cell, {primary})
        assert primary == labels.NO_BIRD or names[0] == primary
        assert len(set(names)) == len(names)
    check_written(table)


def check_written(table: Any) -> None:
    """No cell that is written is a formula, and every cell is read back."""
    cells = table.select_dtypes(exclude="number").to_numpy().tolist()
    rows = list(csv.reader(io.StringIO(csv_text(cells)), strict=True))

    read = [[original_cell(cell) for cell in row] for row in rows]
    lines = [[cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in cells]
    assert read == lines
    for row in rows:
        for cell in row:
            assert not FORMULA.match(cell) or cell[0] == "'" or NUMBER.fullmatch(cell), cell


# Settings -----------------------------------------------------------------------------------------


def fuzz_config(data: bytes) -> None:
    """A YAML file is refused by a UserError of one line, or makes settings that are read back."""
    path = scratch() / "config.yaml"
    path.write_bytes(data)
    check_settings(["--config", str(path)])


def fuzz_flags(data: bytes) -> None:
    """The same of flags, one a line."""
    check_settings(data.decode("utf-8", "surrogateescape").split("\n"))


def check_settings(args: list[str]) -> None:
    """Load settings, write them, and load the same again."""
    import yaml

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # --help
            config = configs.load_config(args)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        assert len(str(error)) < 20_000 + sum(map(len, args)), error
        return
    except SystemExit as stop:
        assert stop.code in (0, None), args
        return

    path = scratch() / "again.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert configs.load_config(["--config", str(path)]) == config


# Checkpoints --------------------------------------------------------------------------------------


def archive(pickle: bytes) -> bytes:
    """Make a torch archive of a pickle, with storages of 24, 8 and 3 bytes as in the corpus."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("archive/data.pkl", pickle)
        made.writestr("archive/version", b"3\n")
        made.writestr("archive/byteorder", b"little")
        for number, n_bytes in enumerate((24, 8, 3)):
            made.writestr(f"archive/data/{number}", bytes(n_bytes))
    return content.getvalue()


def fuzz_checkpoint(data: bytes) -> None:
    """A file with a digest that fits; the first byte says whether the rest is it or its pickle."""
    path = scratch() / ckpt.LAST_NAME
    path.write_bytes(data[1:] if data[:1] == b"\0" else archive(data[1:]))
    use_checkpoint(path)


def make_run() -> Any:
    """Make as much of a Fold as resuming needs, with a network of eight weights."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    return SimpleNamespace(
        number=0,
        dir=scratch(),
        config=Config(),
        class_names=["NA", "22961"],
        parts=Parts(model, optimizer, scheduler, scaler),
        progress=Progress(),
    )


def make_state() -> dict[str, Any]:
    """Make a sound checkpoint of such a run after a step."""
    run = make_run()
    run.parts.model(torch.ones(1, 3)).sum().backward()
    run.parts.optimizer.step()

    parts = ("model", "optimizer", "scheduler", "scaler")
    row = {"epoch": 1, "step": 1, "lr": 0.001, "train_loss": 0.5, "valid_loss": 0.25}
    counters = {"epoch": 1, "batch": 0, "step": 1, "skipped_steps": 0, "bad_steps": 0}
    return {
        **{name: getattr(run.parts, name).state_dict() for name in parts},
        **counters,
        "train_loss": run.progress.train_loss.state_dict(),
        "micro_batch": 0,
        "fold": 0,
        "best_loss": 0.25,
        "best_epoch": 1,
        "history": [row | {"cmap_pad_5": 0.75}],
        "ema": None,
        "rng": capture_rng(),
        "class_names": list(run.class_names),
        "config": run.config.to_dict(),
    }


def use_checkpoint(path: Path) -> None:
    """Give a file a digest that fits and go on from it as train.py does; refuse it in one line."""
    if path.stat().st_size >= 2:
        with path.open("r+b") as file:
            ckpt.sign(file)

    run, before = make_run(), capture_rng()
    try:
        state = ckpt.read_checkpoint(path)
        changes.check_same_setup(state, path, run.config, run.class_names)
        resuming.resume(run, path, state)
        run.parts.model(torch.zeros(1, 3)).sum().backward()
        run.parts.optimizer.step()
        run.parts.scheduler.step(0.5)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
    finally:
        restore_rng(before)


# The driver ---------------------------------------------------------------------------------------

# Each target, and the modules whose lines guide atheris.
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[ModuleType, ...]]] = {
    "ogg": (fuzz_ogg, (damage,)),
    "mp3": (fuzz_mp3, (damage,)),
    "wav": (fuzz_wav, (damage,)),
    "metadata": (fuzz_metadata, (tables, metadata, labels)),
    "config": (fuzz_config, (configs,)),
    "flags": (fuzz_flags, (configs,)),
    "checkpoint": (fuzz_checkpoint, (ckpt, resuming)),
}


def run_target(name: str, data: bytes) -> None:
    """Run a target on one input; it must not take long."""
    began = time.perf_counter()
    TARGETS[name][0](data)
    assert time.perf_counter() - began < LONGEST_S


def corpus(name: str) -> list[Path]:
    """List the kept inputs of a target: seeds, and what once made it fail."""
    return sorted((CORPUS / name).iterdir())


def instrument(modules: tuple[ModuleType, ...]) -> None:
    """Let atheris count the lines that functions of these modules reach."""
    import atheris

    for module in modules:
        for _, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                atheris.instrument_func(function)


def main() -> None:
    """Explore one target for a while; the last lines of libFuzzer say what it found and where."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    keep_help = "folder for inputs that reached new lines, and for failures"
    parser.add_argument("--keep", type=Path, help=keep_help)
    flags = parser.parse_args()

    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: python -m pip install -r requirements-fuzz.txt")

    kept = flags.keep or Path(tempfile.mkdtemp(prefix=f"fuzz_{flags.target}_"))
    (kept / "corpus").mkdir(parents=True, exist_ok=True)
    print(f"inputs that reach new lines, and failures: {kept}")
    logging.disable()
    instrument((*TARGETS[flags.target][1], sys.modules[__name__]))

    limits = [f"-max_total_time={flags.seconds}", f"-timeout={LONGEST_S:.0f}"]
    limits += "-rss_limit_mb=3000 -max_len=20000".split()
    folders = [str(kept / "corpus"), str(CORPUS / flags.target)]
    atheris.Setup(
        [sys.argv[0], *limits, f"-artifact_prefix={kept}/", *folders], TARGETS[flags.target][0]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
