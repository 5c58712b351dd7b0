"""Validate batches, since a custom loader may yield anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import Discriminator, Generator

_SLACK = 0.05  # how far resizing and noise may leave [-1, 1]
_IMPOSSIBLE = 16  # larger than any scaled image: pixels of 8 or 16 bits
_MOST_DEFERRED = 256
_FRACTION = -(2**63)  # stands for a label with a fraction
_TO_PAIRS = "; yield pairs (images, labels), for example with a collate_fn"


class BatchChecker:
    """Validates batches before a network sees them.

    Types and shapes are always checked, and values too where that costs next to nothing. On a GPU, reading values would
    make it wait; so from the second batch on they are stored until `raise_faults` checks them.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        self.num_classes = generator.num_classes
        self.image_shape = generator.image_shape
        self.discriminator = discriminator
        self._warned_of: set[str] = set()
        self._deferred: list[tuple[str, list[Tensor]]] = []

    def check(self, batch: Any, stage: str, batch_idx: int, at_once: bool = True) -> tuple[Tensor, Tensor]:
        """Validates a batch of images and labels.

        Args:
            batch: Images (N, C, H, W), floats in [-1, 1], and labels (N,), integers of any type.
            stage: The stage named in messages, such as `training`.
            batch_idx: The number of the batch, from 0.
            at_once: Whether values are checked immediately. Otherwise labels out of range are clamped, since looking
                them up would crash a GPU, and `raise_faults` reports them.

        Returns:
            The images, in the precision of the networks, and the labels as int64.
        """
        images, labels = self.pair(batch)
        where = f"{stage} batch {batch_idx + 1}"
        if not len(labels):
            return images, labels
        values = [*labels.aminmax(), *images.aminmax()]
        if at_once:
            self._check_values([value.item() for value in values], where, is_first=batch_idx == 0)
            return images, labels
        self._deferred.append((where, values))
        if len(self._deferred) == _MOST_DEFERRED:
            self.raise_faults()
        return images, labels.clamp(0, self.num_classes - 1)

    def raise_faults(self) -> None:
        """Checks the values whose check was deferred."""
        deferred, self._deferred = self._deferred, []
        columns = zip(*(values for _, values in deferred), strict=True)
        rows = zip(*(torch.stack(column).tolist() for column in columns), strict=True)
        for (where, _), row in zip(deferred, rows, strict=True):
            self._check_values(list(row), where)

    def pair(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Returns images in the precision of the networks and labels as int64, with checked shapes; see `check`."""
        if not isinstance(batch, (tuple, list)):
            raise UsageError(f"batches: expected (images, labels), got {_described(batch)}{_TO_PAIRS}")
        if len(batch) != 2:
            raise UsageError(f"batches: expected (images, labels), got {len(batch)} parts{_TO_PAIRS}")
        images, labels = batch
        self._check_images(images)
        if not isinstance(labels, Tensor):
            raise UsageError(
                f"labels: expected a tensor of class numbers, shape (N,), got {_described(labels)}; number the classes "
                "from 0"
            )
        _check_shape_of_labels(labels)
        if len(images) != len(labels):
            raise UsageError(
                f"batches: expected as many labels as images, got {len(labels)} labels and {len(images)} images; give "
                "one label per image"
            )
        if images.dtype != torch.float32:
            images = images.to(next(self.discriminator.parameters()).dtype)
        return images, _as_int64(labels, self.num_classes)

    def _check_images(self, images: Any) -> None:
        if not isinstance(images, Tensor):
            expected = f"expected a tensor of images, shape {_batched(self.image_shape)}"
            raise UsageError(f"images: {expected}, got {_described(images)}{_TO_PAIRS}")
        if not images.is_floating_point():
            remedy = "images / 127.5 - 1" if images.dtype == torch.uint8 else "floats"
            raise UsageError(f"images: expected floats in [-1, 1], got {images.dtype}; give {remedy}")
        if tuple(images.shape[1:]) != self.image_shape:
            got, (channels, *size) = tuple(images.shape[1:]), self.image_shape
            remedy = f"resize them to {size[0]} x {size[1]} pixels, or build both networks with another image_size"
            if got == (*size, channels):
                remedy = "put the channels first: images.permute(0, 3, 1, 2)"
            elif got == tuple(size) and channels == 1:
                remedy = "give images.unsqueeze(1)"
            elif len(got) == 3 and got[1:] == tuple(size):
                remedy = f"convert them to {channels} channels, or build both networks with image_channels={got[0]}"
            expected = f"expected shape {_batched(self.image_shape)}, as the networks expect"
            raise UsageError(f"images: {expected}, got {_batched(got)}; {remedy}")

    def _check_values(self, values: list[Any], where: str, is_first: bool = False) -> None:
        """Checks the lowest and the highest label, and the lowest and the highest pixel."""
        lowest_label, highest_label, lowest, highest = values
        if lowest_label == _FRACTION:
            raise UsageError(
                f"labels: expected class numbers, whole numbers from 0 to {self.num_classes - 1}, got fractions in "
                f"{where}; number the classes from 0"
            )
        for label in (lowest_label, highest_label):
            if not 0 <= label < self.num_classes:
                raise UsageError(
                    f"labels: expected class numbers from 0 to {self.num_classes - 1}, got {label} in {where}; number "
                    "the classes from 0, or build both networks with another num_classes"
                )
        if not -torch.inf < lowest <= highest < torch.inf:
            raise UsageError(
                f"images: expected finite pixels in [-1, 1], got NaN or infinity in {where}; remove such images"
            )
        found = f"images: expected pixels in [-1, 1], got {lowest:.3g} to {highest:.3g} in {where}; "
        if max(-lowest, highest) > _IMPOSSIBLE:
            raise UsageError(f"{found}if they have 8 bits per channel, give images / 127.5 - 1")
        if max(-lowest, highest) > 1 + _SLACK:
            self.warn_once(f"{found}scale them, as ToTensor() and Normalize(0.5, 0.5) do", where.split()[0])
        elif is_first and lowest >= 0 and highest > 0:
            remedy = "if they are in [0, 1], give images * 2 - 1, or add Normalize(0.5, 0.5) after ToTensor()"
            self.warn_once(f"{found}{remedy}", where.split()[0])

    def warn_once(self, message: str, kind: str) -> None:
        """Shows only the first warning of each kind."""
        if kind not in self._warned_of:
            self._warned_of.add(kind)
            rank_zero_warn(message)

    def check_prediction(self, batch: Any, batch_idx: int) -> Tensor:
        """Validates a batch of labels to generate images for.

        Args:
            batch: Labels, shape (N,), or labels with the numbers of images within their classes, (N, 2); also as the
                only element of a list, as from a `TensorDataset`.
            batch_idx: The number of the batch, from 0.

        Returns:
            The same, as one tensor of int64.
        """
        where = f"predict batch {batch_idx + 1}"
        expected = "expected labels, shape (N,), or labels and numbers of images, shape (N, 2)"
        remedy = "give labels alone, as DataLoader(TensorDataset(labels)) does"
        given = batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 1 else batch
        if not isinstance(given, Tensor):
            raise UsageError(f"{where}: {expected}, got {_described(given)}; {remedy}")
        if given.ndim not in (1, 2) or (given.ndim == 2 and given.shape[1] != 2):
            raise UsageError(f"{where}: {expected}, got shape {tuple(given.shape)}; {remedy}")
        whole = _as_int64(given, self.num_classes)
        labels = whole if whole.ndim == 1 else whole[:, 0]
        if len(labels):
            lowest, highest = (value.item() for value in labels.aminmax())
            self._check_values([lowest, highest, 0.0, 0.0], where)
        if whole.ndim == 2 and bool((whole[:, 1] < 0).any()):
            raise UsageError(f"{where}: expected numbers of images from 0, got negative ones; number them from 0")
        return whole


def _check_shape_of_labels(labels: Tensor) -> None:
    if labels.ndim == 1:
        return
    if labels.shape[1:] == (1,):
        remedy = "give labels.squeeze(1)"
    elif labels.ndim == 2:
        remedy = "give one label per image; for one-hot rows, labels.argmax(1)"
    else:
        remedy = "give one label per image"
    raise UsageError(f"labels: expected class numbers, shape (N,), got shape {tuple(labels.shape)}; {remedy}")


def _as_int64(labels: Tensor, num_classes: int) -> Tensor:
    """Returns labels as int64; a label with a fraction becomes `_FRACTION`."""
    if labels.dtype == torch.int64:
        return labels
    is_half = labels.is_floating_point() and 2 / torch.finfo(labels.dtype).eps < num_classes
    if labels.dtype == torch.bool or labels.is_complex() or is_half:
        inexact = f", which cannot represent all numbers below {num_classes}" if is_half else ""
        raise UsageError(f"labels: expected class numbers, got {labels.dtype}{inexact}; give int64")
    whole = labels.to(torch.int64)
    return whole.where(labels == whole, _FRACTION) if labels.is_floating_point() else whole


def _batched(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def _described(value: Any) -> str:
    """Describes an invalid value in a few words."""
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(map(str, value))}"[:100]
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], str):
        return f"text such as {value[0]!r}"[:100]
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} parts"
    return f"a {type(value).__name__}"
