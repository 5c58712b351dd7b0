"""The options of a parser, its switches, and the classes that an option accepts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from lightning_cgan.core.compat import actions_of, linked_targets, type_of


def options_of(parser: ArgumentParser) -> list[str]:
    """The options of a parser, with their hyphens, without those of the classes that it instantiates."""
    return [option for action in actions_of(parser) for option in action.option_strings if option.startswith("--")]


def with_switches(args: Sequence[str], parser: ArgumentParser) -> list[str]:
    """Gives each switch a value: `--overwrite` becomes `--overwrite=true`, and `--no_ema` becomes `--ema=false`."""
    switches = {option for action in actions_of(parser) if _is_switch(action) for option in action.option_strings}
    known, changed = options_of(parser), []
    takes_words = any(not action.option_strings for action in actions_of(parser))
    for arg, following in zip(args, [*args[1:], None], strict=False):
        positive = re.sub("^--no_", "--", arg)
        if arg in switches and _stands_alone(following, takes_words):
            changed.append(f"{arg}=true")
        elif positive != arg and positive in switches and arg not in known:
            changed.append(f"{positive}=false")
        else:
            changed.append(arg)
    return changed


def _stands_alone(following: str | None, takes_words: bool) -> bool:
    """Whether the argument after a switch is not its value."""
    if following is None or re.match(r"-(?!\d)", following):
        return True
    # `generate --overwrite last.ckpt`: the file is a positional argument
    return takes_words and (not following.isalnum() or Path(following).exists())


def _is_switch(action: Any) -> bool:
    """Whether an option is a bool, possibly next to int, null or literals, and a bool or null by default."""
    hint = type_of(action)
    types = get_args(hint) or (hint,)
    is_plain = all(part in (bool, int, NoneType) or get_origin(part) is Literal for part in types)
    return bool in types and is_plain and isinstance(action.default, bool | None)


def parameters_of(path: str, parser: ArgumentParser, key: str, is_called: bool) -> list[str]:
    """The options of a class that is the value of `key`, without those that are linked to other options.

    Without the first one if `is_called`: then the package supplies it, as for an optimizer.
    """
    found, linked = _found(path), f"{key}.init_args."
    hidden = {target.removeprefix(linked) for target in linked_targets(parser) if target.startswith(linked)}
    try:
        skip: set[str | int] = {1} if is_called else set()
        names = ArgumentParser(exit_on_error=False).add_class_arguments(
            found, as_group=False, skip=skip, fail_untyped=False
        )
    except Exception:  # a custom class may raise anything
        names = list(signature_of(path))
    return [name for name in names if name not in hidden]


def signature_of(path: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class, given its dotted path."""
    found = _found(path)
    try:
        # Some releases of Python 3.11 inspect `__new__` first, which accepts any arguments in our classes.
        constructor = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
        return inspect.signature(constructor).parameters
    except (TypeError, ValueError):
        return {}


def _found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def class_names(parser: ArgumentParser, key: str) -> list[str]:
    """The names of the classes that an option accepts, in alphabetical order."""
    hints = [type_of(action) for action in actions_of(parser) if action.dest == key]
    leaves = (cls for hint in hints for base in _classes(hint) for cls in _leaves(base))
    return sorted({cls.__name__ for cls in leaves if not cls.__name__.startswith("_")})


def _classes(typehint: Any) -> Iterator[type]:
    """The classes in a type hint, without Python's built-in ones."""
    arguments: Iterable[Any] = typehint if isinstance(typehint, list) else get_args(typehint)
    if isinstance(typehint, type) and not arguments and typehint.__module__ not in ("builtins", "collections.abc"):
        yield typehint
    for argument in arguments:
        yield from _classes(argument)


def _leaves(base: type) -> Iterator[type]:
    """Those of a class and its subclasses that can be instantiated."""
    if not inspect.isabstract(base) and not (base.__subclasses__() and base.__module__.endswith(".base")):
        yield base
    subclasses: list[type] = base.__subclasses__()
    for subclass in subclasses:
        yield from _leaves(subclass)
