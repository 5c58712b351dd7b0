"""Helpers for callbacks: the run folder, failed writes, the splits of the data and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.core.errors import reason_of
from lightning_cgan.evaluation.judge import JudgeRecord, get_judge
from lightning_cgan.evaluation.protocol import LabelledSplits

LARGEST_SHARE = 0.01  # of the time of a run, for a file that is written again and again


def next_writing(started: float, ended: float, every_n_seconds: float) -> float:
    """When a file is to be written again, in seconds of the clock by which the last writing started and ended."""
    return ended + max(every_n_seconds, (ended - started) / LARGEST_SHARE)


def run_folder(trainer: Trainer) -> Path | None:
    """The folder that a run may write to, the same in all processes; a `fast_dev_run` has none.

    Every process must call this function, since the folder is broadcast.
    """
    folder = trainer.log_dir
    return None if trainer.fast_dev_run or folder is None else Path(folder)  # type: ignore[attr-defined]


@contextmanager
def warn_on_write_error(what: str) -> Iterator[None]:
    """Turns an error into a warning: a picture that cannot be written, as on a full disk, must not end a run.

    Args:
        what: The subject of the warning, such as `samples.gif`.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, OSError) else reason_of(error)
        rank_zero_warn(f"{what} was not written: {reason}. Training continues")


def splits_of(trainer: Trainer) -> LabelledSplits | None:
    """The data module of a run, if it has splits that images can be scored against."""
    data = getattr(trainer, "datamodule", None)
    return data if hasattr(data, "in_order") else None


def shared_judge(trainer: Trainer, data: LabelledSplits, device: torch.device) -> JudgeRecord:
    """The judge of a data set; the first process loads or trains it, and broadcasts it to the others.

    The others might have no access to the cache of judges, or no permission to write to it.
    """
    found: JudgeRecord | None = None
    if trainer.is_global_zero:
        found = get_judge(data.in_order("train"), data.in_order("validation"), data.num_classes, device)
        found.judge.cpu()
    found = trainer.strategy.broadcast(found)
    assert found is not None
    found.judge.to(device)
    return found
