"""Labelled images from an `.npz` file or from arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cgan.core.class_names import in_order
from lightning_cgan.core.classes import Classes
from lightning_cgan.core.errors import UsageError, no_such_file, reason_of
from lightning_cgan.core.images import MOST_CHANNELS, ImageSize, image_size_of, pixels_from_array
from lightning_cgan.core.npz import load_arrays
from lightning_cgan.data.base import SPLITS, LabelledImages, Split
from lightning_cgan.data.bit_depth import all_bits, bits_for
from lightning_cgan.data.splits import check_fraction, hold_out

_REQUIRED = ("images", "labels")
_OF_TEST = ("test_images", "test_labels")
_LABELS = ("labels", "test_labels")
_KNOWN = (*_REQUIRED, "class_names", *_OF_TEST)
# Names that Keras and other libraries use
_OTHER_NAMES = {"x_train": "images", "y_train": "labels", "x_test": "test_images", "y_test": "test_labels"}
_OTHER_NAMES |= {"train_images": "images", "train_labels": "labels", "x": "images", "y": "labels"}
_NUMBERED = "number the classes from 0 without gaps, or give class_names with a name for each number"


class ArrayData(LabelledImages):
    """Images from an `.npz` file or from arrays in memory; `LabelledImages` documents the other options.

    Examples:
        >>> arrays = {"images": torch.zeros(40, 8, 8, dtype=torch.uint8), "labels": torch.arange(40) % 2}
        >>> data = ArrayData({**arrays, "class_names": ["cat", "dog"]}, batch_size=8)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, data.class_names
        (torch.Size([8, 1, 8, 8]), ('cat', 'dog'))

    Args:
        arrays: The path of an `.npz` file, such as `generate --out digits.npz` writes; in Python also a dictionary of
            NumPy arrays or tensors, or the result of `numpy.load`. It holds `images`, uint8 or uint16, shape (N, H, W),
            (N, H, W, C) or (N, C, H, W) with 1 to 16 channels, where the smaller of the two possible numbers is that of
            the channels; `labels`, shape (N,): texts or whole numbers, which are the names of the classes, or, with
            `class_names`, the places of their names, from 0; and optionally `test_images` and `test_labels`. Without
            test images, a test split is held out.
        image_size: The size to resize to, in pixels: the side of squares, or height and width, `[H, W]`. What is left
            over in one direction is cut off at both ends. If not given, the size of the images.
        test_fraction: The share of each class held out for testing if there are no test images: at least one image, the
            same ones in every run.
        classes: The classes to keep, by name, number or range; if not given, all that have images.

    Raises:
        UsageError: The file does not exist, or its arrays are not labelled images.
    """

    def __init__(
        self,
        arrays: str | Mapping[str, Any],
        image_size: ImageSize | None = None,
        test_fraction: float = 1 / 7,
        batch_size: int = 64,
        classes: Classes | None = None,
        validation_fraction: float = 1 / 12,
        predictions_per_class: int = 100,
        memory_budget: float = 4.0,
        balance: bool = False,
    ) -> None:
        check_fraction("--data.test_fraction", test_fraction)
        self.arrays = _load(arrays) if isinstance(arrays, Mapping) else arrays  # a file may be closed later
        self.test_fraction = test_fraction
        found = _Contents.of(self.arrays)
        self.image_channels, height, width = found.images.shape[1:]
        self.native_image_size = image_size_of(height, width)
        self.all_class_names = found.class_names
        if found.are_values:
            shown = shorten(", ".join(found.class_names), 100, placeholder=" …")
            rank_zero_info(f"--data.arrays: the labels name {len(found.class_names):,} classes: {shown}")
        present = sorted(set(found.labels.tolist()))
        chosen: Classes = [found.class_names[label] for label in present] if classes is None else classes
        others = (validation_fraction, predictions_per_class, memory_budget, balance)
        super().__init__(batch_size, None, chosen, image_size, *others)
        empty = [self.all_class_names[label] for label in self.kept if label not in present]
        if empty:
            raise UsageError(f"--data.classes: expected classes that have images, got {', '.join(empty)}; omit these")

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Reads the arrays again for each split: keeping them would hold the pixels in memory twice."""
        found = _Contents.of(self.arrays)
        if found.test_images is None or found.test_labels is None:
            parts = hold_out(found.labels, self.test_fraction, self.all_class_names, self.kept)
            chosen = parts[SPLITS.index(split)]
            return found.pixels(found.images[chosen.numpy()]), found.labels[chosen]
        if split == "test":
            return found.pixels(found.test_images), found.test_labels
        return found.pixels(found.images), found.labels

    @property
    def _source(self) -> str:
        return "the arrays, given by --data.arrays"


@dataclass(frozen=True)
class _Contents:
    """Validated arrays: images (N, C, H, W), uint8 or uint16; labels (N,), int64; one name per label.

    `are_values` tells that the labels were given as the names of the classes, or as numbers with gaps.
    """

    images: np.ndarray
    labels: Tensor
    class_names: tuple[str, ...]
    are_values: bool
    test_images: np.ndarray | None
    test_labels: Tensor | None

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> _Contents:
        """Loads and validates the user's arrays."""
        arrays = _load(given)
        _check_keys(arrays)
        are_values = False  # instead of the numbers of classes
        if "class_names" in arrays:
            names = _class_names("class_names", _as_array("class_names", arrays["class_names"]))
        else:
            arrays = {**arrays, **{key: _label_array(key, arrays[key]) for key in _LABELS if key in arrays}}
            names, are_values = _named(arrays["labels"])
            if are_values:
                arrays |= {key: _numbers(key, arrays[key], names) for key in _LABELS if key in arrays}
        images, labels = _pair(arrays, *_REQUIRED)
        _check_range("labels", labels, names)
        if "test_images" not in arrays:
            return cls(images, labels, names, are_values, None, None)
        test_images, test_labels = _pair(arrays, *_OF_TEST)
        _check_range("test_labels", test_labels, names)
        if test_images.shape[1:] != images.shape[1:]:
            expected, got = (tuple(pixels.shape[1:]) for pixels in (images, test_images))
            raise _wrong(f"test_images of the shape of images, {expected}", str(got), "resize or convert them")
        if test_images.dtype != images.dtype:
            raise _wrong(f"test_images of the type of images, {images.dtype}", str(test_images.dtype), "convert them")
        return cls(images, labels, names, are_values, test_images, test_labels)

    def pixels(self, images: np.ndarray) -> Tensor:
        """Some of the images as pixels; the training images decide which of 16 bits are in use."""
        return _pixels(images, _bits_of(self.images))


def _load(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Loads the arrays of a mapping or an `.npz` file; values under unknown names are not read."""
    expected, remedy = "an .npz file of arrays without Python objects", "write one with numpy.savez_compressed"
    if not isinstance(given, Mapping):
        if not Path(given).exists():
            raise UsageError(no_such_file("--data.arrays", given))
        if not is_zipfile(given):
            raise _wrong(expected, f"{given}, which is another file", remedy)
    try:
        if isinstance(given, Mapping):
            return {name: given[name] if name in _KNOWN else None for name in given}
        return load_arrays(given, _KNOWN)
    except Exception as error:  # a damaged file can raise any exception
        what = type(given).__name__ if isinstance(given, Mapping) else given
        raise _wrong(expected, f"{what} ({reason_of(error)})", remedy) from error


def _check_keys(arrays: Mapping[str, Any]) -> None:
    missing = [name for name in _KNOWN if name not in arrays]
    meant = {name: _meant(str(name), missing) for name in arrays if name not in _KNOWN}
    renames = " and ".join(f"rename {name} to {known}" for name, known in meant.items() if known)
    needed = [*_REQUIRED, *(_OF_TEST if any(name in arrays for name in _OF_TEST) else ())]
    if lacking := [name for name in needed if name in missing]:
        got = ", ".join(map(str, arrays)) or "nothing"
        raise _wrong(" and ".join(needed), got, renames or f"add {' and '.join(lacking)}")
    if renames:
        rank_zero_warn(f"--data.arrays: skipped arrays of unknown names; to use them, {renames}")


def _meant(name: str, missing: Sequence[str]) -> str | None:
    """The missing name that an unknown name stands for, if there is one."""
    usual = _OTHER_NAMES.get(name.lower())
    if usual in missing:
        return usual
    return next(iter(get_close_matches(name.lower(), missing, n=1, cutoff=0.8)), None)


def _pair(arrays: Mapping[str, Any], name: str, name_of_labels: str) -> tuple[np.ndarray, Tensor]:
    """Validates images, which become (N, C, H, W), and their labels."""
    images = _channels_first(name, _as_array(name, arrays[name]))
    labels = _labels(name_of_labels, _as_array(name_of_labels, arrays[name_of_labels]))
    if len(images) != len(labels):
        expected = f"as many {name_of_labels} as {name} ({len(images):,})"
        raise _wrong(expected, f"{len(labels):,}", "give a label for each image")
    return images, labels


def _as_array(name: str, value: Any) -> np.ndarray:
    try:
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # tensors raise RuntimeError
        got = type(value).__name__
        if isinstance(value, Tensor):
            got = f"a tensor of {value.dtype}, {value.layout}, on {value.device}"
        expected = f"{name} to be a NumPy array, or a tensor that can be converted to one"
        raise _wrong(expected, got, "convert it") from error


def checked_pixels(name: str, array: np.ndarray) -> Tensor:
    """The pixels of an array of images, shape (N, C, H, W); refuses arrays of other types and shapes."""
    images = _channels_first(name, array)
    return _pixels(images, _bits_of(images))


def _channels_first(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype not in (np.uint8, np.uint16):
        expected = f"{name} of uint8, from 0 to 255, or of uint16"
        raise _wrong(expected, str(array.dtype), _to_bytes(name, array))
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] < array.shape[1]:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] > MOST_CHANNELS or not array.size:
        shapes = f"(N, H, W), (N, H, W, C) or (N, C, H, W), with 1 to {MOST_CHANNELS} channels and no axis of length 0"
        raise _wrong(f"{name} of shape {shapes}", str(array.shape), "reshape them")
    return array


def _bits_of(images: np.ndarray) -> int:
    return 8 if images.dtype == np.uint8 else bits_for(int(images.max()))


def _pixels(images: np.ndarray, bits: int) -> Tensor:
    """Pixels of 8 bits, or of 16 for arrays of uint16 that use more; `bits` are in use."""
    if images.dtype == np.uint16:
        images = images.clip(0, 255).astype(np.uint8) if bits == 8 else all_bits(images, bits)
    return pixels_from_array(images)


def _to_bytes(name: str, array: np.ndarray) -> str:
    """A hint with an expression that converts pixels of another type, chosen by their value range."""
    lowest, highest = (array.min(), array.max()) if array.size and array.dtype.kind in "biuf" else (0, -1)
    given = f"numpy.asarray({name})"
    if array.dtype.kind == "b":
        converted = f"({given} * 255)"
    elif array.dtype.kind in "iu" and 0 <= lowest <= highest <= 255:
        converted = given
    elif array.dtype.kind in "iu" and 0 <= lowest <= highest < 2**16:
        return f"convert them: {given}.astype('uint16')"
    elif 0 <= lowest <= highest <= 1:
        converted = f"({given} * 255).round()"
    elif -1 <= lowest <= highest <= 1:
        converted = f"(({given} + 1) * 127.5).round()"
    elif 0 <= lowest <= highest <= 255:
        converted = f"{given}.round()"
    else:
        return "convert them to whole numbers from 0 to 255 first"
    return f"convert them: {converted}.astype('uint8')"


def _labels(name: str, array: np.ndarray) -> Tensor:
    given = f"numpy.asarray({name})"
    if not np.issubdtype(array.dtype, np.integer):
        is_whole = array.dtype.kind == "b" or (array.dtype.kind == "f" and bool((array == array.round()).all()))
        converted = f"{given}.astype('int64')" if is_whole else f"numpy.unique({name}, return_inverse=True)[1]"
        raise _wrong(f"{name} of whole numbers", str(array.dtype), f"convert them: {converted}")
    if array.ndim != 1:
        remedy = "give one number for each image"
        if array.ndim == 2:
            remedy += f": {given}.{'argmax(1)' if array.shape[1] > 1 else 'reshape(-1)'}"
        raise _wrong(f"{name} of shape (N,)", str(array.shape), remedy)
    if array.size and array.max() > np.iinfo(np.int64).max:  # would wrap to a negative int64
        raise _wrong(f"{name} from 0 without gaps", str(array.max()), _NUMBERED)
    return torch.from_numpy(array.astype(np.int64))


def _label_array(name: str, value: Any) -> np.ndarray:
    """Labels as texts or numbers; those of Python, as in a table of pandas, must be all texts or all whole numbers."""
    is_mixed = isinstance(value, (list, tuple)) and any(isinstance(label, str) for label in value)
    array = np.array(value, dtype=object) if is_mixed else _as_array(name, value)
    if array.dtype.kind not in "OS" or array.ndim != 1:
        return np.char.strip(array) if array.dtype.kind == "U" else array
    labels = [label.decode(errors="replace") if isinstance(label, bytes) else label for label in array.tolist()]
    kind = str if any(isinstance(label, str) for label in labels) else int
    for place, label in enumerate(labels):
        if not isinstance(label, kind) or isinstance(label, bool):
            got = f"{label!r:.40} for image {place}"
            raise _wrong(f"{name} that are all texts, or all whole numbers", got, "remove such images, or label them")
    return np.array([label.strip() for label in labels] if kind is str else labels)


def _named(labels: np.ndarray) -> tuple[tuple[str, ...], bool]:
    """The names of the classes in order, and whether the labels are these names, and not just numbers from 0."""
    found = np.unique(labels)
    are_numbers = np.issubdtype(found.dtype, np.integer)
    if are_numbers and found.size and found[0] < 0:
        raise _wrong("labels of 0 or more", str(found[0]), "remove images without a label, or give texts")
    if labels.ndim != 1 or not (are_numbers or found.dtype.kind == "U") or found.tolist() == list(range(len(found))):
        return tuple(map(str, range(len(found)))), False
    return _class_names("labels", np.array(in_order(map(str, found.tolist())))), True


def _numbers(name: str, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The places of labels among the names of the classes; labels of other types stay, and are refused later."""
    if labels.ndim != 1 or not (labels.dtype.kind == "U" or np.issubdtype(labels.dtype, np.integer)):
        return labels
    places = {class_name: place for place, class_name in enumerate(class_names)}
    texts = list(map(str, labels.tolist()))
    unknown = sorted(set(texts) - places.keys())
    if unknown:
        shown = [shorten(", ".join(some), 100, placeholder=" …") for some in (places, unknown)]
        raise _wrong(f"{name} among {shown[0]}, the labels", shown[1], "give images of the same classes")
    return np.array([places[text] for text in texts])


def _class_names(name: str, array: np.ndarray) -> tuple[str, ...]:
    names = array.tolist() if array.ndim == 1 else []
    are_texts = all(isinstance(name, str) and name and name.isprintable() for name in names)
    if not names or not are_texts or len(set(names)) < len(names):
        got = f"{array.tolist()!r:.60} ({array.dtype})"
        remedy = "give one name for each label"
        if array.ndim == 1 and array.dtype.kind in "Siu":
            remedy = "convert them: numpy.asarray(class_names).astype(str)"
        raise _wrong(f"{name} to be different texts of one line", got, remedy)
    return tuple(names)


def _check_range(name: str, labels: Tensor, class_names: tuple[str, ...]) -> None:
    outside = sorted(set(labels[(labels < 0) | (labels >= len(class_names))].tolist()))
    if outside:
        got = f"{', '.join(map(str, outside[:5]))}{', …' if len(outside) > 5 else ''}"
        raise _wrong(f"{name} from 0 to {len(class_names) - 1}", got, _NUMBERED)


def _wrong(expected: str, got: str, remedy: str) -> UsageError:
    return UsageError(f"--data.arrays: expected {expected}, got {' '.join(got.split())}; {remedy}")
