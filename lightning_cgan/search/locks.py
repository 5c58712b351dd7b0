"""Locks on files, which the operating system releases when the last process that holds them ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightning_cgan.core.errors import UsageError


def check_platform() -> None:
    """Raises `UsageError` where there are no locks that a process leaves to its children."""
    if sys.platform == "win32":
        raise UsageError("search: expected Linux or macOS, got Windows; run it in the Windows Subsystem for Linux")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds the lock of a file, and waits for it where another process holds it."""
    with file.open("a+", encoding="utf-8") as opened:
        _lock(opened, waits=True)
        yield


def try_lock(file: Path) -> IO[str] | None:
    """Opens and locks a file; None if another process holds its lock. Closing the file releases it."""
    opened = file.open("a+", encoding="utf-8")
    try:
        _lock(opened, waits=False)
    except OSError:
        opened.close()
        return None
    return opened


def _lock(opened: IO[str], waits: bool) -> None:
    import fcntl  # not on Windows

    fcntl.flock(opened, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
