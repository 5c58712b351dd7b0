"""Checkpoint files that are written atomically, and loaded without running code."""

from __future__ import annotations

import pickle
import traceback
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.core.files import backup_path, remove_unfinished, write_atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, keeps the previous one as a backup, and validates them before loading.

    Lightning's own plugin writes to the folder for temporary files first: if that is on another disk, a killed process
    leaves truncated files. The command line uses this plugin; pass it to a custom Trainer as a plugin.

    If a checkpoint cannot be written, because the disk is full, the folder has become read-only or weights are NaN, a
    warning is issued and the run continues. The last good file is kept, and nothing else is removed until a write
    succeeds. Files that are not on local disks (`s3://…`) are left to Lightning.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False)
        >>> isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
        True
    """

    def __init__(self) -> None:
        self._last_write_failed = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; a file that it replaces is kept as `….previous`."""
        if _is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        lost = next((name for name, value in checkpoint.get("state_dict", {}).items() if _has_nan(value)), None)
        if lost is not None:
            self._warn(file, f"{lost} holds NaN")
            return
        buffer = BytesIO()  # in memory first: PyTorch's file writer hides the cause of errors
        torch.save(checkpoint, buffer)
        try:
            remove_unfinished(file.parent)
            write_atomic(file, lambda unfinished: unfinished.write_bytes(buffer.getbuffer()), keep_backup=True)
        except OSError as error:
            self._warn(file, str(error))
        else:
            self._last_write_failed = False

    def _warn(self, file: Path, reason: str) -> None:
        self._last_write_failed = True
        rank_zero_warn(f"The checkpoint {file} was not written: {reason}. Training continues; the last good one stays")

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads a checkpoint, or its backup if the file is damaged. `weights_only` has no effect: it is always true.

        Raises:
            UsageError: The file is missing, damaged or not written by PyTorch, and so is its backup; or it would run
                code.
        """
        if _is_remote(path):
            return dict(super().load_checkpoint(path, map_location, weights_only=True))
        file = Path(path)
        previous = backup_path(file)
        try:
            return _read(file, map_location)
        except _DamageError as damage:
            try:
                loaded = _read(previous, map_location)
            except _DamageError:
                raise UsageError(
                    f"--ckpt_path: expected a complete checkpoint, got {file}, which {damage}; name another"
                ) from damage
            rank_zero_warn(printable(f"{file} {damage}; loaded its backup, {previous}"))
            return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint and its backup; nothing if the last write failed."""
        if self._last_write_failed:
            return
        super().remove_checkpoint(path)
        if not _is_remote(path):
            backup_path(Path(path)).unlink(missing_ok=True)


def fails_to_restore(error: BaseException) -> bool:
    """Whether an error was raised while Lightning loaded a checkpoint, so that the file is probably the cause."""
    for frame in traceback.extract_tb(error.__traceback__):
        name = frame.name.lstrip("_")
        restores = "checkpoint_connector" in frame.filename and name.startswith(("resume", "restore"))
        if restores or name == "load_combined_loader_states":
            return True
    return False


class _DamageError(Exception):
    """The fault of a file, as the end of a sentence that begins with its name."""


def _read(file: Path, map_location: Any) -> dict[str, Any]:
    """Reads a zip archive that PyTorch wrote, and verifies its checksums, which PyTorch does not."""
    try:
        with zipfile.ZipFile(file) as archive:
            torn = archive.testzip()
        loaded = None if torn else torch.load(file, map_location, weights_only=True)
    except FileNotFoundError as error:
        raise _DamageError("does not exist") from error
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0] or "it holds more than weights"
        raise UsageError(
            f"--ckpt_path: expected a checkpoint of plain weights, got {file}, which would run code ({reason}); "
            "it was not loaded; name another"
        ) from error
    except Exception as error:  # a damaged file can raise any exception
        reason = str(error).partition("\n")[0]
        raise _DamageError(f"is damaged or not a checkpoint ({reason})") from error
    if torn:
        raise _DamageError(f"is damaged (in {torn})")
    if not isinstance(loaded, dict):
        got = f"a {type(loaded).__name__} in {file}"
        raise UsageError(f"--ckpt_path: expected a checkpoint of Lightning, got {got}; name another")
    return loaded


def _has_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
