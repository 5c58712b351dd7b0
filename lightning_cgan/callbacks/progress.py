"""The progress bar of a run."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

_SECONDS_BETWEEN_UPDATES = 0.2
_SHORT_NAMES = {"discriminator_loss": "D", "generator_loss": "G", "images_per_second": "images/s"}


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, but one bar for the whole run, which counts steps.

    Lightning's own starts anew with each epoch, and collects all scalars after every batch, which costs as much as a
    small network's whole step; this one does so a few times in a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._updated = 0.0

    @property
    def total_train_batches(self) -> int | float:
        """The number of steps of the whole run, as far as it is known."""
        trainer = self.trainer
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else math.inf
        return min(epochs * trainer.num_training_batches, trainer.max_steps if trainer.max_steps > 0 else math.inf)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The scalars to show, under short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {_SHORT_NAMES.get(name, name): value for name, value in metrics.items() if name != "v_num"}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the bar with the first epoch, and names each."""
        if self.train_progress_bar_id is None:
            super().on_train_epoch_start(trainer, pl_module)
        elif self.progress is not None:
            description = self._get_train_description(trainer.current_epoch)
            self.progress.update(self.train_progress_bar_id, description=description)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, if a person could see it move."""
        now = time.monotonic()
        if now - self._updated > _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows where the epoch ended."""
        self._update(self.train_progress_bar_id, trainer.global_step)
        super().on_train_epoch_end(trainer, pl_module)
