"""Look at an archive and at this machine, and write the settings that follow, each with its reason.

    python plan.py --train-audio-dir my/recordings --metadata-path my/table.csv --hours 2

writes plan.yaml, a `--config` for every later script, and plan.html, a page of pictures. It reads
the headers of all recordings and listens to some; a short trial measures the device. Settings that
are given as flags are taken as they are. `python plan.py --explain n_mels` prints a rule.
"""

import argparse
import logging
import re
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from configs import Config, UserError, choose, configure_logger, load_config, run_main
from inference.flags import FlagParser, number
from settings.reading import named_settings

logger = logging.getLogger("birdclef.plan")

MORE_OF_PLAN = """\
All settings of configs.py are flags, too: where the recordings lie, and what is
to be as you say. Folders without a table: --from-folders; labels with a time:
--annotations; recordings without birds: --background-dir.
"""
SHOWN_WIDTH = 79


def main(args: Sequence[str] | None = None) -> int:
    """Write the plan, or explain a rule."""
    flags, config, named = read_command_line(args)
    if flags.explain:
        print(explain(flags.explain))
        return 0
    configure_logger(config)
    return plan(flags, config, named)


def read_command_line(args: Sequence[str] | None) -> tuple[argparse.Namespace, Config, set[str]]:
    """Read the script's own flags, the settings, and which of these were named."""
    parser = FlagParser("plan.py", (__doc__ or "").partition("\n")[0], MORE_OF_PLAN)
    add = parser.add_argument
    add("--hours", type=number(0.01), help="hours that training may take (no limit)")
    add("--output", type=Path, default=Path("plan.yaml"), help="file to write (plan.yaml)")
    add(
        "--listen",
        type=number(1, kind=int),
        default=200,
        metavar="N",
        help="recordings to listen to (200)",
    )
    add("--no-trial", action="store_true", help="do not measure this device")
    add("--explain", metavar="SETTING", help="print the rule of a setting and stop")
    flags, rest = parser.parse_own(args)
    return flags, load_config(rest), named_settings(Config, rest)


def plan(flags: argparse.Namespace, config: Config, named: set[str]) -> int:
    """Look, decide, try, decide again; write the plan and its page."""
    from planning.archive import look_at_archive
    from planning.decide import config_of, decide, given_settings
    from planning.expected import expect
    from planning.facts import collect
    from planning.machine import look_at_machine
    from planning.page import write_page
    from planning.plan_file import summarise, write_plan
    from planning.trial import try_out

    began = time.monotonic()
    given = given_settings(config, named)
    archive = look_at_archive(config, flags.listen)
    facts = collect(archive, look_at_machine(config), config, flags.hours)
    if not facts.n_species:
        raise UserError("no species: no recording has a label")
    logger.info(
        "%d recordings, %.1f h, %d species; %d listened to, %.0f s",
        facts.n_recordings, facts.hours, facts.n_species, len(archive.sample),
        time.monotonic() - began,
    )  # fmt: skip

    decisions = decide(facts, given)
    if not flags.no_trial:
        facts = facts.with_pace(try_out(config_of(decisions), facts.n_species))
        decisions = decide(facts, given)
    planned = config_of(decisions)
    expected = expect(facts, planned)

    write_plan(flags.output, decisions)
    commands = next_commands(flags.output)
    page = flags.output.with_suffix(".html")
    write_page(page, archive, facts, planned, decisions, expected, commands)
    counts = ", ".join(f"{n} {kind}" for kind, n in summarise(decisions).items())
    print(f"wrote {flags.output} ({counts}) and {page}; took {time.monotonic() - began:.0f} s")
    print(f"expected: {expected}\nnext:", *commands, sep="\n  ")
    return 0


def next_commands(path: Path) -> list[str]:
    """Name the commands that follow."""
    stages = ("prepare_audios", "split_data", "probe", "train")
    return [f"python {stage}.py --config {path}" for stage in stages]


def explain(setting: str) -> str:
    """Describe the rule of a setting.

    Raises:
        UserError: no rule decides it.
    """
    from planning.rules import RULES

    rules = {rule.setting: rule for rule in RULES}
    rule = rules[choose(setting.replace("-", "_"), rules, what="rule")]
    reason = re.sub(r"\{(\w+)[^}]*\}", r"<\1>", rule.reason)  # facts by name
    parts = {
        "looks at": rule.fact,
        "turns at": rule.threshold,
        "says": reason,
        "evidence": rule.source,
    }
    lines = [
        textwrap.fill(f"{name:<10}{text}", SHOWN_WIDTH, subsequent_indent=" " * 10)
        for name, text in parts.items()
    ]
    return "\n".join([rule.setting, *lines])


if __name__ == "__main__":
    run_main(main)
