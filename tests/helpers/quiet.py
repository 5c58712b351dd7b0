"""A Trainer that leaves nothing behind and shows nothing."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer


def quiet_trainer(steps: int, **options: Any) -> Trainer:
    """Makes so many steps, on a CPU unless the options say otherwise."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(max_steps=steps, **{**quiet, **options})
