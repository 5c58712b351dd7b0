"""Image files that are decoded on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.data.bit_depth import upper_bits

_MODES = {1: "L", 3: "RGB"}
_GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


class ImageFiles(Dataset[Tensor]):
    """Image files as square pixels of one size: the shorter side is resized, the longer side centre-cropped.

    Photos are rotated according to their EXIF data. Transparency is ignored: transparent pixels show the colour stored
    for them.

    Args:
        paths: The files, in any format that Pillow decodes.
        channels: 1 for gray, 3 for colour; files are converted.
        size: Height and width, in pixels.
        workers: The number of processes that decode ahead of time; with 0, this process decodes.
        bits: The number of bits in use in 16-bit images; the upper 8 of these are kept.
    """

    def __init__(
        self, paths: Sequence[str | Path] | np.ndarray, channels: int, size: int, workers: int, bits: int = 16
    ) -> None:
        self.paths = np.asarray(paths, dtype=str)  # one array, which forked workers share
        self.channels = channels
        self.size = size
        self.workers = workers
        self.bits = bits

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decodes one image, shape (C, H, W), uint8; raises `UsageError` if the file is missing or damaged."""
        path = str(self.paths[index])
        try:
            pixels = decode(path, self.channels, self.size, self.bits)
        except Exception as error:  # a damaged file can raise any exception
            raise unreadable(path, error) from error
        return to_square(pixels, self.size)

    @property
    def nbytes(self) -> int:
        """The memory that all decoded images would take, in bytes."""
        return len(self) * self.channels * self.size**2

    @cached_property
    def sha256(self) -> str:
        """The hash of the contents of all files, in order, and of the bits in use; computed once."""
        contents = hashlib.sha256()
        for path in self.paths.tolist():
            try:
                contents.update(hashlib.sha256(Path(path).read_bytes()).digest())
            except OSError as error:
                raise unreadable(path, error) from error
        if self.bits != 16:
            contents.update(f"{self.bits} bits".encode())
        return contents.hexdigest()

    def index_select(self, _: int, chosen: Tensor) -> ImageFiles:
        """A selection of the files, with the signature of `Tensor.index_select`."""
        return ImageFiles(self.paths[chosen.numpy()], self.channels, self.size, self.workers, self.bits)

    def are_readable(self) -> Tensor:
        """Decodes all images, and returns whether each can be decoded, shape (N,)."""
        loader = DataLoader(_Readable(self), batch_size=64, num_workers=self.workers, generator=torch.Generator())
        return torch.cat(list(loader))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decodes batches of the images at these indices, shape (N, C, H, W), ahead of time."""
        loader = DataLoader(
            self,
            batch_sampler=cast("Iterable[list[int]]", (chosen.tolist() for chosen in indices)),
            num_workers=self.workers,
            collate_fn=self._stack,
            generator=torch.Generator(),  # not the global one, which dropout samples from
        )
        fault = ""
        try:
            yield from loader
        except UsageError as error:  # a worker's message contains its whole traceback
            fault = str(error).rpartition("UsageError: ")[2]
            # Its frames refer to it and to the loader: the workers would go on until this cycle is collected.
            error.__traceback__ = None
        if fault:
            raise UsageError(fault)

    def _stack(self, images: list[Tensor]) -> Tensor:
        """Stacks a batch; it is empty if the last batch of a run is too small to give this process an image."""
        return torch.stack(images) if images else torch.empty(0, self.channels, self.size, self.size).byte()

    def load(self) -> Tensor:
        """Decodes all images, shape (N, C, H, W)."""
        pixels = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        indices = torch.arange(len(self)).split(256)
        for chosen, batch in zip(indices, self.batches(indices), strict=True):
            pixels[chosen] = batch
        return pixels


class _Readable(Dataset[bool]):
    """Whether each file can be decoded."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> bool:
        try:
            self.files[index]
        except UsageError:
            return False
        return True


def decode(path: str, channels: int, size: int, bits: int) -> Tensor:
    """The pixels of a file, shape (C, H, W), uint8; a large JPEG is reduced while decoding, to 2 * `size` or more."""
    with Image.open(path) as opened:
        opened.draft(_MODES[channels], (2 * size, 2 * size))  # JPEG decodes faster at a reduced size
        opened.info.pop("transparency", None)
        ImageOps.exif_transpose(opened, in_place=True)
        image: Image.Image = opened
        if image.mode == "F":
            raise ValueError("floating-point pixels, whose range is unknown: save whole numbers")
        if image.mode.startswith("I"):  # Pillow would clip values above 255
            image = Image.fromarray(upper_bits(image, bits))
        return pixels_of(image, channels)


def pixels_of(image: Image.Image, channels: int) -> Tensor:
    """The pixels of a picture of 8 bits, shape (C, H, W), uint8, converted to gray or colour."""
    return cast(Tensor, pil_to_tensor(image if image.mode == _MODES[channels] else image.convert(_MODES[channels])))


def to_square(pixels: Tensor, size: int) -> Tensor:
    """Resizes the shorter side of images, shape (…, H, W), and centre-crops the longer side."""
    return cast(Tensor, center_crop(resize(pixels, [size], antialias=True), [size, size]))


def unreadable(path: str, error: Exception) -> UsageError:
    """The error for a file that cannot be decoded, with the reason."""
    return UsageError(
        f"--data.data_dir: expected images, got {printable(path)}, which cannot be read ({reason_unread(error)}); fix "
        "or remove it, or skip such files with --data.corrupt skip"
    )


def reason_unread(error: Exception) -> str:
    """Why a file cannot be decoded, for a message."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, the limit of Pillow: make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "not an image format that Pillow knows"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:120] or type(error).__name__


def common_format(paths: Iterable[str], size: int | None, channels: int | None, skip_broken: bool) -> tuple[int, int]:
    """The size and the channels of images, from the headers of their files, unless given.

    Raises `UsageError` if a file has no readable header, or the images are not square or differ in size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    are_gray = True
    for path, found, is_gray in _headers(paths, skip_broken):
        are_gray = are_gray and is_gray
        first = first or (path, found)
        if size is None:
            check_square(printable(path), *found)
            if found != first[1]:
                smallest = min(*first[1], *found)
                one, other = map(printable, (first[0], path))
                raise UsageError(
                    f"--data.image_size: expected images of one size, got {one} of {_by(*first[1])} and {other} of "
                    f"{_by(*found)} pixels; give a size to resize them to, such as --data.image_size {smallest}"
                )
    if first is None:
        raise UsageError("--data.data_dir: expected images, got no file that can be read; fix the files")
    return size or first[1][0], channels or (1 if are_gray else 3)


def check_square(what: str, width: int, height: int) -> None:
    """Raises `UsageError` if images are not square, for data without a size to resize to."""
    if width != height:
        raise UsageError(
            f"--data.image_size: expected square images, got {what} of {_by(width, height)} pixels; give a size to "
            f"resize and crop them to, such as --data.image_size {min(width, height)}"
        )


def _headers(paths: Iterable[str], skip_broken: bool) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """The path and the (width, height) of each image, and whether it is gray; nothing is decoded."""
    for path in paths:
        try:
            with Image.open(path) as image:
                found = path, image.size, image.mode in _GRAY
        except Exception as error:  # a damaged file can raise any exception
            if skip_broken:
                continue
            raise unreadable(path, error) from error
        yield found


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"
