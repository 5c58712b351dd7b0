"""Training batches: shares of equal size in every process, which can be split into equal parts."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

import torch
from torch import Tensor

from lightning_cgan.core.distributed import agree
from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import Discriminator, Generator, uses_batch_statistics
from lightning_cgan.objectives.inputs import check_divides
from lightning_cgan.training.batch_checks import BatchChecker
from lightning_cgan.training.contract import Role


class TrainingBatches(BatchChecker):
    """Selects the images of each batch that can be trained on."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        discriminator_steps: int,
        accumulation: Mapping[Role, int],
    ) -> None:
        super().__init__(generator, discriminator)
        self.discriminator_steps = discriminator_steps
        self.accumulation = accumulation
        has_statistics = uses_batch_statistics(generator) or uses_batch_statistics(discriminator)
        self._fewest = 2 if has_statistics else 1  # one image has no batch statistics
        self._largest = 0  # batch trained on so far
        self._skipped_last = False

    def take(
        self, batch: Any, batch_idx: int, loader: Any, device: torch.device, world_size: int
    ) -> tuple[Tensor, ...]:
        """Returns the part of a batch to train on: images (N, C, H, W) and labels (N,); empty if it is too short.

        Args:
            batch: What the loader yields; see `check`.
            batch_idx: The number of the batch, from 0.
            loader: Its attribute `is_checked` indicates equal shares and valid values.
            device: The device of messages between processes.
            world_size: The number of processes.

        Raises:
            UsageError: The batch of any process is invalid, or cannot be split.
        """
        is_checked = getattr(loader, "is_checked", False)
        if is_checked and self._largest:
            images, labels = self.pair(batch)
        elif is_checked or world_size == 1:
            is_first = self._largest == 0
            images, labels = self.check(batch, "training", batch_idx, at_once=is_first or device.type == "cpu")
        else:
            images, labels = self._equal_share(batch, batch_idx, device)
        full = 0 if is_checked else getattr(loader, "batch_size", None) or 0
        used = self._usable(len(images), full)
        return images[:used], labels[:used]

    def _equal_share(self, batch: Any, batch_idx: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Trims all shares to the shortest; an error in one process is raised in all, so that none waits."""
        fault, images, labels = "", torch.empty(0), torch.empty(0)
        try:
            images, labels = self.check(batch, "training", batch_idx)
        except UsageError as error:
            fault = str(error)
        shares = agree(len(labels), fault, device)
        fewest = min(shares)
        if max(shares) > fewest:
            self.warn_once(
                f"batches: expected shares of equal size in all processes, got {fewest} to {max(shares)} images in "
                f"training batch {batch_idx + 1}; each process skips those above {fewest}, here and later",
                "shares",
            )
        return images[:fewest], labels[:fewest]

    def _usable(self, images: int, full: int) -> int:
        """Returns how many images of a batch can be split into equal parts.

        The first batch must split evenly. The surplus of a later, short one, as at the end of an epoch, is skipped.
        A full batch has `full` images, 0 if unknown.
        """
        parts = self.discriminator_steps * lcm(*self.accumulation.values())
        used = images // parts * parts
        if self._largest == 0 and images >= full:
            for role, count in self.accumulation.items():
                options = {"discriminator_steps": self.discriminator_steps, f"{role}_accumulation": count}
                check_divides(images, **options)
        if images < self._largest and used // parts < self._fewest:
            used = 0
        if used < images or not images:
            self.warn_once(
                f"batches: expected a multiple of {parts} images in each process, got {images} in a short one, of "
                f"which {used} are used; this repeats in each epoch, unless drop_last=True skips short batches",
                "short",
            )
        if not used and self._skipped_last:
            raise UsageError(
                f"batches: expected {parts} images or more in each process, got fewer in two batches in a row; give "
                "larger batches (one batch holds the images of all discriminator steps)"
            )
        self._skipped_last, self._largest = not used, max(self._largest, used)
        return used
