"""Objects that can describe, in plain values, how they were built.

A checkpoint must hold everything needed to rebuild its module as plain values, so that it loads with
`weights_only=True`. Lightning does this for modules built by its command line. `ConfigMixin` does it for modules built
in any way, in the same format: `{"class_path": …, "init_args": {…}}`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import Self

# Stored in checkpoints: older versions of the package let Lightning call it with a description.
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class ConfigMixin:
    """Stores the arguments with which each instance was built.

    Only arguments that were given are stored, as described by `to_config`. The names of arguments that it cannot
    describe are listed in `unserializable`.
    """

    is_part: ClassVar[bool] = True  # of a module: files may name such classes and have them built
    init_args: dict[str, Any]
    unserializable: list[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102
        instance = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        except TypeError:
            return instance  # `__init__` raises a clearer error; unpickling and copying restore the attributes
        init_args, unserializable = {}, []
        for name, value in _arguments_by_name(bound):
            try:
                init_args[name] = to_config(value)
            except TypeError:
                unserializable.append(name)
        # `torch.nn.Module.__setattr__` fails for some values before `__init__`; these plain values do not need it.
        object.__setattr__(instance, "init_args", init_args)
        object.__setattr__(instance, "unserializable", unserializable)
        return instance


def _arguments_by_name(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any]]:
    """The arguments after `self`, by the names with which they can be passed again."""
    for name, value in list(bound.arguments.items())[1:]:
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            yield from value.items()
        else:  # `*args` have no names, so they get a value that cannot be described
            yield name, object() if kind is inspect.Parameter.VAR_POSITIONAL else value


def to_config(value: Any) -> Any:
    """Describes a value in plain Python values from which `lightning_cgan.core.building` rebuilds it.

    Numbers, strings and containers are unchanged. A `ConfigMixin` becomes its class path and arguments, and so does a
    class, or a `functools.partial` of one, such as `partial(torch.optim.Adam, lr=1e-3)`. Arguments of a partial that
    equal the defaults of the class are omitted: jsonargparse fills in all of them, and another release of PyTorch may
    not have each. Other values, such as a lambda, raise a TypeError.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {key: to_config(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [to_config(item) for item in value]
    if isinstance(value, ConfigMixin) and not value.unserializable:
        return {"class_path": class_path(type(value)), "init_args": value.init_args}
    if isinstance(value, type):
        return {"class_path": class_path(value)}
    if isinstance(value, functools.partial):
        # jsonargparse wraps the class in its own functions, so it may be among the positional arguments.
        classes = [part for part in (value.func, *value.args) if isinstance(part, type)]
        if len(classes) == 1:
            arguments = _without_defaults(classes[0], value.keywords)
            return {"class_path": class_path(classes[0]), "init_args": to_config(arguments)}
    raise TypeError(f"expected a value that can be described in plain values, got {value!r}")


def _without_defaults(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that differ from the defaults of a class."""
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # a class implemented in C
        return dict(keywords)
    return {
        name: value
        for name, value in keywords.items()
        if name not in parameters or not _are_alike(value, parameters[name].default)
    }


def _are_alike(value: Any, default: Any) -> bool:
    """Whether two values are the same to a constructor, such as 0 and 0.0, or a list and a tuple."""
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return len(value) == len(default) and all(map(_are_alike, value, default))
    are_numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in (value, default))
    return value is default or (value == default if are_numbers or isinstance(value, str) else False)


def attribute(owner: Any, name: str) -> Any:
    """An attribute, if it exists; only this package may import a module to provide it."""
    is_ours = getattr(owner, "__name__", None) == "lightning_cgan"
    return getattr(owner, name, None) if is_ours else vars(owner).get(name)


def class_path(cls: type) -> str:
    """The dotted path that imports a class: from the top of its package if it is available there."""
    root = cls.__module__.partition(".")[0]
    if attribute(sys.modules[root], cls.__name__) is cls:
        return f"{root}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
