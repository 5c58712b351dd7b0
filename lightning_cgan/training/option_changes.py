"""Apply changed options of optimizers and schedulers to a resumed run.

PyTorch restores the options of optimizers and schedulers together with their state, so a new learning rate or a
longer schedule would silently be lost. Here, an option that differs from the configuration of the run that wrote the
checkpoint replaces the restored one. Moments and the position in a schedule are kept.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiplicativeLR

from lightning_cgan.core.compat import (
    BOOKKEEPING_OF_SCHEDULES,
    FUNCTION_OF_SCHEDULE,
    MILESTONES,
    PARTS_OF_SCHEDULE,
)
from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.optimizer_config import Name, Part, configuration, groups_of, plain

_DERIVED = {"lr", "initial_lr", "min_lr", "base_lrs"}  # from the options that are reported
_LONGEST = 10**9  # steps


@dataclass
class _Options:
    """The options of an optimizer's parameter groups, and the states of its schedulers."""

    groups: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    defaults: dict[str, Any] = field(default_factory=dict)  # the optimizer's, before a scheduler changes them


def apply_changed_options(
    checkpoint: dict[str, Any],
    before: Mapping[str, Any],
    optimizers: Sequence[Optimizer],
    configs: Sequence[Any],
    name: Name,
) -> list[str]:
    """Writes changed options into the states of a checkpoint, before they are restored, and describes the changes.

    Args:
        checkpoint: With `optimizer_states` and `lr_schedulers`, whose entries are replaced.
        before: The `configuration` of the run that wrote it.
        optimizers: The optimizers, before their first step; they and their schedulers may be left at any step.
        configs: Lightning's configs of these schedulers.
        name: Returns the option that configures the optimizer of a given number, or its scheduler.

    Raises:
        UsageError: A schedule ends before the step of the checkpoint.
    """
    now = configuration(optimizers, configs)
    states, schedules = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    changes: list[str] = []
    for number, optimizer in enumerate(optimizers):
        own = [index for index, entry in enumerate(now["schedulers"]) if entry["optimizer"] == number]
        was, fresh = _configured(before, number), _configured(now, number)
        saved = _Options(states[number]["param_groups"], [schedules[index] for index in own])
        names: dict[Part, str] = {"optimizer": name(number, "optimizer"), "scheduler": name(number, "scheduler")}
        schedulers = [configs[index].scheduler for index in own]
        options, new = _resumed(optimizer, schedulers, saved, was, fresh, names)
        changes += new
        states[number] = {**states[number], "param_groups": options.groups}
        for index, state in zip(own, options.schedules, strict=True):
            schedules[index] = state
    return changes


def _resumed(
    optimizer: Optimizer,
    schedulers: Sequence[Any],
    saved: _Options,
    was: _Options,
    fresh: _Options,
    names: Mapping[Part, str],
) -> tuple[_Options, list[str]]:
    """Returns the options with which an optimizer and its schedulers resume, and the changes among them.

    `saved` are the options in the checkpoint, `was` those with which its run began, and `fresh` those with which this
    run would begin; `at_step` are the fresh ones after as many steps as the checkpoint has.
    """
    has_function = any(map(calls_function, schedulers))  # which is not part of any state
    is_same = _same(was.groups, fresh.groups) and _same(was.schedules, fresh.schedules)
    steps = [_position(state) for state in saved.schedules]
    if is_same and (not has_function or None in steps):
        return saved, []
    _replay(schedulers, steps, names["scheduler"])
    states = [copy.deepcopy(scheduler.state_dict()) for scheduler in schedulers]
    at_step = _Options(groups_of(optimizer), states)
    new = [_differing(*groups) for groups in zip(was.groups, fresh.groups, strict=True)]
    scheduled = [  # options set by a schedule
        {"lr", *_differing(before, after), *(after.keys() - optimizer.defaults.keys())}
        for before, after in zip(fresh.groups, at_step.groups, strict=True)
    ]
    calls_another = has_function and not _same(_rates(saved), _rates(at_step))
    is_rescheduled = calls_another or not _same(was.schedules, fresh.schedules)
    is_rescheduled |= bool(schedulers) and any(map(set.__and__, new, scheduled))
    groups = []
    for kept, replayed, keys, of_schedule in zip(saved.groups, at_step.groups, new, scheduled, strict=True):
        taken = keys | of_schedule if is_rescheduled else keys
        groups.append({**replayed, **kept, **{key: replayed[key] for key in taken}})
    changes = _changes(was, fresh, names)
    if is_rescheduled and not changes:
        changes = [f"{names['scheduler']}: another schedule"]
    return _Options(groups, (at_step if is_rescheduled else saved).schedules), changes


def _replay(schedulers: Sequence[Any], steps: Sequence[int | None], name: str) -> None:
    """Steps schedulers to their positions one step at a time, since not all have a closed form."""
    if None in steps:
        raise UsageError(
            f"{name}: expected the schedule of the run, got another of a class without last_epoch, which cannot resume "
            "in the middle; leave it as it was, or start a new run"
        )
    known = [step for step in steps if step is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer is not stepped in between
        try:
            for step in range(max(known, default=0)):
                for scheduler, last in zip(schedulers, known, strict=True):
                    if step < last:
                        scheduler.step()
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{name}: expected a schedule that reaches step {max(known)} of the checkpoint, got one that does not "
                f"({reason}); make it longer"
            ) from error


def _changes(was: _Options, fresh: _Options, names: Mapping[Part, str]) -> list[str]:
    """Describes the differences, where possible by the names of the options."""
    changes = list(_describe(was.defaults, fresh.defaults, names["optimizer"]))
    for states in zip(was.schedules, fresh.schedules, strict=True):
        changes += _describe(*states, names["scheduler"], _DERIVED)
    described = _differing(was.defaults, fresh.defaults) | _DERIVED
    for groups in zip(was.groups, fresh.groups, strict=True):
        by_scheduler = groups[1].keys() - fresh.defaults.keys() if fresh.schedules else set()
        changes += _describe(*groups, names["optimizer"], described | by_scheduler)
        changes += _describe(*groups, names["scheduler"], described | (groups[1].keys() - by_scheduler))
    if not changes:  # a rate set for one group, or by the scheduler
        of_rate: tuple[Part, str] = ("scheduler", "initial_lr") if fresh.schedules else ("optimizer", "lr")
        for before, after in zip(was.groups, fresh.groups, strict=True):
            changes += _describe(before, after, names[of_rate[0]], after.keys() - {of_rate[1]})
    return changes


def _describe(
    was: Mapping[str, Any], now: Mapping[str, Any], name: str, skipped: Set[str] = frozenset()
) -> Iterator[str]:
    for key in sorted(_differing(was, now) - skipped):
        if key == PARTS_OF_SCHEDULE:
            for index, states in enumerate(zip(was[key], now[key], strict=False)):
                yield from _describe(*states, f"{name}.schedulers.{index}", skipped)
        elif not key.startswith("_") or key == MILESTONES:
            yield f"{name}.{key.lstrip('_')}: {_shown(was[key])} → {_shown(now[key])}"


def _shown(value: Any) -> str:
    value = plain(value)
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, Mapping):  # milestones
        value = list(value)
    return shorten(str(value), 60, placeholder=" …")


def _configured(entry: Mapping[str, Any], number: int) -> _Options:
    optimizer = entry["optimizers"][number]
    schedules = [scheduler["state"] for scheduler in entry["schedulers"] if scheduler["optimizer"] == number]
    return _Options(optimizer["groups"], schedules, optimizer["defaults"])


def _rates(options: _Options) -> list[Any]:
    return [group.get("lr") for group in options.groups]


def calls_function(scheduler: Any) -> bool:
    """Whether a schedule, or a part of it, calls a function of the user's."""
    parts = getattr(scheduler, PARTS_OF_SCHEDULE, ())
    own = isinstance(scheduler, (LambdaLR, MultiplicativeLR)) or getattr(scheduler, FUNCTION_OF_SCHEDULE, None)
    return bool(own) or any(map(calls_function, parts))


def _position(state: Any) -> int | None:
    """Returns how often a scheduler has been stepped, from its state or that of one of its parts."""
    if not isinstance(state, Mapping):
        return None
    step = state.get("last_epoch")
    if isinstance(step, int) and not isinstance(step, bool):
        return step if 0 <= step < _LONGEST else None
    parts = state.get(PARTS_OF_SCHEDULE)
    return _position(parts[0]) if isinstance(parts, list) and parts else None


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Returns the keys of differing values; keys that only one of two releases of PyTorch has are ignored."""
    return {
        key for key in was.keys() & now.keys() if key not in BOOKKEEPING_OF_SCHEDULES and not _same(was[key], now[key])
    }


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, Tensor) or isinstance(now, Tensor):
        was, now = (value.tolist() if isinstance(value, Tensor) else value for value in (was, now))
        return _same(was, now)
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        is_data = not all(isinstance(key, str) for key in (*was, *now))  # such as milestones
        return not _differing(was, now) and (not is_data or was.keys() == now.keys())
    if isinstance(was, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(was) == len(now) and all(map(_same, was, now))
    if isinstance(was, float) or (isinstance(now, float) and isinstance(was, int)):
        return isinstance(now, (int, float)) and (math.isclose(was, now) or (was != was and now != now))
    return type(was) is type(now) and bool(was == now)
