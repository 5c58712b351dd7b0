"""Detect changes in what a graph depends on other than its input tensors: attributes, hooks and settings.

A recorded graph contains whatever Python decided while it was recorded. All of that is stored here and compared in
each step, which must be cheap: dictionaries are compared as wholes, and by identity where nothing has changed.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import chain
from operator import attrgetter, eq
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cgan.core.compat import PARTS_OF_MODULE, is_compiled_alone, version_of
from lightning_cgan.core.errors import FusionError
from lightning_cgan.training.graph_hooks import has_hooks, hooks_of, refuse_hooks, settings

# Types that never change in place.
_PLAIN: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, Enum, slice, range, PurePath, np.generic)
_PLAIN += (torch.dtype, torch.device, torch.layout, torch.memory_format, BuiltinFunctionType, ModuleType)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
# The attributes of every module other than its parts, and the arguments with which an object was built.
_NOT_FOLLOWED = frozenset(vars(nn.Module())) - {*PARTS_OF_MODULE} | {"init_args", "unserializable"}
_LIBRARIES = {*sys.stdlib_module_names, "torch", "numpy", "typing_extensions"}
_LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
_OF_EVERY_CLASS = ("__annotations__", "__annotate__")
_MOST = 20_000
_MISSING = object()

_requires_grad = attrgetter("requires_grad")


class Dependencies:
    """Everything reachable from some objects, as it was when this object was created.

    Args:
        roots: The objects, with their names in messages.
        parameters: Their parameters, by name.
        with_varying: Whether numbers that a class names in `varying` may change, since they enter as tensors.

    Attributes:
        varying: The locations of these numbers: dictionaries of attributes, and keys.

    Raises:
        FusionError: There are hooks, or objects whose changes cannot be detected.
    """

    def __init__(self, roots: Sequence[tuple[str, Any]], parameters: Mapping[str, Tensor], with_varying: bool) -> None:
        self.parameters = parameters
        self.varying: list[tuple[dict[str, Any], str]] = []
        self._copies_with_varying: list[dict[str, Any]] = []  # the copy of attributes for each entry of `varying`
        self._with_varying = with_varying
        self._alive: dict[int, Any] = {}  # an id may be reused once its object is deleted
        self._paths: list[str] = []  # of containers and attributes
        self._live: list[Any] = []  # these containers and attributes
        self._copies: list[Any] = []  # of them
        self._tensors: list[tuple[str, Any, Any, Tensor]] = []  # path, container, key, value
        self._globals: list[tuple[dict[str, Any], str, Any]] = []  # container, key, value
        self._classes: set[type] = set()
        self._modules: dict[str, nn.Module] = {}
        for name, root in roots:
            self._follow(name, root)
        refuse_hooks(self._modules, parameters)
        self._hooks = hooks_of(self._modules)
        buffers = {id(buffer) for module in self._modules.values() for buffer in module.buffers(recurse=False)}
        entering = buffers | set(map(id, parameters.values()))
        self._constants = [tensor for *_, tensor in self._tensors if id(tensor) not in entering]
        self._versions = list(map(version_of, self._constants))
        self._trained = list(map(_requires_grad, parameters.values()))
        self._device = next((parameter.device.type for parameter in parameters.values()), "cpu")
        self._settings = settings(self._device)

    def hold(self) -> bool:
        """Whether nothing has changed, and there are no hooks."""
        try:
            for (attributes, name), copied in zip(self.varying, self._copies_with_varying, strict=True):
                copied[name] = attributes[name]
            return (
                all(map(eq, self._live, self._copies))
                and all(container[key] is tensor for _, container, key, tensor in self._tensors)
                and all(container[key] == value for container, key, value in self._globals)
                and list(map(_requires_grad, self.parameters.values())) == self._trained
                and list(map(version_of, self._constants)) == self._versions
                and settings(self._device) == self._settings
                and not any(self._hooks)
                and not any(map(has_hooks, self.parameters.values()))
            )
        except Exception:  # something was deleted, or a tensor or a foreign object cannot be compared
            return False

    def difference(self) -> str:
        """Describes the first change that is found."""
        for path, live, copied in zip(self._paths, self._live, self._copies, strict=True):
            if not _same(live, copied):
                return _first_difference(path, live, copied)
        for path, container, key, tensor in self._tensors:
            if _get(container, key) is not tensor:
                return path
        for container, key, value in self._globals:
            if not _same(_get(container, key), value):
                return key
        for (name, weight), before in zip(self.parameters.items(), self._trained, strict=True):
            if weight.requires_grad != before:
                return f"requires_grad of {name}"
        if list(map(version_of, self._constants)) != self._versions:
            return "a tensor that is neither a parameter nor a buffer"
        return "autocast, or another setting of PyTorch," if settings(self._device) != self._settings else "a hook"

    def restore(self) -> None:
        """Undoes changes, except to hooks, settings and the values of tensors."""
        for live, copied in zip(self._live, self._copies, strict=True):
            if isinstance(live, (dict, set)) and not _same(live, copied):
                live.clear()
                live.update(copied)
            elif isinstance(live, (list, deque)) and not _same(live, copied):
                live.clear()
                live.extend(copied)

    def constant_values(self) -> list[tuple[Tensor, Tensor]]:
        """Returns the tensors that do not enter the graph, with copies of them."""
        return [(tensor, tensor.detach().clone()) for tensor in self._constants]

    # ---- traversal ---------------------------------------------------------------------------------------------------

    def _follow(self, path: str, value: Any) -> None:
        if isinstance(value, (*_PLAIN, Tensor)) or id(value) in self._alive:
            return
        self._alive[id(value)] = value
        if len(self._alive) > _MOST:
            raise FusionError(f"{path} and others reach more objects than can be checked in each step")
        if isinstance(value, _CONTAINERS):
            self._watch(path, value)
        elif isinstance(value, type):
            self._follow_class(value)
        elif isinstance(value, functools.partial):
            self._follow(path, (value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            self._follow(path, (value.__self__, value.__func__))
        elif isinstance(value, FunctionType):
            self._follow_function(path, value)
        else:
            self._follow_object(path, value)

    def _watch(self, path: str, value: Any, varying: Sequence[str] = ()) -> None:
        """Stores a copy of a container, and follows its items."""
        copied = copy.copy(value)
        self._paths.append(path)
        self._live.append(value)
        self._copies.append(copied)
        for name in varying:
            self.varying.append((value, name))
            self._copies_with_varying.append(copied)
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if isinstance(item, Tensor) and not isinstance(value, (set, frozenset)):
                self._tensors.append((_join(path, key), value, key, item))
            elif key not in _NOT_FOLLOWED:
                self._follow(_join(path, key), item)

    def _follow_object(self, path: str, value: Any) -> None:
        kind = type(value)
        libraries = {parent.__module__.partition(".")[0] for parent in kind.__mro__}
        if not hasattr(value, "__dict__") or libraries & _LIGHTNING:
            raise FusionError(f"{path} is a {kind.__name__}, whose changes a graph would not see")
        if isinstance(value, nn.Module):
            if is_compiled_alone(value):
                raise FusionError(f"{path} is compiled on its own")
            self._modules[path] = value
        self._follow_class(kind)
        names = getattr(kind, "varying", ()) if self._with_varying else ()
        self._watch(path, vars(value), [name for name in names if is_number(vars(value).get(name))])

    def _follow_class(self, kind: type) -> None:
        """Stores what a class and its parents define; library classes are assumed not to change."""
        for parent in kind.__mro__:
            if parent.__module__.partition(".")[0] in _LIBRARIES or parent in self._classes:
                continue
            self._classes.add(parent)
            self._paths.append(parent.__name__)
            self._live.append(vars(parent))
            self._copies.append(dict(vars(parent)))
            for name, value in list(vars(parent).items()):
                function = getattr(value, "fget", getattr(value, "__func__", value))  # of a property or a class method
                if isinstance(function, (FunctionType, list, dict, set)) and name not in _OF_EVERY_CLASS:
                    self._follow(f"{parent.__name__}.{name}", function)

    def _follow_function(self, path: str, function: FunctionType) -> None:
        """Follows a function's closure and the global variables that it reads."""
        if (function.__module__ or "").partition(".")[0] in _LIBRARIES:
            return
        for cell in function.__closure__ or ():
            try:
                self._follow(path, cell.cell_contents)
            except ValueError:  # not assigned yet
                continue
        for name in _names(function.__code__) & function.__globals__.keys():
            value = function.__globals__[name]
            if isinstance(value, Tensor):
                self._tensors.append((name, function.__globals__, name, value))
            elif isinstance(value, (*_PLAIN, *_CONTAINERS)) and not isinstance(value, ModuleType):
                self._globals.append((function.__globals__, name, value))
                self._follow(name, value)


def is_number(value: Any) -> bool:
    """Whether it is a Python int or float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(code: CodeType) -> set[str]:
    """Returns the non-local names that code looks up, including those of nested functions."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(chain(code.co_names, *inner))


def _join(path: str, key: Any) -> str:
    if key in PARTS_OF_MODULE:
        return path
    if not isinstance(key, str):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # such as tensors, or foreign objects
        return False


def _get(container: Any, key: Any) -> Any:
    try:
        return container[key]
    except LookupError:
        return _MISSING


def _first_difference(path: str, live: Any, copied: Any) -> str:
    if not isinstance(copied, dict):
        return path
    for key in {**copied, **live}:
        if not _same(live.get(key, _MISSING), copied.get(key, _MISSING)):
            return _join(path, key)
    return path
