"""What callbacks ask of the module that they watch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lightning.pytorch import Trainer
from torch import Tensor


class ImageMaker(Protocol):
    """A module that makes images of labels, such as `ConditionalGAN`."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        ...

    def sample_latents(self, count: int, seed: int | None = None) -> Tensor:
        """Draws latents, shape (count, latent_dim)."""
        ...

    def generate(self, labels: Tensor, latents: Tensor | None = None) -> Tensor:
        """Makes images, shape (N, C, H, W), in [-1, 1]."""
        ...


def run_folder(trainer: Trainer) -> Path | None:
    """The folder that a run may write to, the same on all processes; a `fast_dev_run` has none.

    Every process must ask, since they agree on the folder by a broadcast.
    """
    folder = trainer.log_dir
    return None if trainer.fast_dev_run or folder is None else Path(folder)  # type: ignore[attr-defined]
