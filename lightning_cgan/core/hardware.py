"""The default precision and number of CPU threads for this machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lightning_cgan.core.compat import multiplies_bfloat16


def fastest_precision(accelerator: str) -> tuple[str, str]:
    """Lightning's name of the precision for `cpu`, `cuda` or another accelerator, and the reason for it."""
    if accelerator == "cuda":
        is_native, unit = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    elif accelerator == "cpu":
        is_native, unit = multiplies_bfloat16(), "CPU"
    else:
        is_native, unit = False, "device"
    verb = "multiplies" if is_native else "does not multiply"
    return ("bf16-mixed" if is_native else "32-true"), f"this {unit} {verb} bfloat16 natively"


def ask_for_gpus_cheaply() -> None:
    """Saves a tenth of a millisecond per optimizer step on machines without a GPU.

    PyTorch's optimizers check in every step whether there is a GPU. Lightning, when imported, makes that check use
    NVML, for processes that are forked before a GPU is used; without a GPU, PyTorch's default check is as good.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def available_cores() -> int:
    """The cores that this process may use: by its affinity, and by the quota of its container (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return allowed
