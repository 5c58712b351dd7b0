"""Batches by index: sliced from memory, or decoded from files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, tee
from typing import Any

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import BitDepth, bit_depth_of, signed_from_pixels
from lightning_cgan.core.rng import rng_at
from lightning_cgan.core.schema import check_schema
from lightning_cgan.data.image_files import ImageFiles

_MOST_BYTES = 2**22  # of images that are taken from memory at once; they stay in a core's cache


class OrderedLoader:
    """Yields all images in their original order, in batches.

    Yields images (N, C, H, W), float32 in [-1, 1], and labels (N,). In a distributed run every process goes through the
    same whole batches and takes every `world_size`-th image of each. Images in memory are indexed on the device where
    they are, without worker processes or work per image in Python; files are decoded ahead of time.

    Args:
        images: All images: pixels, shape (N, C, H, W), uint8 or int16 (see `core.images`), or files.
        labels: Their labels, shape (N,), int64.
        batch_size: The number of images per batch, over all processes.
        rank: The rank of this process.
        world_size: The number of processes.
    """

    def __init__(
        self, images: Tensor | ImageFiles, labels: Tensor, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size % world_size:
            raise UsageError(
                f"--data.batch_size: expected a multiple of the number of processes ({world_size}), got {batch_size}; "
                "the processes share it equally"
            )
        self.images = images
        self.labels = labels
        self.dataset = range(len(labels))  # Lightning compares its length with batch sizes
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    @property
    def bit_depth(self) -> BitDepth:
        """How many bits the pixels have."""
        return bit_depth_of(self.images) if isinstance(self.images, Tensor) else self.images.bit_depth

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        indices = torch.arange(len(self.labels), device=self.labels.device)
        return self._shares(indices.split(self.batch_size))

    def _shares(self, whole_batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        shares = (whole_batch[self.rank :: self.world_size] for whole_batch in whole_batches)
        if isinstance(self.images, Tensor):
            yield from _slices(self.images, self.labels, shares)
        else:
            ahead, now = tee(shares)  # workers decode ahead of time
            for pixels, chosen in zip(self.images.batches(ahead), now, strict=True):
                yield signed_from_pixels(pixels), self.labels[chosen]


class ShufflingLoader(OrderedLoader):
    """Yields the training set in full batches, in an order that is a function of (seed, epoch).

    In a balanced epoch each class occurs as often as the largest one: all its images are repeated a whole number of
    times, and a random subset, sampled again for each epoch, occurs once more.

    `state_dict` stores the position: the epoch, and how many of its images have been handed out to all processes
    together. A loader that loads it resumes there, even with another number of processes or another batch size. Images
    that do not fill a batch at the end of an epoch are omitted from that epoch. An iteration is as long as an epoch,
    and begins where the previous one ended when its first batch is requested.

    The arguments up to `world_size` are those of `OrderedLoader`.

    Attributes:
        is_checked: Signals to a module that batches are split equally, and that images and labels are valid.
    """

    is_checked = True

    def __init__(
        self,
        images: Tensor | ImageFiles,
        labels: Tensor,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        balance: bool = False,
    ) -> None:
        super().__init__(images, labels, batch_size, rank, world_size)
        self.classes = _indices_of_classes(labels) if balance else None
        self.epoch_size = len(labels) if self.classes is None else len(self.classes) * max(map(len, self.classes))
        if batch_size > self.epoch_size:
            raise UsageError(
                f"--data.batch_size: expected at most {self.epoch_size} images in a step, as many as there are to "
                f"train on, got {batch_size}; give a smaller batch_size (each discriminator step takes a batch)"
            )
        self.seed = seed
        self.images_seen = 0
        self.epoch, self.offset = 0, 0  # the position after the last batch handed out

    def __len__(self) -> int:
        return self.epoch_size // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._shares(islice(self._whole_batches(), len(self))):
            # Counted before the yield: a checkpoint is written while the batch is in use.
            self.epoch, start = self._next_batch(self.epoch, self.offset)
            self.offset = start + self.batch_size
            self.images_seen += self.batch_size
            yield images, labels

    def _whole_batches(self) -> Iterator[Tensor]:
        """The image indices of successive batches; they may be requested ahead of time."""
        order_of, order = -1, torch.empty(0)
        epoch, end = self.epoch, self.offset
        while True:
            epoch, start = self._next_batch(epoch, end)
            if epoch != order_of:  # also within an iteration, after an unfinished one
                order_of, order = epoch, self._order(epoch).to(self.labels.device)
            end = start + self.batch_size
            yield order[start:end]

    def _next_batch(self, epoch: int, offset: int) -> tuple[int, int]:
        """The start of the next batch after a position: the epoch, and the number of its images before the batch."""
        return (epoch, offset) if offset + self.batch_size <= self.epoch_size else (epoch + 1, 0)

    def _order(self, epoch: int) -> Tensor:
        """The image indices of an epoch, in order."""
        rng = rng_at(self.seed, epoch % 2**63)  # the range of addresses
        if self.classes is None:
            return torch.randperm(len(self.labels), generator=rng)
        largest = max(map(len, self.classes))
        order = torch.randperm(largest * len(self.classes), generator=rng)
        parts = []
        for indices in self.classes:
            times, rest = divmod(largest, len(indices))
            parts += [indices.repeat(times), indices[torch.randperm(len(indices), generator=rng)[:rest]]]
        return torch.cat(parts)[order]

    def state_dict(self) -> dict[str, Any]:
        """The seed and the position: images since the run began, and the position in the current epoch."""
        return {
            "seed": self.seed,
            "images_seen": self.images_seen,
            "epoch": self.epoch,
            "offset": self.offset,
            "epoch_size": self.epoch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes at the position of another loader; if its epoch size differs, at the beginning of the next epoch."""
        check_schema({"seed": 1, "images_seen": 1}, state, "the order of the images")
        if "epoch" in state:
            check_schema({"epoch": 1, "offset": 1, "epoch_size": 1}, state, "the order of the images")
        self.seed, self.images_seen = state["seed"], state["images_seen"]
        if "epoch" not in state:  # checkpoints of older versions
            batches = self.images_seen // self.batch_size
            self.epoch, batch = divmod(batches, self.epoch_size // self.batch_size)
            self.offset = batch * self.batch_size
        elif state["epoch_size"] == self.epoch_size:
            self.epoch, self.offset = state["epoch"], state["offset"]
        else:
            self.epoch, self.offset = state["epoch"] + 1, 0


class RepeatingLoader(ShufflingLoader):
    """Repeats the first batches of the first epoch, for Lightning's `overfit_batches`.

    A whole number as `share` counts batches; any other number is a fraction of all batches.
    """

    def __init__(self, share: float, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.batches = super().__len__()
        repeated = share if isinstance(share, int) else int(self.batches * share)
        self.epoch_size = self.batch_size * max(1, min(self.batches, repeated))

    def __len__(self) -> int:
        return self.batches  # Lightning ends the iteration itself

    def _order(self, epoch: int) -> Tensor:
        return super()._order(0)[: self.epoch_size]


def _slices(images: Tensor, labels: Tensor, batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields images in memory and their labels by index, several batches at once: each operation costs a launch."""
    largest = _MOST_BYTES // max(1, 4 * images[:1].numel())
    while chosen := list(islice(batches, 1)):
        chosen += islice(batches, max(0, largest // max(1, len(chosen[0])) - 1))
        sizes, indices = list(map(len, chosen)), torch.cat(chosen)
        pixels = signed_from_pixels(images.index_select(0, indices))
        yield from zip(pixels.split(sizes), labels[indices].split(sizes), strict=True)


def _indices_of_classes(labels: Tensor) -> list[Tensor]:
    """The image indices of each class that has images."""
    labels = labels.cpu()
    indices = labels.argsort(stable=True).split(labels.bincount().tolist())
    return [part for part in indices if len(part)]
