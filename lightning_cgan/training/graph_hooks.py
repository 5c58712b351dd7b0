"""What PyTorch calls in a step besides its operations, and the settings that these follow."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from lightning_cgan.core.errors import FusionError

_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_ALL_MODULES = tuple(getattr(nn.modules.module, f"_global{kind}") for kind in _OF_MODULES)
_OF_TENSORS = (attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks"))


class Hooks:
    """The hooks of modules and of their parameters, which a graph would not call.

    Args:
        modules: The modules, by name.
        parameters: The parameters, by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module], parameters: Mapping[str, Tensor]) -> None:
        self.modules = modules
        self.parameters = parameters
        self._of_modules = [getattr(module, kind) for module in modules.values() for kind in _OF_MODULES]

    def are_there(self) -> bool:
        """Whether there are any."""
        weights = self.parameters.values()
        return any(self._of_modules) or any(_OF_ALL_MODULES) or any(any(map(kind, weights)) for kind in _OF_TENSORS)

    def refuse(self) -> None:
        """Refuses hooks, and whatever else looks at each operation.

        Raises:
            FusionError: There is such a thing.
        """
        for path, module in self.modules.items():
            for kind in _OF_MODULES:
                if getattr(module, kind):
                    raise FusionError(f"a {kind[1:-1].replace('_', ' ')} of {path} would not be called")
        for name, weight in self.parameters.items():
            if any(kind(weight) for kind in _OF_TENSORS):
                raise FusionError(f"a hook of {name} would not be called")
        if torch.is_anomaly_enabled():
            raise FusionError("detect_anomaly looks at each operation")
        for mode in (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()):
            if not isinstance(mode, DeviceContext):
                raise FusionError(f"{type(mode).__name__} looks at each operation")
        if any(_OF_ALL_MODULES):
            raise FusionError("a hook of all modules would not be called")


def settings(device: str) -> tuple[Any, ...]:
    """The settings of PyTorch that decide which operations are recorded, and how they run."""
    return (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
