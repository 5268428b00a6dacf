"""What a setting says about itself, beside its type and default."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

OnResume = Literal[
    "free",  # it does not change results: paths, workers, how often to save
    "warn",  # the run goes on with the new value and logs the change
    "fixed",  # another value is another experiment: refused
    "planned",  # fixed where the schedule is planned for a number of epochs
    "counted",  # fixed inside an epoch, and where the schedule counts optimizer steps
]
Identity = Literal[
    "",  # a trained model does not depend on it
    "clip",  # what a clip must look like to the model: folds that are averaged agree in it
    "network",  # which network it is
]
ForPrediction = Literal[
    "model",  # predict.py takes the model's own value
    "given",  # predict.py takes the value given to it: where and how fast it runs
    "if given",  # the model's own value, unless another one is given
]


@dataclass(frozen=True)
class Setting:
    """What a field of Config says about itself, beside its type and default."""

    help: str
    group: str
    used_by: tuple[str, ...]  # scripts, without .py, that show it in their help
    unit: str = ""
    on_resume: OnResume = "warn"
    identity: Identity = ""
    for_prediction: ForPrediction = "model"
    makes_arrays: bool = False  # prepared recordings depend on it
    under_root: bool = False  # a path that lies under `root`
    is_local: bool = False  # true of this machine alone: left out of exported models
    place: int = 0  # of its group in the help


class Group:
    """A group of settings in the help; calling it makes a field of that group."""

    n_groups = 0

    def __init__(self, name: str, *used_by: str, **common: Any) -> None:
        Group.n_groups += 1
        self.name, self.used_by = name, used_by
        self.common = {"place": Group.n_groups} | common

    def __call__(self, default: Any, help: str, *, used_by: str = "", **rest: Any) -> Any:
        """Make a field with a default (or a function that makes one) and all that it says."""
        scripts = tuple(used_by.split()) or self.used_by
        setting = Setting(help, self.name, scripts, **self.common | rest)
        how = {"default_factory": default} if callable(default) else {"default": default}
        return Field(**how, description=help, json_schema_extra={"setting": setting})  # type: ignore[dict-item]


def settings_of(config_class: Any) -> dict[str, Setting]:
    """What each field of a class says about itself, by name: group by group, each in its order.

    Raises:
        TypeError: a field says nothing; it was not made by a Group.
    """
    found = {}
    for name, field in config_class.__pydantic_fields__.items():
        about = (field.json_schema_extra or {}).get("setting")
        if about is None:
            raise TypeError(f"Config.{name}: make it with a group, as the fields around it are")
        found[name] = about
    return dict(sorted(found.items(), key=lambda item: item[1].place))
