"""What the machine is good at: the precision and the number of CPU threads that a run takes where nobody chose."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lightning_cgan.core.compat import multiplies_bfloat16


def fastest_precision(accelerator: str) -> tuple[str, str]:
    """Chooses between bfloat16 and float32.

    Args:
        accelerator: As the Trainer's, with `auto` resolved: `cpu`, `cuda`, …

    Returns:
        The name that Lightning has for the precision, and why.
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
    """Spares each optimizer step on a machine without a GPU a tenth of a millisecond.

    PyTorch's optimizers ask in every step whether there is a GPU. Importing Lightning makes that question load NVML,
    for the sake of processes that are forked before a GPU is used; where there is none, PyTorch's own way is as good.
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
