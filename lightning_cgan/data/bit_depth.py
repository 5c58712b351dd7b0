"""16-bit images: find how many of their bits are in use, and scale these to 8 or to 16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageSequence
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from lightning_cgan.core.errors import UsageError

_BITS = (8, 10, 12, 14, 16)  # that cameras and microscopes store in 16
_HIGHEST = 2**16 - 1
GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")  # modes of Pillow


def upper_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """The upper 8 of the bits in use, uint8; refuses values that 16 bits cannot hold."""
    return (_checked(values) >> (bits - 8)).clip(0, 255).astype(np.uint8)


def all_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """All bits in use, scaled to 16, uint16, so that the highest value becomes white.

    The highest bits are repeated below the lowest, which keeps values apart; `>> (16 - bits)` gets them back.
    """
    values = _checked(values).clip(0, min(2**bits - 1, np.iinfo(values.dtype).max)).astype(np.uint16, copy=False)
    return values << (16 - bits) | values >> (2 * bits - 16)


def bits_for(highest: int) -> int:
    """The smallest bit depth that holds this value: 8, 10, 12, 14 or 16."""
    return next(bits for bits in _BITS if highest < 2**bits)


def brightest(paths: list[str], channels: int, workers: int) -> tuple[int, bool]:
    """The highest value in the 16-bit images, -1 if there are none, and whether all images are gray and of 16 bits.

    Refuses colours of 16 bits that use fewer.
    """
    loader = DataLoader(
        _Highest(paths, channels), batch_size=64, num_workers=workers, generator=Generator(), collate_fn=list
    )
    found = [result for batch in loader for result in batch]
    highest = max((value for value, _ in found), default=-1)
    coloured = [path for path, (_, is_colour) in zip(paths, found, strict=True) if is_colour]
    if coloured and 0 <= highest < 2 ** _BITS[-2]:
        raise UsageError(
            f"--data.data_dir: expected colours of 8 bits, or of 16 that are all in use, got {coloured[0]!r} with "
            f"values up to {highest:,} in 16 bits, of which Pillow reads the upper 8; save such files with 8 bits"
        )
    return highest, all(value >= 0 and not is_colour for value, is_colour in found)


class _Highest(Dataset["tuple[int, bool]"]):
    """The highest value of each file, -1 if it has 8 bits or cannot be read; and whether it is in colour."""

    def __init__(self, paths: list[str], channels: int) -> None:
        self.paths = paths
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, bool]:
        try:
            if _has_8_bits(self.paths[index]):
                return -1, False
            with Image.open(self.paths[index]) as image:
                if image.mode.startswith("I"):
                    return max(int(_checked(np.asarray(page)).max()) for page in self._pages(image)), False
                # Pillow has already dropped the lower 8 bits; assume that they were all set.
                return (int(np.asarray(image).max()) * 256 + 255, True) if _is_reduced(image) else (-1, False)
        except Exception:  # reported when the file is decoded
            return -1, False

    def _pages(self, image: Image.Image) -> Iterator[Image.Image]:
        """The pages that are channels; each is valid until the next."""
        are_channels = self.channels > 1 and count_gray_pages(image) == self.channels
        return ImageSequence.Iterator(image) if are_channels else iter([image])


def count_gray_pages(image: Image.Image) -> int:
    """The number of pages of a TIFF file if all are gray and of one size; 1 for another file, as with a preview."""
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    pages = {(page.size, page.mode in GRAY) for page in ImageSequence.Iterator(image)} if count > 1 else set()
    image.seek(0)
    return count if pages == {(image.size, True)} else 1


def _has_8_bits(path: str) -> bool:
    """Whether the first bytes of a file already show that it has 8 bits: all JPEG files, and most PNG files."""
    with open(path, "rb") as file:
        start = file.read(25)
    return start.startswith(b"\xff\xd8") or (start.startswith(b"\x89PNG") and start[24:] != b"\x10")


def _is_reduced(image: Image.Image) -> bool:
    """Whether Pillow keeps only the upper 8 of 16 bits, as it does for colour images."""
    return any(";16" in str(tile[3]) or str(_HIGHEST) in str(tile[3]) for tile in getattr(image, "tile", ()))


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > _HIGHEST:
        raise ValueError(f"values from {pixels.min():,} to {pixels.max():,}, which 16 bits cannot hold")
    return pixels
