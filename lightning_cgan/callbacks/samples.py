"""Grids of generated images, written during training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from PIL import Image

from lightning_cgan.callbacks.notebook import NotebookOutput, in_notebook
from lightning_cgan.callbacks.shared import run_folder, warn_on_write_error
from lightning_cgan.core.classes import Classes, find_classes
from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.files import write_atomic
from lightning_cgan.core.images import LARGEST_SIDE, cell_size, grid, png_of, save_gif, save_png
from lightning_cgan.evaluation.fakes import ImageMaker
from lightning_cgan.runs.loggers import log_picture

T = TypeVar("T")

_FRAMES, _MOST_PIXELS_OF_GIF = 60, 200_000_000  # 60 grids of 100 classes, which Pillow keeps in memory
_MOST_CLASSES = 100  # without `labels`; more are too many to view
_MOST_PIXELS = 80_000_000  # Pillow warns when it opens a larger image
_SECONDS, _SECONDS_OF_LAST = 0.2, 2.0


class SampleGrid(Callback):
    """Writes grids of samples to `samples/` in the run folder, and to loggers that take pictures.

    These are Weights & Biases, TensorBoard, MLflow, and those with a method `log_image(key, images, step)`.

    Each class has its own rows. All classes share the same latents, which are fixed for the whole run: a column shows
    one style in all classes, and successive grids show how it changes (after StyleGAN3's snapshot grids; Karras et al.
    2021, arXiv:2106.12423). The text `classes` of each PNG file lists the classes from top to bottom. In a notebook,
    the latest grid is shown below the cell. At the end of the run, `samples.gif` shows the grids in the folder as an
    animation: at most 60, and fewer if they are large.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> grid = SampleGrid(every_n_steps=500, labels="0-3,7")
        >>> trainer = Trainer(max_steps=1000, callbacks=[grid], logger=False)
        >>> grid in trainer.callbacks
        True

    Args:
        every_n_steps: The number of steps between grids. A grid is always written before the first step and after the
            last.
        labels: The classes to show, by name, by number or as ranges; if not given, all, or at most 100 evenly spaced
            ones.
        columns: The number of images in a row.
        rows: The number of rows per class.
        seed: Determines the latents.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        labels: Classes | None = None,
        columns: int = 10,
        rows: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("columns", columns), ("rows", rows)):
            check_positive(f"--samples.{name}", value)
        if labels is not None and not labels:
            raise UsageError("--samples.labels: expected classes, got none; name some, or omit the option for all")
        self.every_n_steps = every_n_steps
        self.labels = labels
        self.columns = columns
        self.rows = rows
        self.seed = seed
        self._numbers: list[int] = []
        self._texts: dict[str, str] = {}  # kept in each grid
        self._folder: Path | None = None
        self._last_step = -1
        self._is_resuming = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets the run folder and the classes to show; refuses unknown classes and grids that are too large."""
        self._output = NotebookOutput()
        run = run_folder(trainer)
        self._folder = run / "samples" if run else None
        module = cast(ImageMaker, pl_module)
        most_rows = self._most_rows(module)
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        names = tuple(names or map(str, range(module.num_classes)))
        if self.labels is None:
            most_classes = max(1, min(_MOST_CLASSES, most_rows // self.rows))
            self._numbers = _evenly(range(module.num_classes), most_classes)
        else:
            self._numbers = list(find_classes(self.labels, names, "--samples.labels"))
        self._texts = {"classes": json.dumps([str(names[number]) for number in self._numbers])}
        rows = len(self._numbers) * self.rows
        if rows > most_rows:
            raise UsageError(
                f"--samples.rows: expected a grid of {self.columns:,} by at most {most_rows:,} images, got {rows:,} "
                "rows; name fewer --samples.labels, or choose smaller --samples.rows and --samples.columns"
            )
        if self.labels is None and len(self._numbers) < module.num_classes:
            shown = f"{len(self._numbers)} evenly spaced classes of {module.num_classes:,}"
            rank_zero_info(f"The grids of samples show {shown}; --samples.labels chooses others")

    def _most_rows(self, module: ImageMaker) -> int:
        """The largest number of rows that fits in a grid."""
        height, width = cell_size(getattr(getattr(module, "generator", None), "image_shape", (1, 1, 1)))
        width *= self.columns
        return min(LARGEST_SIDE, _MOST_PIXELS // width) // height if width <= LARGEST_SIDE else 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Records that the run resumes."""
        self._is_resuming = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the first grid, unless the run resumes in a folder that has earlier grids."""
        if not self._is_resuming or not self._remove_later_grids(trainer):
            self._write_grid(trainer, pl_module)

    def _remove_later_grids(self, trainer: Trainer) -> bool:
        """Removes grids after the checkpoint, which the run writes again; returns whether there are earlier ones."""
        grids = sorted(self._folder.glob("[0-9]*.png")) if self._folder else []
        later = [grid for grid in grids if grid.stem.isdecimal() and int(grid.stem) > trainer.global_step]
        with warn_on_write_error("samples/"):
            for grid in later if trainer.is_global_zero else ():
                grid.unlink()
        return len(later) < len(grids)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether a grid is due."""
        return trainer.global_step % self.every_n_steps == 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Writes a grid if one is due."""
        if self.is_due(trainer):
            self._write_grid(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last grid and `samples.gif`."""
        self._write_grid(trainer, pl_module)
        self._write_gif()

    @rank_zero_only
    def _write_grid(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._folder is None or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        module = cast(ImageMaker, pl_module)
        latents = module.sample_latents(self.columns * self.rows, self.seed)
        labels = torch.tensor(self._numbers).repeat_interleave(len(latents))
        images = module.generate(labels, latents.repeat(len(self._numbers), 1))
        picture = grid(images, self.columns)
        with warn_on_write_error("The grid of samples"):
            write_atomic(self._folder / f"{self._last_step:08d}.png", lambda file: save_png(picture, file, self._texts))
        if in_notebook():
            self._output.show(f"Samples of step {self._last_step:,}", png_of(picture))
        for logger in trainer.loggers:
            with warn_on_write_error(f"The grid of samples for {type(logger).__name__}"):
                log_picture(logger, "samples", picture, self._last_step)

    @rank_zero_only
    def _write_gif(self) -> None:
        if self._folder is None:
            return
        with warn_on_write_error("samples.gif"):
            files = sorted(self._folder.glob("[0-9]*.png"))
            width, height = Image.open(files[-1]).size if files else (1, 1)
            most = min(_FRAMES, _MOST_PIXELS_OF_GIF // (width * height))
            pictures = [Image.open(file) for file in _evenly(files, most)]
            # Grids differ in size if a run was resumed with other rows or columns.
            frames = [picture for picture in pictures if picture.size == (width, height)]
            if frames:
                write = partial(save_gif, frames, seconds=_SECONDS, seconds_of_last=_SECONDS_OF_LAST)
                write_atomic(self._folder.with_name("samples.gif"), write)


def _evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` evenly spaced items, among them the last and, unless `most` is 1, the first."""
    if most < 2:
        return list(items[-1:])
    steps = max(1, min(len(items), most) - 1)
    indices = {round(number * (len(items) - 1) / steps) for number in range(steps + 1)} if items else ()
    return [items[index] for index in sorted(indices)]
