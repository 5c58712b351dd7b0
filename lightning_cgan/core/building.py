"""Build objects from their descriptions in files, and from nothing else.

Building an object runs the code of its class, so a file must not choose that code. Text from a file is never parsed: a
description is a mapping with `class_path` and, optionally, `init_args`, as `to_config` writes it. Its path is only
compared with the names of the classes that may be built (`core/trusted_classes.py`); nothing is imported.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from lightning_cgan.core.errors import UsageError, did_you_mean, printable
from lightning_cgan.core.trusted_classes import FACTORIES, find_class, is_of_torch, part_classes

T = TypeVar("T")

# The limits of values and of nesting: containers in a file can be circular.
_LARGEST, _DEEPEST = 100_000, 50
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SCALARS = (bool, int, float, str)
_REMEDY = "use another file, or write this one again"


@dataclass(frozen=True)
class _Location:
    """The position of a value in a file, for messages."""

    file: str
    names: tuple[str, ...] = ()

    def inner(self, name: object) -> _Location:
        return _Location(self.file, (*self.names, _shown(name, 40)))

    def refusal(self, expected: str, got: str, remedy: str = _REMEDY) -> UsageError:
        at = f" for {'.'.join(self.names)}" if self.names else ""
        return UsageError(f"{self.file}: expected {expected}{at}, got {got}; {remedy}")


def build(description: Any, kind: type[T], file: str) -> T:
    """Builds an object of class `kind` from untrusted content of a file; raises a `UsageError` that names the file."""
    location = _Location(file)
    _check_plain(description, location)
    built: T = _fit(description, kind, location)
    return built


def build_module(cls: type[T], described: Any, given: Mapping[str, Any], file: str) -> T:
    """Builds a module from arguments described in a file, by name, except those that are given.

    Described arguments that the class does not take are skipped. Raises a `UsageError` that names the file.
    """
    location = _Location(file)
    if not _are_arguments(described):
        raise location.refusal("the arguments of a module by name", _shown(described))
    hints, takes_others = _parameters(cls)
    arguments = dict(given)
    for name, value in described.items():
        is_known = name in hints or (takes_others and not name.startswith("_"))  # Lightning's keys begin with _
        if is_known and name not in given:
            _check_plain(value, location.inner(name))
            arguments[name] = _fit(value, hints.get(name, Any), location.inner(name))
    return _call(cls, arguments, location)


def _check_plain(value: Any, location: _Location) -> None:
    """Refuses values that are not plain, and containers that are too large, too deep or circular."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if isinstance(item, Mapping):
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, (list, tuple)):
            waiting += [(inner, depth + 1) for inner in item]
        elif item is not None and not isinstance(item, _SCALARS):
            raise location.refusal("plain values", f"a {type(item).__name__}")
        if count + len(waiting) > _LARGEST or depth > _DEEPEST:
            raise location.refusal(f"at most {_LARGEST:,} values, {_DEEPEST} deep", "more")


def _fit(value: Any, hint: Any, location: _Location, plain: bool = False) -> Any:
    """Fits a value to a type hint; descriptions within it are built, or refused if `plain`."""
    options = list(_options(hint))
    if isinstance(value, Mapping) and "class_path" in value:
        if plain:
            raise location.refusal("a plain value", "a description of an object")
        return _build(value, options, location)
    refusal = location.refusal(" or ".join(map(_expected, options)), _shown(value))
    for option in options:
        if _matches(value, option):
            try:
                return _fit_contents(value, option, location, plain)
            except UsageError as error:
                refusal = error
    raise refusal


def _options(hint: Any) -> Iterator[Any]:
    """The members of a union; hints that cannot be checked become `Any`."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _options(part)
    elif get_origin(hint) is Annotated:
        yield from _options(get_args(hint)[0])
    else:
        yield Any if hint is object or isinstance(hint, (str, TypeVar)) else hint


def _matches(value: Any, option: Any) -> bool:
    """Whether a plain value matches a type, ignoring its contents; unknown types match any value."""
    origin = get_origin(option) or option
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(option))
    if origin in _SEQUENCES or origin in _MAPPINGS:
        return isinstance(value, (list, tuple) if origin in _SEQUENCES else Mapping)
    if origin in (None, type(None)):
        return value is None
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin in _SCALARS:
        return type(value) is origin
    is_class = isinstance(origin, type) and issubclass(origin, (nn.Module, torch.Tensor, *part_classes()))
    return not is_class and origin not in (type, collections.abc.Callable)


def _fit_contents(value: Any, option: Any, location: _Location, plain: bool) -> Any:
    """The same value with its contents fitted; lists become tuples where the hint is a tuple."""
    origin, hints = get_origin(option) or option, get_args(option)
    if isinstance(value, Mapping):
        hint = hints[1] if origin in _MAPPINGS and len(hints) == 2 else Any
        return {key: _fit(item, hint, location.inner(key), plain) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    if origin is tuple and hints and hints[-1] is not Ellipsis:
        if len(hints) != len(value):
            raise location.refusal(f"{len(hints)} values", str(len(value)))
    else:
        hints = (hints[0] if origin in _SEQUENCES and hints else Any,) * len(value)
    pairs = enumerate(zip(value, hints, strict=True))
    items = [_fit(item, hint, location.inner(number), plain) for number, (item, hint) in pairs]
    return tuple(items) if origin is tuple else items


def _expected(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(map(repr, get_args(option)))
    if option in (None, type(None)):
        return "nothing"
    if _is_class(option) and issubclass(option, part_classes()):
        return f"a description of {option.__name__}"
    return "text" if option is str else getattr(option, "__name__", str(option))


def _shown(value: Any, limit: int = 80) -> str:
    if isinstance(value, (list, tuple, Mapping)):
        return f"a {type(value).__name__}"
    return printable(value if isinstance(value, str) else repr(value), limit)


def _build(description: Mapping[str, Any], options: Sequence[Any], location: _Location) -> Any:
    path, given = description["class_path"], description.get("init_args", {})
    if not isinstance(path, str) or not _are_arguments(given) or not description.keys() <= {"class_path", "init_args"}:
        got = ", ".join(_shown(key, 40) for key in description)
        raise location.refusal("a name as class_path, a mapping as init_args and nothing else", got)
    cls = find_class(path, location.file)
    forms = [_form(cls, option, "init_args" in description) for option in options]
    form = next(filter(None, forms), None)
    if form is None:
        raise location.refusal(" or ".join(map(_expected, options)), _shown(path))
    arguments = _arguments(cls, given, location)
    if form == "instance":
        return _call(cls, arguments, location)
    return functools.partial(cls, **arguments) if "init_args" in description else cls


def _are_arguments(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _form(cls: type, option: Any, has_arguments: bool) -> str | None:
    """Whether an argument takes an instance of a class, or a factory (the class or a partial); None for neither."""
    is_factory = issubclass(cls, FACTORIES)
    as_described = "factory" if is_factory or is_of_torch(cls) or not has_arguments else "instance"
    origin, inner = get_origin(option), get_args(option)
    if origin is type or (origin is collections.abc.Callable and inner):
        results = [part for part in _options(inner[-1]) if part is not type(None)]
        if all(map(_is_class, results)):
            return "factory" if any(_is_subclass(cls, part) for part in results) else None
        return as_described  # a callable with another purpose
    if option is Any or option in (type, collections.abc.Callable, Callable):
        return as_described
    if _is_class(option) and option not in (*_SEQUENCES, *_MAPPINGS):
        return "instance" if _is_subclass(cls, option) and not is_factory else None
    return None


def _is_class(option: Any) -> bool:
    return isinstance(option, type) and get_origin(option) is None and option not in _SCALARS


def _is_subclass(cls: type, base: type) -> bool:
    try:
        return issubclass(cls, base)
    except TypeError:  # a protocol without runtime checks
        return True


def _arguments(cls: type, given: Mapping[str, Any], location: _Location) -> dict[str, Any]:
    """Builds the arguments of a class; PyTorch's classes get plain values only, since some call their arguments."""
    hints, takes_others = _parameters(cls)
    arguments = {}
    for name, value in given.items():
        if name in hints or takes_others:
            arguments[name] = _fit(value, hints.get(name, Any), location.inner(name), plain=is_of_torch(cls))
        elif not is_of_torch(cls) or value not in (None, False):  # else unset, in a newer PyTorch
            remedy = did_you_mean(name, hints).removeprefix("; ") or f"it takes {', '.join(hints) or 'none'}"
            raise location.refusal(f"options of {cls.__name__}", _shown(name), remedy)
    return arguments


def _parameters(cls: type) -> tuple[dict[str, Any], bool]:
    """The type hints of a constructor's parameters, and whether it takes other names too.

    Arguments that it forwards to a base class are looked up there.
    """
    hints: dict[str, Any] = {}
    takes_others = None
    for constructor in [vars(owner)["__init__"] for owner in cls.__mro__[:-1] if "__init__" in vars(owner)]:
        try:
            known = get_type_hints(constructor)
        except Exception:  # names imported only for type checking
            known = {}
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for parameter in parameters[1:] if issubclass(cls, FACTORIES) else parameters:  # without the weights
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                hint = known.get(parameter.name, Any)
                hints.setdefault(parameter.name, hint if parameter.default is not None else Union[hint, None])  # noqa: UP007 - not every hint knows `|`
        forwards = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        takes_others = forwards if takes_others is None else takes_others
        if not forwards:
            break
    return hints, bool(takes_others)


def _call(cls: type[T], arguments: Mapping[str, Any], location: _Location) -> T:
    try:
        return cls(**arguments)
    except UsageError as error:
        raise UsageError(f"{location.file}: {error}") from error
    except Exception as error:  # unexpected values can raise any exception
        reason = f"{type(error).__name__}: {_shown(' '.join(str(error).split()), 200)}"
        raise location.refusal(f"valid arguments of {cls.__name__}", f"others ({reason})") from error
