"""Hooks that PyTorch would call in a step, and the settings that its operations depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cgan.core.compat import (
    HOOKS_OF_MODULES,
    HOOKS_OF_TENSORS,
    hooks_of_all_modules,
    mode_counters,
    watching_modes,
)
from lightning_cgan.core.errors import FusionError

# Looked up once here, since they are checked in each step.
_HOOKS_OF_ALL_MODULES = hooks_of_all_modules()
_count_function_modes, _count_dispatch_modes = mode_counters()


def hooks_of(modules: Mapping[str, nn.Module]) -> list[Mapping[int, Any]]:
    """Returns the live dictionaries of hooks that the modules call."""
    own = [getattr(module, kind) for module in modules.values() for kind in HOOKS_OF_MODULES]
    return [*_HOOKS_OF_ALL_MODULES, *own]


def has_hooks(weight: Tensor) -> bool:
    """Whether a parameter has hooks."""
    return any(hooks(weight) for hooks in HOOKS_OF_TENSORS)


def refuse_hooks(modules: Mapping[str, nn.Module], parameters: Mapping[str, Tensor]) -> None:
    """Rejects hooks, which a graph would not call, and anything else that intercepts operations."""
    for path, module in modules.items():
        for kind in HOOKS_OF_MODULES:
            if getattr(module, kind):
                raise FusionError(f"a {kind[1:-1].replace('_', ' ')} of {path} would not be called")
    for name, weight in parameters.items():
        if has_hooks(weight):
            raise FusionError(f"a hook of {name} would not be called")
    if torch.is_anomaly_enabled():
        raise FusionError("detect_anomaly checks each operation")
    for mode in watching_modes():
        raise FusionError(f"{type(mode).__name__} intercepts each operation")
    if any(_HOOKS_OF_ALL_MODULES):
        raise FusionError("a hook of all modules would not be called")


def settings(device: str) -> tuple[Any, ...]:
    """Returns the settings of PyTorch that determine which operations are recorded, and how they run."""
    return (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        _count_function_modes(),
        _count_dispatch_modes(),
    )
