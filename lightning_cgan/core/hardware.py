"""The default precision and number of CPU threads for this machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lightning_cgan.core.compat import multiplies_bfloat16


def fastest_precision(accelerator: str) -> tuple[str, str]:
    """Chooses between bfloat16 and float32.

    Args:
        accelerator: The Trainer's accelerator, with `auto` resolved: `cpu`, `cuda`, …

    Returns:
        Lightning's name of the precision, and the reason.
    """
    if accelerator == "cuda":
        has_it, unit = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    elif accelerator == "cpu":
        has_it, unit = multiplies_bfloat16(), "CPU"
    else:
        has_it, unit = False, "device"
    verb = "multiplies" if has_it else "does not multiply"
    return ("bf16-mixed" if has_it else "32-true"), f"this {unit} {verb} bfloat16 by itself"


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
