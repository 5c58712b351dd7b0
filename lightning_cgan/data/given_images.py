"""Read single images that a user names: files, folders of files, and arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_cgan.core.errors import UsageError, printable, reason_of
from lightning_cgan.core.images import ImageSize, signed_from_pixels
from lightning_cgan.core.npz import load_arrays
from lightning_cgan.data.arrays import checked_pixels
from lightning_cgan.data.bit_depth import bits_for, brightest
from lightning_cgan.data.image_files import decode, pixels_of, reason_unread, to_size
from lightning_cgan.data.listing import ENDINGS, counted, images_in

Label = str | int  # the name of a class or its number


@dataclass(frozen=True)
class GivenImages:
    """Images of one size.

    Attributes:
        names: The path of each file; of an image in an array, the path with its place, such as `images.npz[7]`.
        images: Shape (N, C, H, W), in [-1, 1].
        labels: The class of each image by name or by number, as arrays give it; None for the others.
    """

    names: tuple[str, ...]
    images: Tensor
    labels: tuple[Label | None, ...]


def read_given(paths: Sequence[str], channels: int, size: ImageSize) -> GivenImages:
    """Reads images as `ImageFolderData` does: in gray or colour, resized and cropped.

    Of 16 bits, those that an image uses itself count: no image changes how another is read.

    Args:
        paths: Image files; folders, with all images in them and in their subfolders; and `.npz` files with `images`
            and, optionally, `labels` and `class_names`, as `ArrayData` reads them.
        channels: 1 for gray, 3 for colour, or any other number.
        size: The size of all images, in pixels.

    Raises:
        UsageError: A path has no images, or cannot be read.
    """
    parts = [
        _of_arrays(path, channels, size) if _is_arrays(path) else _of_files(_files_of(path), channels, size)
        for path in paths
    ]
    return GivenImages(
        tuple(name for part in parts for name in part.names),
        torch.cat([part.images for part in parts]),
        tuple(label for part in parts for label in part.labels),
    )


def _is_arrays(path: str) -> bool:
    return Path(path).is_file() and Path(path).suffix.lower() == ".npz"


def _files_of(path: str) -> list[str]:
    """The image files that a path stands for: itself, or those in the folder."""
    if not Path(path).is_dir():
        return [path]
    skipped = Counter[str]()
    with _as_images():
        found = images_in(Path(path), skipped)
    if not found:
        got = f"none in {path}{f' ({counted(skipped)})' if skipped else ''}"
        raise UsageError(f"images: expected images, got {got}; add some ({', '.join(ENDINGS)}), or name others")
    return found


@contextmanager
def _as_images() -> Iterator[None]:
    """Errors about the folder of a data set are about the given images here."""
    try:
        yield
    except UsageError as error:
        raise UsageError(
            "images:" + str(error).removeprefix("--data.data_dir:").removeprefix("--data.arrays:")
        ) from error


def _of_files(paths: Sequence[str], channels: int, size: ImageSize) -> GivenImages:
    images = torch.stack([_of_file(path, channels, size) for path in paths])
    return GivenImages(tuple(paths), images, (None,) * len(paths))


def _of_file(path: str, channels: int, size: ImageSize) -> Tensor:
    with _as_images():
        highest, is_deep = brightest([path], channels, workers=0)
    bits = bits_for(highest) if highest >= 0 else 16
    try:
        return signed_from_pixels(to_size(decode(path, channels, size, bits, 16 if is_deep and bits > 8 else 8), size))
    except Exception as error:  # a damaged file can raise any exception
        got = f"{printable(path)}, which cannot be read ({reason_unread(error)})"
        raise UsageError(f"images: expected images, got {got}; fix it, or name others") from error


def _of_arrays(path: str, channels: int, size: ImageSize) -> GivenImages:
    arrays = _load(path)
    with _as_images():
        pixels = checked_pixels("images", arrays["images"])
    if pixels.shape[1] != channels and ({pixels.shape[1], channels} != {1, 3} or pixels.dtype != torch.uint8):
        expected = f"expected images with {channels} channels, as the generator makes"
        raise UsageError(f"images: {expected}, got {pixels.shape[1]} in {printable(path)}; name others")
    if pixels.shape[1] != channels:
        pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()) for image in pixels]
        pixels = torch.stack([pixels_of(picture, channels) for picture in pictures])
    names = tuple(f"{path}[{place}]" for place in range(len(pixels)))
    return GivenImages(names, signed_from_pixels(to_size(pixels, size)), _labels_of(arrays, path, len(pixels)))


def _load(path: str) -> dict[str, np.ndarray]:
    expected = "expected an .npz file with the array images and, if known, labels"
    remedy = "write one with numpy.savez_compressed"
    try:
        found = load_arrays(path, ("images", "labels", "class_names"))
    except Exception as error:  # a damaged file can raise any exception
        raise UsageError(f"images: {expected}, got {printable(path)} ({reason_of(error)}); {remedy}") from error
    if "images" not in found:
        got = ", ".join(found) or "nothing"
        raise UsageError(f"images: {expected}, got {printable(path)} with {got}; {remedy}")
    return {name: array for name, array in found.items() if array is not None}


def _labels_of(arrays: dict[str, np.ndarray], path: str, count: int) -> tuple[Label | None, ...]:
    """The label of each image; with `class_names`, labels are the places of their names."""
    if "labels" not in arrays:
        return (None,) * count
    labels, names = arrays["labels"], arrays.get("class_names")
    are_numbers = labels.dtype.kind in "iu"
    fits = labels.shape == (count,) and (are_numbers or (labels.dtype.kind == "U" and names is None))
    if names is not None:
        fits = fits and names.ndim == 1 and names.dtype.kind == "U" and bool((labels < len(names)).all())
    if not fits or (are_numbers and bool((labels < 0).any())):
        expected = (
            f"expected a label for each of {count:,} images: a text, or a number from 0, the place in class_names"
        )
        got = f"{labels.dtype} of shape {labels.shape} in {printable(path)}"
        raise UsageError(f"images: {expected}, got {got}; remove the array labels, or correct it")
    return tuple(labels.tolist() if names is None else names[labels].tolist())
