"""Average gradients over processes, and skip optimizer steps whose gradients contain inf or NaN."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cgan.core.compat import takes_found_inf
from lightning_cgan.core.distributed import average_tensors


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Returns the parameters of all groups of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over all processes, in one all-reduce.

    A missing gradient counts as zero; where all processes have none, none is set.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
    average_tensors(gradients)
    for parameter, gradient in zip(trained, gradients, strict=True):
        if parameter.grad is None and gradient.any():
            parameter.grad = gradient


def are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether gradients contain neither inf nor NaN: one boolean, on their device.

    Only then is their sum finite, which is the cheapest value to check.
    """
    return torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite()


@contextmanager
def skip_nonfinite_step(optimizer: Optimizer) -> Iterator[Tensor]:
    """Lets a step of an optimizer within do nothing if one of its gradients is not finite.

    Fused optimizers decide on their device, as they do for scaled float16 gradients. Other optimizers have their
    gradients removed, so that they leave weights and moments unchanged; a GPU waits for that.

    Yields:
        Whether the step is skipped: one boolean, on the device of the gradients.
    """
    gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
    is_skipped = ~are_finite(gradients) if gradients else torch.zeros((), dtype=torch.bool)
    # Loading the checkpoint of a run without a fused optimizer turns a fused one into an ordinary one.
    is_fused = all(group.get("fused", True) for group in optimizer.param_groups)
    if gradients and is_fused and takes_found_inf(optimizer):
        optimizer.found_inf = is_skipped.float()  # type: ignore[attr-defined]
    elif is_skipped:
        optimizer.zero_grad()
    try:
        yield is_skipped
    finally:
        vars(optimizer).pop("found_inf", None)
