"""Write files and folders atomically: complete or not at all, even if the process or the machine is stopped."""

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
    """Where Judges and their scores of real images are cached: $LIGHTNING_CGAN_CACHE, else the user's cache.

    A Judge is the reference classifier of a data set. The user's cache is `lightning_cgan` in $XDG_CACHE_HOME or
    `~/.cache`; for a user without a home, as in a container, it is in the folder for temporary files.
    """
    if chosen := os.environ.get("LIGHTNING_CGAN_CACHE"):
        return Path(os.path.expanduser(chosen))
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "lightning_cgan"
    home = os.path.expanduser("~")
    return Path(tempfile.gettempdir() if home == "~" else f"{home}/.cache") / "lightning_cgan"


def write_to_cache(file: Path, content: bytes) -> None:
    """Writes a file in `cache_folder()` atomically; if that fails, it only warns."""
    try:
        write_atomic(file, lambda unfinished: unfinished.write_bytes(content))
    except OSError as error:
        warnings.warn(
            f"{file} was not written: {error}. Its content is computed again next time; set LIGHTNING_CGAN_CACHE to a "
            "folder that can be written to",
            stacklevel=2,
        )


def write_atomic(file: Path, write: Callable[[Path], object], keep_backup: bool = False, sync: bool = True) -> None:
    """Writes a file under a temporary name in its own folder, which is created, and renames it once it is complete.

    A rename within one folder is atomic; a move from a folder for temporary files is not, since that may be on another
    disk. With `sync`, file and folder are synced; otherwise a power failure may keep the new name without the content.
    With `keep_backup`, the previous content stays as `backup_path(file)`. An OSError leaves the file unchanged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _temporary(file)
    try:
        write(unfinished)
        if sync:
            _sync(unfinished)
        if keep_backup and file.exists():
            _back_up(file)
        unfinished.replace(file)
        if sync:
            _sync(file.parent)
    finally:
        with suppress(OSError):  # a folder that has become read-only
            unfinished.unlink(missing_ok=True)


def write_atomic_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder under a temporary name, and renames it once it is complete; previous content is then removed.

    An OSError leaves the folder unchanged.
    """
    unfinished, old = _temporary(folder), _temporary(backup_path(folder))
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
    """Where the previous content of a file is stored."""
    return file.with_name(f"{file.name}.previous")


def remove_unfinished(folder: Path) -> None:
    """Removes leftovers of killed processes from a folder that only one process writes to."""
    for leftover in folder.glob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            leftover.unlink()


def _temporary(path: Path) -> Path:
    """A unique temporary name in the same folder: processes in two containers may share it and have the same id."""
    return path.with_name(f".{secrets.token_hex(4)}-{path.name}{_UNFINISHED}")


def _back_up(file: Path) -> None:
    unfinished = _temporary(backup_path(file))
    try:
        os.link(file, unfinished)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, unfinished)
        _sync(unfinished)
    unfinished.replace(backup_path(file))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot sync folders
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
