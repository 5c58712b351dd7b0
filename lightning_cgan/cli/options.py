"""What there is to type: the options of a parser, its switches, and the classes that fit an option."""

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
    """The options of a parser, with their hyphens; those of the classes that it makes are none of its own."""
    return [option for action in actions_of(parser) for option in action.option_strings if option.startswith("--")]


def with_switches(args: Sequence[str], parser: ArgumentParser) -> list[str]:
    """The same arguments, with a value for each switch: `--overwrite` is `--overwrite=true`, `--no_ema` `--ema=false`.

    Args:
        args: The arguments of a command.
        parser: Its parser.
    """
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
    """Whether what follows a switch is no value of it."""
    if following is None or re.match(r"-(?!\d)", following):
        return True
    # `generate --overwrite last.ckpt`: a file, where a command takes one
    return takes_words and (not following.isalnum() or Path(following).exists())


def _is_switch(action: Any) -> bool:
    """Whether an option is true or false in the first place."""
    hint = type_of(action)
    types = get_args(hint) or (hint,)
    is_plain = all(part in (bool, int, NoneType) or get_origin(part) is Literal for part in types)
    return bool in types and is_plain and isinstance(action.default, bool | None)


def parameters_of(path: str, parser: ArgumentParser, key: str, is_called: bool) -> list[str]:
    """The options that a class takes, but for what others decide.

    Args:
        path: Its dotted path.
        parser: The parser of the command.
        key: The option whose value the class is.
        is_called: Whether it gets its first argument from us, as an optimizer does.
    """
    found, linked = _found(path), f"{key}.init_args."
    hidden = {target.removeprefix(linked) for target in linked_targets(parser) if target.startswith(linked)}
    try:
        skip: set[str | int] = {1} if is_called else set()
        names = ArgumentParser(exit_on_error=False).add_class_arguments(
            found, as_group=False, skip=skip, fail_untyped=False
        )
    except Exception:  # a class of others' may do anything
        names = list(signature_of(path))
    return [name for name in names if name not in hidden]


def signature_of(path: str) -> Mapping[str, inspect.Parameter]:
    """The arguments that a class takes, given its dotted path."""
    found = _found(path)
    try:
        # Some releases of Python 3.11 look at `__new__` first, which in our classes takes anything.
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
    """The names of the classes that fit an option, in the order of the alphabet."""
    hints = [type_of(action) for action in actions_of(parser) if action.dest == key]
    leaves = (cls for hint in hints for base in _classes(hint) for cls in _leaves(base))
    return sorted({cls.__name__ for cls in leaves if not cls.__name__.startswith("_")})


def _classes(typehint: Any) -> Iterator[type]:
    """The classes that a type hint mentions, other than Python's own."""
    arguments: Iterable[Any] = typehint if isinstance(typehint, list) else get_args(typehint)
    if isinstance(typehint, type) and not arguments and typehint.__module__ not in ("builtins", "collections.abc"):
        yield typehint
    for argument in arguments:
        yield from _classes(argument)


def _leaves(base: type) -> Iterator[type]:
    """A class and its subclasses, as far as they can be instantiated."""
    if not inspect.isabstract(base) and not (base.__subclasses__() and base.__module__.endswith(".base")):
        yield base
    subclasses: list[type] = base.__subclasses__()
    for subclass in subclasses:
        yield from _leaves(subclass)
