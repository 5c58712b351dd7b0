"""Updates that would do harm are left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_cgan.core.compat import takes_found_inf


def are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether gradients hold neither infinities nor NaN: one truth value, on their device.

    Their sum is finite only then, and is the cheapest thing to look at.
    """
    return torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite()


def leave_out_unless_finite(optimizer: Optimizer) -> Tensor:
    """Makes the next step of an optimizer do nothing if a gradient is not finite; `take_back` must follow that step.

    Fused optimizers decide on their device, as they do for scaled float16 gradients. Others have their gradients taken
    away, which they pass over, moments and all; a GPU waits for that.

    Args:
        optimizer: An optimizer whose gradients are there.

    Returns:
        Whether the step is left out: one truth value, on the device of the gradients.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), dtype=torch.bool)
    is_left_out = ~are_finite(gradients)
    # A checkpoint of a run that was not fused makes the optimizer of one that was to be so an ordinary one.
    is_fused = all(group.get("fused", True) for group in optimizer.param_groups)
    if is_fused and takes_found_inf(optimizer):
        optimizer.found_inf = is_left_out.float()  # type: ignore[attr-defined]
    elif is_left_out:
        optimizer.zero_grad()
    return is_left_out


def take_back(optimizer: Optimizer) -> None:
    """Lets an optimizer step as ever."""
    vars(optimizer).pop("found_inf", None)
