"""From facts to settings: what the user gave, then the rules, then a recipe."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from configs import Config, read_yaml
from planning.facts import Facts
from planning.rules import LEAVE, RULES

RECIPES_DIR = Path(__file__).resolve().parent.parent / "recipes"
GIVEN = "given"


@dataclass(frozen=True)
class Decision:
    """A line of the plan.

    Attributes:
        setting: field of Config.
        value: plain types, as YAML writes them.
        reason: one line.
        source: the evidence, "given", or the recipe's file.
    """

    setting: str
    value: Any
    reason: str
    source: str


def decide(facts: Facts, given: Mapping[str, Any]) -> list[Decision]:
    """Decide all that follows from the facts.

    Args:
        facts: of the archive, the machine and the wishes.
        given: settings that the user has set; no rule changes them.

    Returns:
        A decision a setting, in the order of Config's fields.
    """
    recipe_rule, *rules = RULES
    name = recipe_rule.decide(facts, {})
    recipe = read_yaml(RECIPES_DIR / f"{name}.yaml")
    if "scheduler_name" in given:
        recipe.pop("scheduler_params", None)

    chosen: dict[str, Any] = Config().to_dict() | recipe | dict(given) | {"recipe": name}
    why_recipe = f"recipes/{name}.yaml"
    found = {key: Decision(key, value, "", why_recipe) for key, value in recipe.items()}
    for rule in rules:
        value = rule.decide(facts, chosen)
        if rule.setting in given or value is LEAVE:
            continue
        chosen[rule.setting] = value
        found[rule.setting] = Decision(rule.setting, value, rule.why(facts), rule.source)

    found |= {key: Decision(key, value, "", GIVEN) for key, value in given.items()}
    order = [field.name for field in fields(Config)]
    return sorted(found.values(), key=lambda one: order.index(one.setting))


def config_of(decisions: list[Decision]) -> Config:
    """The settings of a plan, checked.

    Raises:
        pydantic.ValidationError: they do not go together.
    """
    return Config(**{one.setting: one.value for one in decisions})


def given_settings(config: Config, named: Collection[str] = ()) -> dict[str, Any]:
    """What the user has set, as plain types: what differs from the defaults, and what was named.

    Args:
        config: the settings as they are.
        named: settings that a flag or a file speaks of; a value may be the default's.
    """
    default = Config().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if value != default[name] or name in named
    }
