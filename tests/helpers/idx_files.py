"""Files in MNIST's own format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_idx(folder: Path, prefix: str, count: int, highest_label: int = 9) -> None:
    """Writes images and labels as unpacked IDX files (http://yann.lecun.com/exdb/mnist)."""
    chance = np.random.default_rng(count)
    folder.mkdir(parents=True, exist_ok=True)
    images = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % (highest_label + 1)
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">BBBBI", 0, 0, 8, 1, count)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
