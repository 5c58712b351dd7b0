"""Images that stay in their files until they are needed."""

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

from lightning_cgan.core.errors import UsageError
from lightning_cgan.data.bit_depth import upper_bits

_MODES = {1: "L", 3: "RGB"}
_GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


class ImageFiles(Dataset[Tensor]):
    """Image files as square pixels of one size: the shorter side is resized, the longer one cut at both ends.

    Photos are turned upright as their EXIF data say, and what is transparent shows the colour that lies under it.

    Args:
        paths: The files, in any format that Pillow decodes.
        channels: 1 for gray, 3 for colour; files are turned to it.
        size: Height and width, in pixels.
        workers: The number of processes that decode ahead of time; with none, this one does.
        bits: How many bits are in use in images that have 16, of which the upper 8 are kept.
    """

    def __init__(
        self, paths: Sequence[str | Path] | np.ndarray, channels: int, size: int, workers: int, bits: int = 16
    ) -> None:
        self.paths = np.asarray(paths, dtype=str)  # one object, which forked workers share
        self.channels = channels
        self.size = size
        self.workers = workers
        self.bits = bits

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decodes one image, shape (C, H, W), uint8.

        Raises:
            UsageError: The file is missing or broken.
        """
        path = str(self.paths[index])
        try:
            pixels = _decoded(path, self.channels, self.size, self.bits)
        except Exception as error:  # a broken file fails in many ways
            raise unreadable(path, error) from error
        return squared(pixels, self.size)

    @property
    def nbytes(self) -> int:
        """The memory that all images would take."""
        return len(self) * self.channels * self.size**2

    @cached_property
    def sha256(self) -> str:
        """Of the contents of all files, in their order, and the bits in use; read once.

        Raises:
            UsageError: A file is missing or cannot be read.
        """
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
        """Some of the files, as a tensor of pixels would be indexed."""
        return ImageFiles(self.paths[chosen.numpy()], self.channels, self.size, self.workers, self.bits)

    def are_readable(self) -> Tensor:
        """Decodes all images, and says which can be, shape (N,)."""
        loader = DataLoader(_Readable(self), batch_size=64, num_workers=self.workers, generator=torch.Generator())
        return torch.cat(list(loader))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decodes batches of the images at these places, shape (N, C, H, W), ahead of their time."""
        loader = DataLoader(
            self,
            batch_sampler=cast("Iterable[list[int]]", (chosen.tolist() for chosen in indices)),
            num_workers=self.workers,
            collate_fn=self._stacked,
            generator=torch.Generator(),  # not the global one, which a run's dropout draws from
        )
        try:
            yield from loader
        except UsageError as error:  # from a worker with the whole of its traceback
            raise UsageError(str(error).rpartition("UsageError: ")[2]) from None

    def _stacked(self, images: list[Tensor]) -> Tensor:
        """A batch of images, which has none where the last batch of a run is too small for all processes."""
        return torch.stack(images) if images else torch.empty(0, self.channels, self.size, self.size).byte()

    def load(self) -> Tensor:
        """Decodes all images, shape (N, C, H, W)."""
        pixels = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        indices = torch.arange(len(self)).split(256)
        for chosen, batch in zip(indices, self.batches(indices), strict=True):
            pixels[chosen] = batch
        return pixels


class _Readable(Dataset[bool]):
    """Whether each of the files can be decoded."""

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


def _decoded(path: str, channels: int, size: int, bits: int) -> Tensor:
    """The pixels of a file, shape (C, H, W), uint8; those of a large photo with no less than twice the size wanted."""
    with Image.open(path) as opened:
        opened.draft(_MODES[channels], (2 * size, 2 * size))  # a JPEG file is decoded to a smaller image in less time
        opened.info.pop("transparency", None)
        ImageOps.exif_transpose(opened, in_place=True)
        image: Image.Image = opened
        if image.mode == "F":
            raise ValueError("floating-point pixels, of a range that nobody knows: write whole numbers")
        if image.mode.startswith("I"):  # Pillow would cut off what is above 255
            image = Image.fromarray(upper_bits(image, bits))
        image = image if image.mode == _MODES[channels] else image.convert(_MODES[channels])
        return cast(Tensor, pil_to_tensor(image))


def squared(pixels: Tensor, size: int) -> Tensor:
    """Resizes the shorter side of images, shape (…, H, W), and cuts the longer one at both ends."""
    return cast(Tensor, center_crop(resize(pixels, [size], antialias=True), [size, size]))


def unreadable(path: str, error: Exception) -> UsageError:
    """What is said of a file that cannot be decoded, and why."""
    return UsageError(
        f"--data.data_dir: expected images, got {_on_one_line(path)}, which cannot be read ({_reason(error)}); mend it "
        "or take it away, or leave out such files with --data.corrupt skip"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, the limit of Pillow: make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "no kind of image that Pillow knows"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:120] or type(error).__name__


def _on_one_line(path: str) -> str:
    return path if path.isprintable() else repr(path)


def common_format(paths: Iterable[str], size: int | None, channels: int | None, skip_broken: bool) -> tuple[int, int]:
    """Finds out what images have in common, from the headers of their files.

    Args:
        paths: The files.
        size: Height and width, if they are known already.
        channels: The number of channels, if it is known already.
        skip_broken: Whether files without a readable header are passed over.

    Returns:
        Height and width, which are the same, and 1 for gray or 3 for colour.

    Raises:
        UsageError: A file has no readable header, or the images are not square or not of one size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    are_gray = True
    for path, found, is_gray in _headers(paths, skip_broken):
        are_gray = are_gray and is_gray
        first = first or (path, found)
        if size is None:
            check_square(_on_one_line(path), *found)
            if found != first[1]:
                smallest = min(*first[1], *found)
                one, other = map(_on_one_line, (first[0], path))
                raise UsageError(
                    f"--data.image_size: expected images of one size, got {one} of {_by(*first[1])} and {other} of "
                    f"{_by(*found)} pixels; give the size that all are brought to, as --data.image_size {smallest}"
                )
    if first is None:
        raise UsageError("--data.data_dir: expected images, got no file that can be read; mend them")
    return size or first[1][0], channels or (1 if are_gray else 3)


def check_square(what: str, width: int, height: int) -> None:
    """Refuses images that are not square, where no size is given that they are brought to.

    Raises:
        UsageError: They are not.
    """
    if width != height:
        raise UsageError(
            f"--data.image_size: expected square images, got {what} of {_by(width, height)} pixels; give the size that "
            f"all are brought to, cut at both ends, as --data.image_size {min(width, height)}"
        )


def _headers(paths: Iterable[str], skip_broken: bool) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """The path, the width and height of images, and whether they are gray; nothing is decoded."""
    for path in paths:
        try:
            with Image.open(path) as image:
                found = path, image.size, image.mode in _GRAY
        except Exception as error:  # a broken file fails in many ways
            if skip_broken:
                continue
            raise unreadable(path, error) from error
        yield found


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"
