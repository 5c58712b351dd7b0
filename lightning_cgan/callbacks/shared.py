"""What callbacks share: where they write, and who judges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.evaluation.judge import JudgeRecord, get_judge
from lightning_cgan.evaluation.protocol import LabelledSplits


def run_folder(trainer: Trainer) -> Path | None:
    """The folder that a run may write to, the same on all processes; a `fast_dev_run` has none.

    Every process must ask, since they agree on the folder by a broadcast.
    """
    folder = trainer.log_dir
    return None if trainer.fast_dev_run or folder is None else Path(folder)  # type: ignore[attr-defined]


@contextmanager
def warn_on_write_error(what: str) -> Iterator[None]:
    """Makes a warning of a picture that cannot be made or written, as on a full disk: none is worth a run.

    Args:
        what: The beginning of the warning, such as `The picture of samples`.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        rank_zero_warn(f"{what} was not written: {reason}. Training goes on")


def splits_of(trainer: Trainer) -> LabelledSplits | None:
    """The data of a run, if it is a data module that can be scored against."""
    data = getattr(trainer, "datamodule", None)
    return data if hasattr(data, "in_order") else None


def shared_judge(trainer: Trainer, data: LabelledSplits, device: torch.device) -> JudgeRecord:
    """The judge of a data set, in every process; the first process finds it or trains it, and hands it to the others.

    They need not find it themselves: a cache may not be theirs, or not be writable.
    """
    found: JudgeRecord | None = None
    if trainer.is_global_zero:
        found = get_judge(data.in_order("train"), data.in_order("validation"), data.num_classes, device)
        found.judge.cpu()
    found = trainer.strategy.broadcast(found)
    assert found is not None
    found.judge.to(device)
    return found
