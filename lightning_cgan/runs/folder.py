"""The folder of a run, and the loggers that write there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from lightning_cgan.core.output_paths import check_writable, unwritable


def name_of(configs: Iterable[str]) -> str:
    """The name of a run: that of the first of its configs that is not for laying over others."""
    files = [Path(config) for config in configs]
    named = [file for file in files if file.parent.name != "with"] or files
    return named[0].stem if named else "run"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, which is there.

    Attributes:
        path: The folder.
        is_resuming: Whether it is that of an earlier run, which goes on there.
        made: What was made for it, from itself upwards.
    """

    path: Path
    is_resuming: bool = False
    made: tuple[Path, ...] = ()

    def discard(self) -> None:
        """Removes a folder that was made for this run, and those above that were and hold nothing else."""
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)
        for folder in self.made[1:]:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()


def new_run_folder(runs_dir: str, name: str) -> RunFolder:
    """Makes the folder of a new run, `<runs_dir>/<name>/<time>`, which no other run gets.

    Raises:
        UsageError: It cannot be made.
    """
    folder = Path(runs_dir) / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    missing = [above for above in folder.parents if not os.path.lexists(above)]
    for attempt in count(1):
        chosen = folder if attempt == 1 else folder.with_name(f"{folder.name}_{attempt}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            chosen.mkdir()  # of several runs that try at once, one succeeds
        except OSError as error:
            is_taken = isinstance(error, FileExistsError) and folder.parent.is_dir()
            # Another run that failed may have taken its folders away, since.
            may_be_gone = isinstance(error, (FileExistsError, FileNotFoundError)) and attempt < 100
            if not (is_taken or may_be_gone):
                raise unwritable(chosen, f"which cannot be made ({error.strerror})") from error
        else:
            return RunFolder(chosen, made=(chosen, *missing))
    raise AssertionError


def resolve_run_dir(checkpoint: str | None, runs_dir: str, name: str) -> RunFolder:
    """The folder of a run: that of an earlier one, which goes on there, or a new one.

    Of several processes, only the first may ask; the others learn it from the Trainer (`callbacks/base.py`).

    Raises:
        UsageError: It could not be written to.
    """
    old = run_dir_of_checkpoint(checkpoint, runs_dir, name)
    check_writable(old or Path(runs_dir) / name)
    return RunFolder(old, is_resuming=True) if old else new_run_folder(runs_dir, name)


def newest_checkpoint(runs_dir: str, name: str) -> Path | None:
    """The `last.ckpt` that was written last of all runs of a name, if there is one."""
    checkpoints = Path(runs_dir, name).glob("*/checkpoints/last.ckpt")
    return max(checkpoints, key=lambda file: file.stat().st_mtime, default=None)


def run_dir_of_checkpoint(checkpoint: str | None, runs_dir: str, name: str) -> Path | None:
    """The folder of the run that a checkpoint is the end of; none if it is another's, or not the last of its run."""
    if checkpoint is None or Path(checkpoint).name != "last.ckpt":
        return None
    checkpoints = Path(checkpoint).resolve().parent
    is_ours = checkpoints.name == "checkpoints" and checkpoints.parents[1] == Path(runs_dir, name).resolve()
    return Path(runs_dir, name, checkpoints.parent.name) if is_ours else None


def report_folder(checkpoint: Path) -> Path:
    """Where `test` writes its report of a checkpoint unless told otherwise, and others look for it."""
    return checkpoint.with_name(f"{checkpoint.stem}-report")
