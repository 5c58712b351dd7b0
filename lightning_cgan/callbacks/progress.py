"""A progress bar that counts the steps of a whole run."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from rich import get_console
from rich.progress import BarColumn, ProgressColumn

from lightning_cgan.callbacks.notebook import NotebookOutput, in_notebook

_SECONDS_BETWEEN_UPDATES = 0.2
_WIDTH = 30  # of the bar in a notebook, in characters
_SHORT_NAMES = {
    "discriminator_loss": "D",
    "generator_loss": "G",
    "images_per_second": "images/s",
    "val_judge_fid": "FID",
    "val_gan_test": "GAN-test",
    "val_diversity": "diversity",
}
_IN_NARROW_TERMINALS = ("D", "G", "FID")  # more would wrap over several lines
_WIDE = 120  # columns
_NARROW_BAR = 8  # columns


def _is_wide() -> bool:
    return get_console().width >= _WIDE


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, as one bar that counts the steps of the whole run.

    Lightning's own restarts in each epoch, and collects all scalars after every batch, which costs as much as a whole
    step of a small network. This one collects them a few times per second. In a notebook it is one line of text below
    the cell, which needs no ipywidgets.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> bar = ProgressBar()
        >>> trainer = Trainer(max_steps=1000, callbacks=[bar], logger=False)
        >>> trainer.progress_bar_callback is bar
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._updated = 0.0
        self._started = 0.0
        self._is_in_notebook = False
        self._line = NotebookOutput()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replaces rich's bar by a line of text in a notebook, where rich would need ipywidgets."""
        super().setup(trainer, pl_module, stage)
        if self.is_enabled and in_notebook():
            self._is_in_notebook = True
            self.disable()
        self._line, self._started = NotebookOutput(), time.monotonic()

    @property
    def total_train_batches(self) -> int | float:
        """The number of steps of the whole run; infinity if unknown."""
        trainer = self.trainer
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else math.inf
        return min(epochs * trainer.num_training_batches, trainer.max_steps if trainer.max_steps > 0 else math.inf)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """In a narrow terminal without the steps per second and with a short bar, so that all is on one line of 80."""
        columns: list[ProgressColumn] = super().configure_columns(trainer)
        if _is_wide():
            return columns
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = _NARROW_BAR
        return [column for column in columns if not isinstance(column, ProcessingSpeedColumn)]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The scalars to show, by short names; in a narrow terminal, only the losses and the Fréchet distance."""
        metrics = super().get_metrics(trainer, pl_module)
        named = {_SHORT_NAMES.get(name, name): value for name, value in metrics.items() if name != "v_num"}
        if _is_wide():
            return named
        return {name: named[name] for name in _IN_NARROW_TERMINALS if name in named}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the bar in the first epoch, and shows the number of each epoch."""
        if self.train_progress_bar_id is None:
            super().on_train_epoch_start(trainer, pl_module)
        elif self.progress is not None:
            description = self._get_train_description(trainer.current_epoch)
            self.progress.update(self.train_progress_bar_id, description=description)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar."""
        super().on_train_start(trainer, pl_module)
        self._show_line(trainer, pl_module)

    def is_due(self, trainer: Trainer) -> bool:
        """Returns False: the bar can wait."""
        return False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the bar, a few times per second at most."""
        now = time.monotonic()
        if now - self._updated > _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)
            self._show_line(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the step at which the epoch ended."""
        self._update(self.train_progress_bar_id, trainer.global_step)
        super().on_train_epoch_end(trainer, pl_module)
        self._show_line(trainer, pl_module)

    def _show_line(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows, in a notebook, a line such as `Epoch 2 ━━━╌╌╌ 50/100  0:00:07  D 1.2  G 0.9`."""
        if not self._is_in_notebook:
            return
        done, total = trainer.global_step, self.total_train_batches
        filled = int(_WIDTH * done / total) if 0 < total < math.inf else 0
        bar = "━" * filled + "╌" * (_WIDTH - filled)
        of_total = f"{done:,}/{total:,}" if total < math.inf else f"{done:,}"
        elapsed = timedelta(seconds=round(time.monotonic() - self._started))
        metrics = self.get_metrics(trainer, pl_module).items()
        shown = [f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics]
        description = self._get_train_description(trainer.current_epoch)
        self._line.show("  ".join([f"{description} {bar} {of_total}", str(elapsed), *shown]))
