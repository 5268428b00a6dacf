"""plan.yaml: settings for every later script, with the reason beside each."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs import settings
from files import write_file
from planning.decide import GIVEN, Decision
from planning.rules import NO_EVIDENCE

PLAN_HEAD = """\
# The plan for these recordings and this machine, made by plan.py; plan.html shows what it saw.
#
#   python prepare_audios.py --config {name}
#   python split_data.py --config {name}
#   python probe.py --config {name}
#   python train.py --config {name}
#
# Flags override it, and it may be edited. `python plan.py --explain n_mels` prints a rule.
"""


def plan_text(decisions: Iterable[Decision], name: str) -> str:
    """Write decisions as YAML, group by group, each with its reason and its evidence above it.

    Args:
        decisions: in the order of Config's fields.
        name: of the file, for the commands in its head.
    """
    lines, group = [PLAN_HEAD.format(name=name).rstrip()], ""
    groups = list(dict.fromkeys(setting.group for setting in settings().values()))
    by_group = sorted(decisions, key=lambda one: groups.index(settings()[one.setting].group))
    for decision in by_group:
        now = settings()[decision.setting].group
        if now != group:
            lines += ["", f"# {now.capitalize()}"]
            group = now
        lines += _comment(decision)
        source = "" if decision.reason else decision.source
        lines.append(_line(decision.setting, decision.value, source))
    return "\n".join(lines) + "\n"


def _comment(decision: Decision) -> list[str]:
    """The reason, and what is known for it, on lines of their own."""
    if not decision.reason:
        return []
    known = "" if decision.source.startswith(NO_EVIDENCE) else "evidence: "
    return [f"# {decision.reason}", f"#   {known}{decision.source}"]


def _line(setting: str, value: Any, source: str) -> str:
    flow = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    text = f"{setting}: {flow.removesuffix('...' + chr(10)).strip()}"
    return f"{text}  # {source}" if source else text


def write_plan(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the plan.

    Raises:
        CannotWriteError: the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, plan_text(decisions, path.as_posix()))


def summarise(decisions: Iterable[Decision]) -> Mapping[str, int]:
    """Count the settings by where they come from: given, rules, a recipe."""
    counts = {GIVEN: 0, "rules": 0, "recipe": 0}
    for one in decisions:
        counts[GIVEN if one.source == GIVEN else "rules" if one.reason else "recipe"] += 1
    return counts
