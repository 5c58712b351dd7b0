"""What is kept on disk: written whole, or not at all, whatever kills the process or the machine meanwhile."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_UNFINISHED = ".unfinished"


def cache_folder() -> Path:
    """Where judges and ceilings are kept: $LIGHTNING_CGAN_CACHE, else `lightning_cgan` in the user's cache.

    A user without a home, as in a container, has none: then it is a folder for temporary files.
    """
    if chosen := os.environ.get("LIGHTNING_CGAN_CACHE"):
        return Path(os.path.expanduser(chosen))
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "lightning_cgan"
    home = os.path.expanduser("~")
    return Path(tempfile.gettempdir() if home == "~" else f"{home}/.cache") / "lightning_cgan"


def write_to_cache(file: Path, content: bytes) -> None:
    """Writes a file of the cache, whole; where that is not possible, a warning says so, and nothing depends on it.

    Args:
        file: The file, in `cache_folder()`.
        content: What it is to hold.
    """
    try:
        write_atomic(file, lambda unfinished: unfinished.write_bytes(content))
    except OSError as error:
        warnings.warn(
            f"{file} was not written: {error}. What it would keep is made anew next time; set LIGHTNING_CGAN_CACHE to "
            "a folder that can be written to",
            stacklevel=2,
        )


def write_atomic(file: Path, write: Callable[[Path], object], keep_backup: bool = False, sync: bool = True) -> None:
    """Lets somebody write a file under another name in its folder, and renames it once it is safely on the disk.

    A rename within one folder either happens or does not, which a move from a folder for temporary files does not
    promise: that may lie on another disk. Content and folder are synced, since a machine that loses its power may
    otherwise keep the new name without the content.

    Args:
        file: The file; its folder is made.
        write: Writes to the path that it is given.
        keep_backup: Whether what the file held before stays, as `backup_path(file)`.
        sync: Whether a machine that loses its power keeps it, too: many small files can do without.

    Raises:
        OSError: The disk is full, or the folder may not be written to. The file is as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(file)
    try:
        write(unfinished)
        if sync:
            _sync(unfinished)
        if keep_backup and file.exists():
            _keep(file)
        unfinished.replace(file)
        if sync:
            _sync(file.parent)
    finally:
        with suppress(OSError):  # a folder that has become read-only
            unfinished.unlink(missing_ok=True)


def write_atomic_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Lets somebody write a folder under another name beside it, and renames it once it is complete.

    Args:
        folder: The folder; what it held is removed then.
        write: Writes into the folder that it is given.

    Raises:
        OSError: The disk is full, or the place may not be written to. The folder is as it was.
    """
    unfinished, old = _beside(folder), _beside(backup_path(folder))
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        if folder.exists():
            folder.replace(old)
        try:
            unfinished.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def backup_path(file: Path) -> Path:
    """Where the content that a file had before is kept."""
    return file.with_name(f"{file.name}.previous")


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes have left in a folder to which one process alone writes."""
    for leftover in folder.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            leftover.unlink()


def _beside(path: Path) -> Path:
    """A name that nobody else uses: processes of two containers may share a folder, and have the same number."""
    return path.with_name(f".{secrets.token_hex(4)}-{path.name}{_UNFINISHED}")


def _keep(file: Path) -> None:
    spare = _beside(backup_path(file))
    try:
        os.link(file, spare)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, spare)
        _sync(spare)
    spare.replace(backup_path(file))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no such thing
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
