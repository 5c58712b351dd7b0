"""Use a network in evaluation mode while it stays in training mode for other users."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_cgan.core.compat import COMPILED_CALL, original_of

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def in_evaluation_mode(network: NetworkT) -> NetworkT:
    """Returns a network in evaluation mode that shares its weights with the given one, whose mode does not change.

    The mode of a network is shared by all its users: switching it for a while, as to generate images in a thread during
    a run, would affect training steps made meanwhile, and two concurrent switches might leave it changed. So the module
    objects are copied, and only they: parameters, buffers and hooks are those of the given network, even if they are
    replaced later. The result is not compiled.
    """
    copied: NetworkT = _copy(network, {})
    return copied


def _copy(value: Any, copies: dict[int, nn.Module]) -> Any:
    """Copies modules, and containers and methods that refer to them; returns everything else unchanged."""
    if isinstance(value, nn.Module):
        return _copy_module(value, copies)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, _copy(value.__self__, copies))
    if type(value) in (list, tuple, set):
        given = list(value)  # another thread may append to it meanwhile
        items = [_copy(item, copies) for item in given]
        return value if all(new is old for new, old in zip(items, given, strict=True)) else type(value)(items)
    if isinstance(value, dict):
        entries = dict(value)
        changed = {key: _copy(item, copies) for key, item in entries.items()}
        return value if all(changed[key] is entries[key] for key in entries) else changed
    return value


def _copy_module(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    if (original := original_of(module)) is not None:  # of `torch.compile(network)`
        return _copy_module(original, copies)
    if id(module) not in copies:
        if isinstance(module, torch.jit.ScriptModule):
            copies[id(module)] = copy.deepcopy(module).eval()
        else:
            copied = copies[id(module)] = module.__class__.__new__(module.__class__)
            content = {name: value for name, value in module.__dict__.items() if name != COMPILED_CALL}
            copied.__dict__.update({name: _copy(value, copies) for name, value in content.items()}, training=False)
    return copies[id(module)]
