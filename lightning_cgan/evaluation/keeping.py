"""What is kept on disk between runs: written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Where judges and ceilings are kept: $LIGHTNING_CGAN_CACHE, else `lightning_cgan` in the user's cache."""
    chosen = os.environ.get("LIGHTNING_CGAN_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(home) / "lightning_cgan"


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Lets somebody write a file under another name first, so that a killed process leaves the old one, or none.

    Args:
        file: The file; its folder is made.
        write: Writes to the path that it is given.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        write(unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
