"""Record what determines the last bits of a run besides its options, such as the number of CPU threads."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.core.schema import check_schema

Numerics = dict[str, Any]

_EXPECTED = {"threads": [], "precision": "", "device": "", "graph": ""}


def numerics_of(trainer: Trainer, graph: str) -> Numerics:
    """Returns what determines the last bits of a run, as plain values for a checkpoint; all processes must call it."""
    device = trainer.strategy.root_device
    own = torch.tensor([torch.get_num_threads()], device=device)
    everywhere = trainer.strategy.all_gather(own) if trainer.world_size > 1 else own
    threads = everywhere.reshape(-1).tolist()
    return {"threads": threads, "precision": str(trainer.precision), "device": device.type, "graph": graph}


def check_numerics(numerics: Any) -> None:
    """Validates the entry of a checkpoint."""
    check_schema(_EXPECTED, numerics, "lightning_cgan.numerics")
    check_schema([1] * len(numerics["threads"]), numerics["threads"], "lightning_cgan.numerics.threads")


def warn_of_differences(saved: Numerics, now: Numerics) -> None:
    """Warns, with the reasons, that the last bits of a resumed run will differ from those of an uninterrupted one."""
    shown = [_shown(numerics) for numerics in (saved, now)]
    names = list(shown[0])
    if saved["device"] != now["device"] or now["device"] != "cpu" or len(saved["threads"]) != len(now["threads"]):
        names.remove("CPU threads")
    differing = [f"{name} {shown[0][name]}, got {shown[1][name]}" for name in names if shown[0][name] != shown[1][name]]
    if differing:
        rank_zero_warn(
            f"the checkpoint: expected what its run had, {'; '.join(differing)}; resuming anyway, but the last bits "
            "will differ from those of an uninterrupted run"
        )


def _shown(numerics: Numerics) -> dict[str, str]:
    threads = numerics["threads"]
    return {
        "CPU threads": ", ".join(str(count) for count in (threads if len(set(threads)) > 1 else threads[:1])),
        "precision": numerics["precision"],
        "device": numerics["device"],
        "processes": str(len(threads)),
        "compilation": numerics["graph"],
    }
