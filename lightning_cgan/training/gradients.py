"""Skip optimizer steps whose gradients contain inf or NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_cgan.core.compat import takes_found_inf


def are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether gradients contain neither inf nor NaN: one boolean, on their device.

    Only then is their sum finite, which is the cheapest value to check.
    """
    return torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite()


def leave_out_unless_finite(optimizer: Optimizer) -> Tensor:
    """Makes the next step of an optimizer do nothing if a gradient is not finite; `take_back` must follow that step.

    Fused optimizers decide on their device, as they do for scaled float16 gradients. Other optimizers have their
    gradients removed, so that they leave weights and moments unchanged; a GPU waits for that.

    Args:
        optimizer: An optimizer whose gradients have been computed.

    Returns:
        Whether the step is skipped: one boolean, on the device of the gradients.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), dtype=torch.bool)
    is_left_out = ~are_finite(gradients)
    # Loading the checkpoint of a run without a fused optimizer turns a fused one into an ordinary one.
    is_fused = all(group.get("fused", True) for group in optimizer.param_groups)
    if is_fused and takes_found_inf(optimizer):
        optimizer.found_inf = is_left_out.float()  # type: ignore[attr-defined]
    elif is_left_out:
        optimizer.zero_grad()
    return is_left_out


def take_back(optimizer: Optimizer) -> None:
    """Lets an optimizer step normally again."""
    vars(optimizer).pop("found_inf", None)
