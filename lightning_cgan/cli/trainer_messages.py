"""One-line messages for errors that Lightning and its callbacks raise."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, callbacks

from lightning_cgan.cli.hints import as_typed

_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}
# Words that messages use for an option or its value
_ALIASES = {"max_time": "Timer", "tpu": "xla"}
_CLASS = re.compile(r"class_path='(?:\w+\.)*(\w+)'")


def trainer_message(error: Exception, options: Mapping[str, Any]) -> str:
    """One line about an option that the Trainer refuses with an error."""
    reason = _sentence(error)
    changed = [name for name, value in options.items() if value is not None and value != _DEFAULTS.get(name)]
    name = _named(reason, changed) or _valued(reason, {name: options[name] for name in changed})
    if name is None:
        return f"--trainer: {reason}"
    got = ", ".join(_CLASS.findall(str(options[name]))) or as_typed(str(options[name]))
    return f"--trainer.{name}: expected another value, got {got} ({reason}); change or omit it"


def message_of_lightning(error: BaseException) -> str | None:
    """One line about an error that Lightning raises later; None if it is not Lightning's, or about no option."""
    frames, own = extract_tb(error.__traceback__), str(Path(lightning.__file__).parent)
    is_own = bool(frames) and frames[-1].filename.startswith(own)
    if not isinstance(error, ValueError | ImportError | MisconfigurationException) or not is_own:
        return None
    reason = _sentence(error)
    name = _named(reason, [name for name in _DEFAULTS if re.search(rf"`{name}\b|\b{name}=", reason)])
    if isinstance(error, ValueError) and name is None:
        return None  # not necessarily about an option
    return f"--trainer.{name}: {reason}" if name else f"--trainer: {reason}"


def message_of_callback(error: Exception) -> str | None:
    """The message of an error that one of Lightning's callbacks has raised; None for any other error."""
    file = Path(extract_tb(error.__traceback__)[-1].filename)
    return " ".join(str(error).split()) if file.is_relative_to(Path(callbacks.__file__).parent) else None


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _named(reason: str, names: list[str]) -> str | None:
    """The option that the message names first."""
    positions = {}
    for name in names:
        if found := re.search(rf"(?<![\w.])({name}|{_ALIASES.get(name, name)})(?!\w)", reason):
            positions[name] = found.start()
    return min(positions, key=lambda name: positions[name], default=None)


def _valued(reason: str, options: Mapping[str, Any]) -> str | None:
    """The first option whose value the message mentions, such as a strategy or the class of a callback."""
    for name, value in options.items():
        words = [value] if isinstance(value, str) else _CLASS.findall(str(value))
        for word in words:
            first = re.split("[_-]", word.lower())[0]
            if len(first) > 2 and _ALIASES.get(first, first) in reason.lower():
                return name
    return None


def message_of_class(message: str) -> str | None:
    """One line for what jsonargparse says of a logger, or of a network, that it cannot instantiate; else None."""
    if "Subtypes: [<class 'lightning.pytorch.loggers." in message:
        return _broken_logger(message)
    if size := re.fullmatch(r"Expected a <class 'int'>\. Got value: \((\d+), (\d+)\)", message):
        return (
            "--data.image_size: expected one number, since a custom network takes square images alone "
            f"(image_size: int), got [{size[1]}, {size[2]}]; give --data.image_size {min(map(int, size.groups()))}, "
            "or let the network take int | tuple[int, int]"
        )
    return None


def _broken_logger(message: str) -> str:
    """One line with the error of a logger's constructor, from jsonargparse's list of all types that it has tried."""
    tried, _, given = message.partition("\nErrors:")[2].partition("\nGiven value type:")
    reasons = [part for part in tried.split("\n  - ")[1:] if not re.match("Expected a |Not a valid subclass", part)]
    reason = re.sub(r"^Problem with given class_path '[\w.]+':", "", reasons[0] if reasons else tried)
    names = ", ".join(re.findall(r"class_path='([\w.]+)'", given))
    return f"--trainer.logger: cannot create {names}: {' '.join(reason.split())}; change or omit it"
