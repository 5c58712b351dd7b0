"""Objects that can say how they were built, in plain values.

A checkpoint must hold what is needed to build its module again, as plain values, so that it loads with
`weights_only=True`. Lightning does this for modules that its command line built. `ConfigMixin` does it for every way of
building them, and in the same format: `{"class_path": …, "init_args": {…}}`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import Self

# What older versions of the package have Lightning call with a description.
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class ConfigMixin:
    """A class whose instances remember the arguments that they were built with.

    Only arguments that were given are remembered, described by `to_config`. Arguments that it cannot describe are
    listed in `unserializable`.
    """

    is_part: ClassVar[bool] = True  # of a module: a file may name such classes, and have them built
    init_args: dict[str, Any]
    unserializable: list[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: D102
        instance = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        except TypeError:
            return instance  # `__init__` raises the clearer error; unpickling and copying bring the attributes along
        init_args, unserializable = {}, []
        for name, value in _named(bound):
            try:
                init_args[name] = to_config(value)
            except TypeError:
                unserializable.append(name)
        # `torch.nn.Module` refuses attributes of its own kind before its `__init__`; plain ones need no such care.
        object.__setattr__(instance, "init_args", init_args)
        object.__setattr__(instance, "unserializable", unserializable)
        return instance


def _named(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any]]:
    """The arguments behind `self`, by the names under which they can be given again."""
    for name, value in list(bound.arguments.items())[1:]:
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            yield from value.items()
        else:  # what stands in `*args` has no name, and an object without one cannot be described
            yield name, object() if kind is inspect.Parameter.VAR_POSITIONAL else value


def to_config(value: Any) -> Any:
    """Describes a value in plain Python values from which `lightning_cgan.core.building` builds it again.

    Numbers, strings and containers stay as they are. A `ConfigMixin` becomes its class path and arguments, and so does
    a class, or a `functools.partial` over one, such as `partial(torch.optim.Adam, lr=1e-3)`. Of that, arguments that
    are the defaults of the class are left out, since jsonargparse fills in all of them: another release of PyTorch may
    not know each.

    Raises:
        TypeError: There is no such description, as for a lambda.
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
        # jsonargparse wraps the class in calls of its own, so it may stand among the positional arguments.
        classes = [part for part in (value.func, *value.args) if isinstance(part, type)]
        if len(classes) == 1:
            return {"class_path": class_path(classes[0]), "init_args": to_config(_given(classes[0], value.keywords))}
    raise TypeError(f"expected a value that can be described in plain values, got {value!r}")


def _given(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not what a class takes without them."""
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # a class of C's
        return dict(keywords)
    return {
        name: value
        for name, value in keywords.items()
        if name not in parameters or not _are_alike(value, parameters[name].default)
    }


def _are_alike(value: Any, default: Any) -> bool:
    """Whether two values are the same to a constructor, as 0 and 0.0 are, and lists and tuples."""
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return len(value) == len(default) and all(map(_are_alike, value, default))
    are_numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in (value, default))
    return value is default or (value == default if are_numbers or isinstance(value, str) else False)


def attribute(owner: Any, name: str) -> Any:
    """What is there under a name, if anything. But for this package's, nothing is imported for its sake."""
    is_ours = getattr(owner, "__name__", None) == "lightning_cgan"
    return getattr(owner, name, None) if is_ours else vars(owner).get(name)


def class_path(cls: type) -> str:
    """The dotted path that imports a class: from the top of its package, where it can be had there."""
    root = cls.__module__.partition(".")[0]
    if attribute(sys.modules[root], cls.__name__) is cls:
        return f"{root}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
