"""Pictures of what the generator makes as the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torchvision.transforms.functional import to_pil_image

from lightning_cgan.callbacks.base import run_folder, training_goes_on
from lightning_cgan.errors import UsageError, check_positive
from lightning_cgan.evaluation.fakes import ImageMaker
from lightning_cgan.images import grid, save_png


class SampleGrid(Callback):
    """Writes grids of samples to `samples/` in the run folder, and to every logger that takes images.

    Each class has its own rows. The latents stay the same for the whole run and are the same in the rows of every
    class: a column shows one style in all classes, a file after the other how it changes (after StyleGAN3's snapshot
    grids; Karras et al. 2021, arXiv:2106.12423).

    Args:
        every_n_steps: The number of alternations from one grid to the next. There is one before the first alternation
            and one after the last in any case.
        labels: The classes to show, by number; all if not given.
        columns: The number of images in a row.
        rows: The number of rows of each class.
        seed: Determines the latents.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        labels: list[int] | None = None,
        columns: int = 10,
        rows: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("columns", columns), ("rows", rows)):
            check_positive(f"--samples.{name}", value)
        self.every_n_steps = every_n_steps
        self.labels = labels
        self.columns = columns
        self.rows = rows
        self.seed = seed
        self._folder: Path | None = None
        self._last_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run folder, and refuses labels that are no classes."""
        run = run_folder(trainer)
        self._folder = run / "samples" if run else None
        num_classes = cast(ImageMaker, pl_module).num_classes
        unknown = [label for label in self.labels or [] if not 0 <= label < num_classes]
        if unknown:
            raise UsageError(
                f"--samples.labels: expected class numbers from 0 to {num_classes - 1}, got {unknown}; "
                "name classes that the data has"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the first grid."""
        self._draw(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Draws a grid when it is time."""
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last grid."""
        self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._folder is None or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        module = cast(ImageMaker, pl_module)
        labels = self.labels if self.labels is not None else range(module.num_classes)
        latents = module.sample_latents(self.columns * self.rows, self.seed)
        images = module.generate(torch.tensor(labels).repeat_interleave(len(latents)), latents.repeat(len(labels), 1))
        picture = grid(images, self.columns)
        with training_goes_on("The picture of samples"):
            save_png(picture, self._folder / f"{self._last_step:08d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [to_pil_image(picture)], step=self._last_step)
