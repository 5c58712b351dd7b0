"""The configuration of optimizers and schedulers, as saved in a checkpoint."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from lightning_cgan.core.compat import PARTS_OF_SCHEDULE
from lightning_cgan.core.errors import UsageError

# The types of the entries of a `configuration`
_FORM: dict[str, dict[str, type]] = {
    "optimizers": {"class": str, "defaults": Mapping, "groups": list},
    "schedulers": {"class": str, "optimizer": int, "state": Mapping},
}

_LINEAR = re.compile(r"\bPolynomialLR\b")  # a LinearDecay apart from its length and power, which are options

Part = Literal["optimizer", "scheduler"]
Name = Callable[[int, Part], str]


def configuration(optimizers: Sequence[Optimizer], configs: Sequence[Any]) -> dict[str, Any]:
    """Describes optimizers before their first step, and Lightning's scheduler configs, in plain values and tensors."""
    numbers = {id(optimizer): number for number, optimizer in enumerate(optimizers)}
    return {
        "optimizers": [
            {
                "class": type(optimizer).__name__,
                "defaults": plain(optimizer.defaults),
                "groups": plain(groups_of(optimizer)),
            }
            for optimizer in optimizers
        ],
        "schedulers": [
            {
                "class": _class_of(config.scheduler) + _interval_of(config),
                "optimizer": numbers[id(config.scheduler.optimizer)],
                "state": plain(config.scheduler.state_dict()),
            }
            for config in configs
        ],
    }


def check_configuration(saved: Any, name: str) -> None:
    """Checks that a checkpoint entry has the form that `configuration` writes for two optimizers."""
    is_right = isinstance(saved, Mapping) and all(
        isinstance(saved.get(part), list) and all(_has_form(entry, form) for entry in saved[part])
        for part, form in _FORM.items()
    )
    groups = [group for entry in saved["optimizers"] for group in entry["groups"]] if is_right else []
    if not is_right or len(saved["optimizers"]) != 2 or not all(isinstance(group, Mapping) for group in groups):
        raise UsageError(f"the checkpoint: expected optimizers and schedulers for {name}; it is damaged: take another")


def _has_form(entry: Any, form: Mapping[str, type]) -> bool:
    return isinstance(entry, Mapping) and all(isinstance(entry.get(key), kind) for key, kind in form.items())


def check_same_classes(before: Mapping[str, Any], now: Mapping[str, Any], name: Name) -> None:
    """Rejects optimizers, numbers of parameter groups, or schedulers of other classes than a run had."""
    for number, (old, new) in enumerate(zip(before["optimizers"], now["optimizers"], strict=True)):
        kinds = [f"{of['class']} of {len(of['groups'])} parameter groups" for of in (old, new)]
        _check_same(name(number, "optimizer"), *([kind.replace(" of 1 parameter groups", "")] for kind in kinds))
        of_both = [[s["class"] for s in of["schedulers"] if s["optimizer"] == number] for of in (before, now)]
        _check_same(name(number, "scheduler"), *of_both)


def _check_same(name: str, old: Sequence[str], new: Sequence[str]) -> None:
    if [_LINEAR.sub("LinearDecay", kind) for kind in old] != [_LINEAR.sub("LinearDecay", kind) for kind in new]:
        was, now = (shorten(" and ".join(kinds) or "none", 200) for kinds in (old, new))
        raise UsageError(f"{name}: expected {was}, as the run had it, got {now}; give the former, or start a new run")


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns copies of the options of each parameter group."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return copy.deepcopy(groups)


def _class_of(scheduler: Any) -> str:
    """Names the class of a scheduler, and those of its parts."""
    parts = ", ".join(map(_class_of, getattr(scheduler, PARTS_OF_SCHEDULE, ())))
    return f"{type(scheduler).__name__}({parts})" if parts else type(scheduler).__name__


def _interval_of(config: Any) -> str:
    if config.interval == "step" and config.frequency == 1:
        return ""
    return f" by {config.interval}" if config.frequency == 1 else f" every {config.frequency} {config.interval}s"


def plain(value: Any) -> Any:
    """Returns a copy that a checkpoint can hold; a value that is not plain becomes the name of its class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return type(value).__name__
