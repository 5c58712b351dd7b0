"""The folder of a run: its name, creation and reuse."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from lightning_cgan.core.output_paths import check_writable, unwritable


def name_of(configs: Iterable[str]) -> str:
    """The name of a run: that of its first config that is not an overlay from `with/`."""
    files = [Path(config) for config in configs]
    named = [file for file in files if file.parent.name != "with"] or files
    return named[0].stem if named else "run"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, which exists."""

    path: Path
    is_resuming: bool = False  # whether it belongs to an earlier run, which resumes there
    made: tuple[Path, ...] = ()  # the folders created for it, from itself upwards

    def discard(self) -> None:
        """Removes the folder if it was created for this run, and parents created with it if they are empty."""
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)
        for folder in self.made[1:]:
            with suppress(OSError):  # fails for folders with content, which are kept
                folder.rmdir()


def new_run_folder(runs_dir: str, name: str) -> RunFolder:
    """Creates a unique folder for a new run, `<runs_dir>/<name>/<time>`."""
    folder = Path(runs_dir) / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    missing = [above for above in folder.parents if not os.path.lexists(above)]
    for attempt in count(1):
        chosen = folder if attempt == 1 else folder.with_name(f"{folder.name}_{attempt}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            chosen.mkdir()  # succeeds for only one of several concurrent runs
        except OSError as error:
            is_taken = isinstance(error, FileExistsError) and folder.parent.is_dir()
            # Another run that failed may have removed its folders in the meantime.
            may_be_gone = isinstance(error, (FileExistsError, FileNotFoundError)) and attempt < 100
            if not (is_taken or may_be_gone):
                raise unwritable(chosen, f"which cannot be created ({error.strerror})") from error
        else:
            return RunFolder(chosen, made=(chosen, *missing))
    raise AssertionError


def resolve_run_dir(checkpoint: str | None, runs_dir: str, name: str) -> RunFolder:
    """The folder of a run: that of the earlier run that it resumes, or a new one.

    Only the first process may call this; the others get the folder from the Trainer (`callbacks/shared.py`).
    """
    old = run_dir_of_checkpoint(checkpoint, runs_dir, name)
    check_writable(old or Path(runs_dir) / name)
    return RunFolder(old, is_resuming=True) if old else new_run_folder(runs_dir, name)


def newest_checkpoint(runs_dir: str, name: str) -> Path | None:
    """The most recent `last.ckpt` of all runs with a name, if there is one."""
    checkpoints = Path(runs_dir, name).glob("*/checkpoints/last.ckpt")
    return max(checkpoints, key=lambda file: file.stat().st_mtime, default=None)


def run_dir_of_checkpoint(checkpoint: str | None, runs_dir: str, name: str) -> Path | None:
    """The folder of the run that a checkpoint is the last of; None for other runs or earlier checkpoints."""
    if checkpoint is None or Path(checkpoint).name != "last.ckpt":
        return None
    checkpoints = Path(checkpoint).resolve().parent
    is_ours = checkpoints.name == "checkpoints" and checkpoints.parents[1] == Path(runs_dir, name).resolve()
    return Path(runs_dir, name, checkpoints.parent.name) if is_ours else None


def report_folder(checkpoint: Path) -> Path:
    """The default folder of the report that `test` writes for a checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}-report")


def newest_config(folder: Path) -> Path | None:
    """The config of a run, that of its last resumption if it was resumed; None for a run without the command line."""
    return max(folder.glob("config*.yaml"), key=lambda file: file.stat().st_mtime, default=None)


def resume_command(folder: Path | None, checkpoint: str | Path) -> str:
    """The command that resumes a run from a checkpoint."""
    config = newest_config(folder) if folder else None
    options = f"--config {shlex.quote(str(config))}" if config else "(with the same options)"
    return f"python -m lightning_cgan fit {options} --ckpt_path {shlex.quote(str(checkpoint))}"
