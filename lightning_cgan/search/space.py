"""The space of a search: which options vary, and between which values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cgan.core.errors import UsageError, no_such_file

if TYPE_CHECKING:
    import optuna

_OF_RANGE = ("low", "high", "log", "step")

# Options that name or show a run, and those that change what its score measures or when
_SHOWN = "name runs_dir config ckpt_path weights_only wandb tensorboard samples curves page report predictions alarms"
_OF_TRAINER = "logger callbacks default_root_dir enable_checkpointing barebones fast_dev_run"
_MEASURED = "scores best_checkpoint data data.data_dir data.classes data.image_size data.validation_fraction"
_WHEN = "val_check_interval check_val_every_n_epoch limit_val_batches num_sanity_val_steps"
_NOT_TO_SEARCH = {
    "which does not change the generator": [
        *_SHOWN.split(),
        "checkpoints",
        *(f"trainer.{name}" for name in _OF_TRAINER.split()),
    ],
    "which changes what the score measures": [
        *_MEASURED.split(),
        *(f"trainer.{name}" for name in _WHEN.split()),
    ],
}


@dataclass(frozen=True)
class Choices:
    """An option with one of several values, as text for the command line.

    Attributes:
        name: The option, without hyphens.
        values: The values, in the order of the file.
    """

    name: str
    values: tuple[str, ...]

    def suggest(self, trial: optuna.Trial) -> str:
        """A value for a trial, as text."""
        return str(trial.suggest_categorical(self.name, self.values))

    @property
    def extremes(self) -> tuple[str, ...]:
        """The values that stand for all when the space is checked: each of them."""
        return self.values

    def described(self) -> Any:
        """The option for comparison with that of an earlier command."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """An option with a number between two bounds, both included; a whole number if both bounds are.

    Attributes:
        name: The option, without hyphens.
        low: The smallest value.
        high: The largest value.
        log: Whether equal factors, instead of equal differences, are equally probable.
        step: The distance between possible values; None for all numbers between the bounds.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: optuna.Trial) -> str:
        """A value for a trial, as text."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.step is None else int(self.step)
            return repr(trial.suggest_int(self.name, self.low, self.high, step=step, log=self.log))
        return repr(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    @property
    def extremes(self) -> tuple[str, ...]:
        """The values that stand for all when the space is checked: the bounds."""
        return repr(self.low), repr(self.high)

    def described(self) -> Any:
        """The option for comparison with that of an earlier command."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


Varied = Choices | Range


def read_space(path: str, content: Any) -> list[Varied]:
    """The options in the content of a YAML file, in its order.

    A list holds the values to choose from; a mapping with `low` and `high` is a range; any other mapping holds options
    whose names go on. `init_args` and leading hyphens may be left out of names or not.

    Raises:
        UsageError: An option is not described like this, or cannot be searched.
    """
    if not isinstance(content, Mapping) or not content:
        expected = f"expected options with the values to try in {path}"
        raise UsageError(f"--space: {expected}, got {_kind(content)}; --help describes them")
    found: dict[str, Varied] = {}
    for name, value in _flat(content, ""):
        _check_name(name)
        if name in found:
            raise UsageError(f"--space: expected each option once, got {name} twice; remove one of them")
        found[name] = _varied(name, value)
    return list(found.values())


def check_is_file(path: str | None) -> Path:
    """The file of the space; raises `UsageError` if there is none."""
    if path is None:
        raise UsageError("--space: expected a YAML file with the options to search, got none; --help describes it")
    if not Path(path).is_file():
        raise UsageError(no_such_file("--space", path))
    return Path(path)


def plain_name(option: str) -> str:
    """The name of an option without hyphens, a plus sign and the `init_args` of config files."""
    return option.removeprefix("--").removesuffix("+").replace(".init_args", "")


def _flat(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = plain_name(f"{prefix}{key if prefix else str(key).removeprefix('--')}")
        is_group = isinstance(value, Mapping) and value and not any(part in value for part in ("low", "high"))
        if is_group:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _check_name(name: str) -> None:
    for reason, options in _NOT_TO_SEARCH.items():
        for option in options:
            # `data` itself is a class; most of its options may vary
            if name == option or (option != "data" and name.startswith(f"{option}.")):
                raise UsageError(f"--space: expected options that may vary, got {name}, {reason}; remove it")


def _varied(name: str, value: Any) -> Varied:
    if isinstance(value, Mapping):
        return _range(name, value)
    if not isinstance(value, list) or not value:
        got = "an empty list" if value == [] else _kind(value)
        expected = "expected a list of values, or a mapping with low and high"
        raise UsageError(f"--space: {name}: {expected}, got {got}; give [1, 2] or {{low: 1, high: 2}}")
    texts = [_as_text(one) for one in value]
    for text in texts:
        if texts.count(text) > 1:
            raise UsageError(f"--space: {name}: expected different values, got {text} twice; remove one of them")
    return Choices(name, tuple(texts))


def _range(name: str, given: Mapping[Any, Any]) -> Range:
    if unknown := [key for key in given if key not in _OF_RANGE]:
        expected = f"expected {', '.join(_OF_RANGE)}"
        raise UsageError(f"--space: {name}: {expected}, got {unknown[0]}; remove it")
    if missing := [key for key in ("low", "high") if key not in given]:
        raise UsageError(f"--space: {name}: expected low and high, got no {missing[0]}; give it")
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"--space: {name}.log: expected true or false, got {_kind(log)}; give one of them")
    for key in ("low", "high", "step"):
        number = given.get(key)
        if not (_is_number(number) or (key == "step" and number is None)):
            raise UsageError(f"--space: {name}.{key}: expected a number, got {_kind(number)}; give one")
    found = Range(name, given["low"], given["high"], log, given.get("step"))
    _check_range(found)
    return found


def _check_range(found: Range) -> None:
    low, high, step, option = found.low, found.high, found.step, f"--space: {found.name}"
    if low >= high:
        raise UsageError(f"{option}: expected low to be below high, got {low} and {high}; exchange or change them")
    if found.log and low <= 0:
        raise UsageError(f"{option}.low: expected a number above 0 with log: true, got {low}; give one, or omit log")
    if step is None:
        return
    if found.log:
        raise UsageError(f"{option}.step: expected none with log: true, got {step}; omit one of them")
    if step <= 0:
        raise UsageError(f"{option}.step: expected a number above 0, got {step}; give one")
    bounds_are_whole = isinstance(low, int) and isinstance(high, int)
    if bounds_are_whole and not isinstance(step, int):
        raise UsageError(f"{option}.step: expected a whole number, as low and high are, got {step}; write {low}.0")
    exact = [Fraction(repr(number)) for number in (low, high, step)]  # as written, not as rounded to binary
    if (exact[1] - exact[0]) % exact[2]:
        last = float(exact[1] - (exact[1] - exact[0]) % exact[2])
        reached = int(last) if bounds_are_whole else last
        raise UsageError(f"{option}.high: expected low plus some steps, got {high}; give {reached}, or another step")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_text(value: Any) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _kind(value: Any) -> str:
    """A value for a message."""
    if value is None:
        return "nothing"
    return "an empty mapping" if value == {} else repr(value) if isinstance(value, str) else _as_text(value)
