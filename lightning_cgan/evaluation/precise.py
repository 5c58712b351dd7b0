"""Sums in float64, which not every device has."""

from __future__ import annotations

from torch import Tensor


def in_float64(values: Tensor) -> Tensor:
    """The same values in float64: where they are, or on the CPU, where the device has none, as Apple's GPUs."""
    try:
        return values.double()
    except (TypeError, RuntimeError):
        return values.cpu().double()
