"""Read and write `.npz` files of arrays."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any, cast
from zipfile import is_zipfile

import numpy as np


def load_arrays(file: str | Path, names: Container[str]) -> dict[str, np.ndarray | None]:
    """The arrays of some names in an `.npz` file, and None for the others, which are not read.

    A file that is damaged, or another one, raises any exception.
    """
    if not is_zipfile(file):
        raise ValueError("another kind of file")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] if name in names else None for name in arrays}


def save_arrays(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Writes arrays to an `.npz` file of any name."""
    with file.open("wb") as stream:  # given a path, NumPy would add a suffix
        np.savez_compressed(stream, **cast("dict[str, Any]", arrays))
