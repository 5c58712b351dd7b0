"""Conversion to float64 for precise sums, also for devices without float64."""

from __future__ import annotations

from torch import Tensor


def in_float64(values: Tensor) -> Tensor:
    """Converts values to float64 on their device, or on the CPU if the device has no float64 (Apple GPUs)."""
    try:
        return values.double()
    except (TypeError, RuntimeError):
        return values.cpu().double()
