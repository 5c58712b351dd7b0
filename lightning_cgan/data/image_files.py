"""Image files that are decoded on demand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.core.images import (
    MOST_CHANNELS,
    BitDepth,
    ImageSize,
    height_and_width,
    image_shape_of,
    image_size_of,
    pixels_from_array,
)
from lightning_cgan.data.bit_depth import GRAY, all_bits, count_gray_pages, upper_bits

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_WITH_TRANSPARENCY = (2, 4)
_ORIENTATION, _ON_ITS_SIDE = 0x112, (5, 6, 7, 8)  # of EXIF


class ImageFiles(Dataset[Tensor]):
    """Image files as pixels of one size, to which they are resized and centre-cropped.

    Photos are rotated according to their EXIF data. Without a channel for it, transparency is ignored: transparent
    pixels show the colour stored for them.

    Args:
        paths: The files, in any format that Pillow decodes.
        channels: 1 for gray, 2 for gray and transparency, 3 for colour, 4 for colour and transparency; files are
            converted. A TIFF file with as many gray pages, more than one, has a channel on each instead.
        size: The size of all images, in pixels.
        workers: The number of processes that decode ahead of time; with 0, this process decodes.
        bits: The number of bits in use in 16-bit images.
        bit_depth: How many bits are kept: the upper 8 of those in use, or all.
    """

    def __init__(
        self,
        paths: Sequence[str | Path] | np.ndarray,
        channels: int,
        size: ImageSize,
        workers: int,
        bits: int = 16,
        bit_depth: BitDepth = 8,
    ) -> None:
        self.paths = np.asarray(paths, dtype=str)  # one array, which forked workers share
        self.channels = channels
        self.size = size
        self.workers = workers
        self.bits = bits
        self.bit_depth: BitDepth = bit_depth

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decodes one image, shape (C, H, W); raises `UsageError` if the file is missing or damaged."""
        path = str(self.paths[index])
        try:
            pixels = decode(path, self.channels, self.size, self.bits, self.bit_depth)
        except Exception as error:  # a damaged file can raise any exception
            raise unreadable(path, error) from error
        return to_size(pixels, self.size)

    @property
    def nbytes(self) -> int:
        """The memory that all decoded images would take, in bytes."""
        return len(self) * math.prod(self._shape) * self.bit_depth // 8

    @property
    def _shape(self) -> tuple[int, int, int]:
        return image_shape_of(self.channels, self.size)

    @cached_property
    def sha256(self) -> str:
        """The hash of the contents of all files, in order, and of the bits in use and kept; computed once."""
        contents = hashlib.sha256()
        for path in self.paths.tolist():
            try:
                contents.update(hashlib.sha256(Path(path).read_bytes()).digest())
            except OSError as error:
                raise unreadable(path, error) from error
        if self.bits != 16:
            contents.update(f"{self.bits} bits".encode())
        if self.bit_depth != 8:
            contents.update(f"{self.bit_depth} kept".encode())
        return contents.hexdigest()

    def index_select(self, _: int, chosen: Tensor) -> ImageFiles:
        """A selection of the files, with the signature of `Tensor.index_select`."""
        paths = self.paths[chosen.numpy()]
        return ImageFiles(paths, self.channels, self.size, self.workers, self.bits, self.bit_depth)

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
        return torch.stack(images) if images else self._empty(0)

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, *self._shape, dtype=torch.uint8 if self.bit_depth == 8 else torch.int16)

    def load(self) -> Tensor:
        """Decodes all images, shape (N, C, H, W)."""
        pixels = self._empty(len(self))
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


def decode(path: str, channels: int, size: ImageSize, bits: int, bit_depth: BitDepth) -> Tensor:
    """The pixels of a file, shape (C, H, W); a large JPEG is reduced while decoding, to 2 * `size` or more."""
    # Given a path, Pillow maps uncompressed TIFF files into memory, and reads turned ones with the wrong width.
    with open(path, "rb") as file, Image.open(file) as opened:
        if channels > 1 and count_gray_pages(opened) == channels:
            return torch.cat([_converted(page, 1, bits, bit_depth) for page in ImageSequence.Iterator(opened)])
        if channels not in _MODES:
            got = f"{_channels_of(opened)} of {channels} channels"
            raise ValueError(f"{got}: save a TIFF file with a gray page for each")
        longer = 2 * max(height_and_width(size))  # before a photo is turned
        opened.draft(_MODES[channels], (longer, longer))  # JPEG decodes faster at a reduced size
        return _converted(opened, channels, bits, bit_depth)


def _converted(image: Image.Image, channels: int, bits: int, bit_depth: BitDepth) -> Tensor:
    """The pixels of an opened picture, shape (C, H, W)."""
    if channels not in _WITH_TRANSPARENCY:
        image.info.pop("transparency", None)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown: save whole numbers")
    if image.mode.startswith("I"):  # Pillow would clip values above 255
        if bit_depth == 16 and channels == 1:
            return pixels_from_array(all_bits(np.asarray(image), bits))[None]
        image = Image.fromarray(upper_bits(np.asarray(image), bits))
    pixels = pixels_of(image, channels)
    return pixels if bit_depth == 8 else pixels_from_array(all_bits(pixels.numpy(), 8))


def pixels_of(image: Image.Image, channels: int) -> Tensor:
    """The pixels of a picture of 8 bits, shape (C, H, W), uint8, converted to gray or colour."""
    return cast(Tensor, pil_to_tensor(image if image.mode == _MODES[channels] else image.convert(_MODES[channels])))


def to_size(pixels: Tensor, size: ImageSize) -> Tensor:
    """Resizes images, shape (…, H, W), so that they cover a size, and cuts off what is left over, at both ends."""
    height, width = height_and_width(size)
    high, wide = pixels.shape[-2:]
    if (high, wide) == (height, width):
        return pixels
    covering = (height, height * wide // high) if height * wide >= width * high else (width * high // wide, width)
    if pixels.dtype == torch.uint8:
        resized = resize(pixels, list(covering), antialias=True)
    else:
        resized = resize(pixels.float(), list(covering), antialias=True).round_().to(pixels.dtype)
    return cast(Tensor, center_crop(resized, [height, width]))


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


def common_format(
    paths: Iterable[str], size: ImageSize | None, channels: int | None, skip_broken: bool
) -> tuple[ImageSize, int]:
    """The size and the channels of images, from the headers of their files, unless given.

    Raises `UsageError` if a file has no readable header, or the images differ in size or have no common channels.
    """
    first: tuple[str, tuple[int, int]] | None = None
    files_with: dict[int, str] = {}  # one for each number of channels
    for path, found, own_channels in _headers(paths, skip_broken):
        files_with.setdefault(own_channels, path)
        first = first or (path, found)
        if size is None and found != first[1]:
            smallest = min(*first[1], *found)
            one, other = map(printable, (first[0], path))
            raise UsageError(
                f"--data.image_size: expected images of one size, got {one} of {_by(*first[1])} and {other} of "
                f"{_by(*found)} pixels; give a size to resize them to, such as --data.image_size {smallest}"
            )
    if first is None:
        raise UsageError("--data.data_dir: expected images, got no file that can be read; fix the files")
    width, height = first[1]
    return size or image_size_of(height, width), channels or _common_channels(files_with)


def _common_channels(files_with: dict[int, str]) -> int:
    """The channels of files with these numbers of them; gray ones among coloured ones are converted."""
    most = max(files_with)
    if most > MOST_CHANNELS:
        raise UsageError(
            f"--data.image_channels: expected at most {MOST_CHANNELS}, got {printable(files_with[most])} with {most} "
            "gray pages; to read the first page of each file, give --data.image_channels 1"
        )
    if len(files_with) > 1 and not files_with.keys() <= {1, 3}:
        (some, one), (others, other) = sorted(files_with.items())[:2]
        raise UsageError(
            f"--data.image_channels: expected images with the same channels, got {printable(one)} with {some} and "
            f"{printable(other)} with {others}; convert one of them, or give --data.image_channels 1 for all"
        )
    return most


def _headers(paths: Iterable[str], skip_broken: bool) -> Iterator[tuple[str, tuple[int, int], int]]:
    """The path, the (width, height) and the channels of each image; nothing is decoded."""
    for path in paths:
        try:
            with Image.open(path) as image:
                found = path, _upright_size(image), _channels_of(image)
        except Exception as error:  # a damaged file can raise any exception
            if skip_broken:
                continue
            raise unreadable(path, error) from error
        yield found


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """The (width, height) of a photo when it is turned as its EXIF data say."""
    # Pillow has turned the size of a TIFF file already, and would decode a PNG file to look for EXIF data at its end.
    is_known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    turned = is_known and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    return (image.height, image.width) if turned else image.size


def _channels_of(image: Image.Image) -> int:
    """The number of gray pages of a TIFF file, else 1 for gray and 3 for colour."""
    return count_gray_pages(image) if image.mode in GRAY else 3


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"
