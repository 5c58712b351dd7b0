"""Batches cut out of memory by index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_cgan.chance import generator_at
from lightning_cgan.errors import UsageError
from lightning_cgan.images import signed_from_bytes


class InMemoryLoader:
    """Cuts a set of images that lies in memory into batches: no worker processes, no work per image in Python.

    Yields images (N, C, H, W), float32 in [-1, 1], and labels (N,). In a distributed run every process cuts the same
    whole batches and takes every `world_size`-th image of each.

    Args:
        pixels: All images, shape (N, C, H, W), uint8.
        labels: Their labels, shape (N,), int64.
        batch_size: The number of images in a batch of all processes together.
        rank: The place of this process among all.
        world_size: The number of processes.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size % world_size:
            raise UsageError(
                f"--data.batch_size: expected a multiple of the number of processes ({world_size}), got {batch_size}; "
                "it is the batch of the whole run, and is shared out"
            )
        self.pixels = pixels
        self.labels = labels
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for whole_batch in torch.arange(len(self.labels)).split(self.batch_size):
            yield self._cut(whole_batch)

    def _cut(self, whole_batch: Tensor) -> tuple[Tensor, Tensor]:
        chosen = whole_batch[self.rank :: self.world_size]
        return signed_from_bytes(self.pixels.index_select(0, chosen)), self.labels[chosen]


class ShufflingLoader(InMemoryLoader):
    """Cuts the training set into full batches, in an order that is a function of (seed, epoch).

    It knows its place: `state_dict` says how many images of the whole run have been handed out, and a loader that has
    loaded it goes on from there, also with another number of processes. Images that do not fill a batch at the end of
    an epoch are left out of that epoch. An iteration is as long as an epoch, and begins where the one before ended.

    Args:
        pixels: All images, shape (N, C, H, W), uint8.
        labels: Their labels, shape (N,), int64.
        batch_size: The number of images in a batch of all processes together.
        rank: The place of this process among all.
        world_size: The number of processes.
        seed: Determines the order.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0
    ) -> None:
        super().__init__(pixels, labels, batch_size, rank, world_size)
        if batch_size > len(labels):
            raise UsageError(
                f"--data.batch_size: expected at most {len(labels)}, the number of training images for an alternation, "
                f"got {batch_size}; give a smaller batch_size (each discriminator step takes as many)"
            )
        self.seed = seed
        self.images_seen = 0

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order_of, order = -1, torch.empty(0)
        for _ in range(len(self)):
            epoch, batch = divmod(self.images_seen // self.batch_size, len(self))
            if epoch != order_of:  # also in the middle of an iteration, where an earlier one was left unfinished
                order_of, order = epoch, torch.randperm(len(self.labels), generator=generator_at(self.seed, epoch))
            # Counted before it is handed out: a checkpoint is written while the batch is in use.
            self.images_seen += self.batch_size
            yield self._cut(order[batch * self.batch_size :][: self.batch_size])

    def state_dict(self) -> dict[str, Any]:
        """The seed, and the number of images handed out to all processes together since the run began."""
        return {"seed": self.seed, "images_seen": self.images_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another loader of the same data stood."""
        self.seed = state["seed"]
        self.images_seen = state["images_seen"]
