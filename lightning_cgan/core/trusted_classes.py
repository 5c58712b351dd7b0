"""The classes that files may name and have built.

These are: public networks, losses, penalties, augmentations and auxiliary classifiers, of this package and of other
modules that are already imported; PyTorch's layers, optimizers and schedulers by their public names; and optimizers and
schedulers of other imported modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.core.serialization import ConfigMixin, attribute

FACTORIES = (Optimizer, LRScheduler)  # their first argument is the weights: a factory that takes them is built instead
_OF_TORCH = ((nn, nn.Module), (torch.optim, Optimizer), (lr_scheduler, LRScheduler), (swa_utils, LRScheduler))


def part_classes() -> tuple[type, ...]:
    """The base classes of the parts of a module, such as networks and losses, and of factories."""
    return *(kind for kind in ConfigMixin.__subclasses__() if kind.is_part), *FACTORIES


def find_class(path: str, file: str) -> type:
    """Finds a known class by its path, text from a file; nothing is imported. Raises `UsageError` for other paths."""
    module, _, name = path.rpartition(".")
    for cls in _buildable():
        if cls.__name__ == name and path in _paths(cls):
            return cls
    if module and module not in sys.modules and all(part.isidentifier() for part in path.split(".")):
        remedy = "import its module first, if you trust it"
        raise UsageError(f"{file}: expected classes of imported modules, got {printable(path, 80)}; {remedy}")
    expected = "expected the class of a part of a module, such as a network, loss or optimizer"
    raise UsageError(f"{file}: {expected}, got {printable(path, 80)}; other classes are not built")


def _buildable() -> Iterator[type]:
    for module, base in _OF_TORCH:
        for name, found in vars(module).items():
            # Wrappers such as `DataParallel` are not layers.
            is_there = isinstance(found, type) and issubclass(found, base) and not name.startswith("_")
            if is_there and found.__module__.startswith(("torch.nn.modules.", "torch.optim.")):
                yield found
    for kind in part_classes():
        for cls in subclasses_of(kind):
            is_public = not any(part.startswith("_") for part in cls.__qualname__.split("."))
            if is_public and not is_of_torch(cls):
                yield cls


def subclasses_of(base: type) -> Iterator[type]:
    """A class and all that derive from it."""
    yield base
    derived: list[type] = type.__subclasses__(base)
    for cls in derived:
        yield from subclasses_of(cls)


def is_of_torch(cls: type) -> bool:
    """Whether a class is PyTorch's own."""
    return cls.__module__.partition(".")[0] == "torch"


def _paths(cls: type) -> Iterator[str]:
    """The paths that import a class: from its module, and from the packages that contain the module."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = None if found is None else vars(found).get(name)
    if found is not cls:  # a class inside a function, or of a module that was removed
        return
    yield f"{cls.__module__}.{cls.__qualname__}"
    package = cls.__module__.rpartition(".")[0]
    while package:
        if package in sys.modules and attribute(sys.modules[package], cls.__name__) is cls:
            yield f"{package}.{cls.__name__}"
        package = package.rpartition(".")[0]
