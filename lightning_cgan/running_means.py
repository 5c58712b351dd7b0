"""Scalars summed up between two lines of the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Sums of scalars that stay on their device until they are logged: nothing waits for the GPU in between."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images = 0
        self.started = time.monotonic()

    def start_clock(self) -> None:
        """Begins to measure `images_per_second`."""
        self.started, self.images = time.monotonic(), 0

    def count_images(self, images: int) -> None:
        """Adds to the images that `images_per_second` counts."""
        self.images += images

    def add(self, **scalars: Tensor) -> None:
        """Adds one value of each scalar."""
        for name, scalar in scalars.items():
            scalar = scalar.detach().float()
            self.sums[name] = self.sums[name] + scalar if name in self.sums else scalar
            self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> dict[str, Tensor]:
        """The mean of each scalar since the last call, and `images_per_second`."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        means["images_per_second"] = torch.tensor(self.images / (time.monotonic() - self.started))
        self.sums, self.counts = {}, {}
        self.start_clock()
        return means

    def state_dict(self) -> dict[str, Any]:
        """What waits to be logged, in plain values and tensors."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what waited to be logged."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
