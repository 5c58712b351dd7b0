"""Batches by index: cut out of memory, or decoded from files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, tee
from typing import Any

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import signed_from_bytes
from lightning_cgan.core.rng import rng_at
from lightning_cgan.core.schema import check_schema
from lightning_cgan.data.image_files import ImageFiles


class OrderedLoader:
    """Hands out images in their own order, in batches.

    Yields images (N, C, H, W), float32 in [-1, 1], and labels (N,). In a distributed run every process walks through
    the same whole batches and takes every `world_size`-th image of each. Images in memory are cut out by index, without
    worker processes or work per image in Python, on the device where they lie; files are decoded ahead of time.

    Args:
        images: All images: pixels, shape (N, C, H, W), uint8, or files.
        labels: Their labels, shape (N,), int64.
        batch_size: The number of images in a batch of all processes together.
        rank: The place of this process among all.
        world_size: The number of processes.
    """

    def __init__(
        self, images: Tensor | ImageFiles, labels: Tensor, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size % world_size:
            raise UsageError(
                f"--data.batch_size: expected a multiple of the number of processes ({world_size}), got {batch_size}; "
                "it is the batch of the whole run, and is shared out"
            )
        self.images = images
        self.labels = labels
        self.dataset = range(len(labels))  # whose length Lightning compares with sizes of batches
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        everything = torch.arange(len(self.labels), device=self.labels.device)
        return self._cut(everything.split(self.batch_size))

    def _cut(self, whole_batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        shares = (whole_batch[self.rank :: self.world_size] for whole_batch in whole_batches)
        if isinstance(self.images, Tensor):
            for chosen in shares:
                yield signed_from_bytes(self.images.index_select(0, chosen)), self.labels[chosen]
        else:
            ahead, now = tee(shares)  # workers decode ahead of time
            for pixels, chosen in zip(self.images.batches(ahead), now, strict=True):
                yield signed_from_bytes(pixels), self.labels[chosen]


class ShufflingLoader(OrderedLoader):
    """Hands out the training set in full batches, in an order that is a function of (seed, epoch).

    A balanced epoch has each class as often as the largest one: all images of a class as many times as go into that,
    and some of them once more, which are drawn anew in each epoch.

    It knows its place: `state_dict` says which epoch it is in, and how many images of that have been handed out to all
    processes together, and a loader that has loaded it resumes there, also with another number of processes or another
    batch size. Images that do not fill a batch at the end of an epoch are left out of that epoch. An iteration is as
    long as an epoch, and begins where the one before ended, once its first batch is asked for.

    Args:
        images: All images: pixels, shape (N, C, H, W), uint8, or files.
        labels: Their labels, shape (N,), int64.
        batch_size: The number of images in a batch of all processes together.
        rank: The place of this process among all.
        world_size: The number of processes.
        seed: Determines the order.
        balance: Whether images of smaller classes are repeated.

    Attributes:
        is_checked: Tells a module that batches are shared out equally, and that images and labels are right.
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
                f"--data.batch_size: expected at most {self.epoch_size}, the number of training images for an "
                f"step, got {batch_size}; give a smaller batch_size (each discriminator step takes as many)"
            )
        self.images_to_shuffle = self.epoch_size
        self.seed = seed
        self.images_seen = 0
        self.epoch, self.offset = 0, 0  # of the images that were handed out last

    def __len__(self) -> int:
        return self.epoch_size // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._cut(islice(self._whole_batches(), len(self))):
            # Counted before it is handed out: a checkpoint is written while the batch is in use.
            self.epoch, start = self._next_batch(self.epoch, self.offset)
            self.offset = start + self.batch_size
            self.images_seen += self.batch_size
            yield images, labels

    def _whole_batches(self) -> Iterator[Tensor]:
        """The places of the images of one batch after the other, which may be asked for ahead of time."""
        order_of, order = -1, torch.empty(0)
        epoch, end = self.epoch, self.offset
        while True:
            epoch, start = self._next_batch(epoch, end)
            if epoch != order_of:  # also in the middle of an iteration, where an earlier one was left unfinished
                order_of, order = epoch, self._order(epoch).to(self.labels.device)
            end = start + self.batch_size
            yield order[start:end]

    def _next_batch(self, epoch: int, offset: int) -> tuple[int, int]:
        """Where the batch begins that comes after a place: as an epoch, and the number of its images before."""
        return (epoch, offset) if offset + self.batch_size <= self.epoch_size else (epoch + 1, 0)

    def _order(self, epoch: int) -> Tensor:
        """The places of the images of an epoch, one after the other."""
        rng = rng_at(self.seed, epoch % 2**63)  # as many as an address can hold
        order = torch.randperm(self.images_to_shuffle, generator=rng)
        if self.classes is None:
            return order
        largest = max(map(len, self.classes))
        parts = []
        for indices in self.classes:
            times, rest = divmod(largest, len(indices))
            parts += [indices.repeat(times), indices[torch.randperm(len(indices), generator=rng)[:rest]]]
        return torch.cat(parts)[order]

    def state_dict(self) -> dict[str, Any]:
        """The seed, and how far the run has got: in images since it began, and in the order of its epochs."""
        return {
            "seed": self.seed,
            "images_seen": self.images_seen,
            "epoch": self.epoch,
            "offset": self.offset,
            "epoch_size": self.epoch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes where another loader stood; if that one had other images, at the beginning of the next epoch.

        Raises:
            UsageError: The state is none of such a loader.
        """
        check_schema({"seed": 1, "images_seen": 1}, state, "the order of the images")
        if "epoch" in state:
            check_schema({"epoch": 1, "offset": 1, "epoch_size": 1}, state, "the order of the images")
        self.seed = state["seed"]
        self.images_seen = state["images_seen"]
        if "epoch" not in state:  # as older checkpoints have it
            batches = self.images_seen // self.batch_size
            self.epoch, batch = divmod(batches, self.epoch_size // self.batch_size)
            self.offset = batch * self.batch_size
        elif state["epoch_size"] == self.epoch_size:
            self.epoch, self.offset = state["epoch"], state["offset"]
        else:
            self.epoch, self.offset = state["epoch"] + 1, 0


class RepeatingLoader(ShufflingLoader):
    """Hands out the first batches of the first epoch again and again, as Lightning's `overfit_batches` asks for.

    Args:
        share: So many batches, or, if it is a float, such a part of all.
        options: Those of `ShufflingLoader`.
    """

    def __init__(self, share: float, **options: Any) -> None:
        super().__init__(**options)
        self.batches = super().__len__()
        repeated = share if isinstance(share, int) else int(self.batches * share)
        self.epoch_size = self.batch_size * max(1, min(self.batches, repeated))

    def __len__(self) -> int:
        return self.batches  # Lightning cuts the iteration off itself

    def _order(self, epoch: int) -> Tensor:
        return super()._order(0)[: self.epoch_size]


def _indices_of_classes(labels: Tensor) -> list[Tensor]:
    """The places of the images of each class that has some."""
    labels = labels.cpu()
    indices = labels.argsort(stable=True).split(labels.bincount().tolist())
    return [part for part in indices if len(part)]
