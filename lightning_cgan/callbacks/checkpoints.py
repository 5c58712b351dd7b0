"""Checkpoints on the clock of alternations, and a clean end on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cgan.errors import check_positive
from lightning_cgan.metrics_file import MetricsFile


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, with `last.ckpt` of the very last alternation, however the run ends.

    Lightning's own saves at multiples of `every_n_train_steps` only, and on Ctrl-C stops wherever it is, also between
    the update of the discriminator and that of the generator. Here the first Ctrl-C waits for the end of the
    alternation, saves, and then stops; a second one stops at once.

    Args:
        every_n_train_steps: The number of alternations from one checkpoint to the next.
        save_top_k: How many checkpoints to keep beside `last.ckpt`; without `monitor` the newest ones, and -1 for all.
        monitor: The name of a logged scalar that says which ones are best; the newest are kept if not given.
        mode: Whether the smallest (`min`) or the largest (`max`) value is best.
    """

    def __init__(
        self,
        every_n_train_steps: int = 1000,
        save_top_k: int = 1,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        check_positive("--checkpoints.every_n_train_steps", every_n_train_steps)
        super().__init__(
            filename="step_{step:08d}",
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_train_steps,
            save_top_k=save_top_k,
            monitor=monitor,
            mode=mode,
            save_last=True,
            enable_version_counter=False,  # a run that goes on has one `last.ckpt`
        )
        self._interrupted = False
        self._waits = False  # for a validation
        self._previous_handler: Any = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes how far the table of scalars has got."""
        rows = [len(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsFile)]
        checkpoint["lightning_cgan_rows"] = rows[0] if rows else 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes back the rows that came after the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.go_on_from(checkpoint.get("lightning_cgan_rows", 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over Ctrl-C."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time, or when somebody asked to stop; but behind a look at validation scores, if one is due.

        A run that goes on from between the last alternation of an epoch and its validation would leave that out.
        """
        self._waits = _validation_is_due(trainer)
        if not self._waits:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._finish_alternation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what waited for the validation."""
        super().on_validation_end(trainer, pl_module)
        if self._waits:
            self._waits = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
            self._finish_alternation(trainer)

    def _finish_alternation(self, trainer: Trainer) -> None:
        if self._interrupted or _is_over(trainer):
            self._save_end(trainer)
        if self._interrupted:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end of a run that was stopped behind its last alternation, as by a look at a validation score."""
        self._save_end(trainer)
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives Ctrl-C back."""
        super().on_exception(trainer, pl_module, exception)
        self._give_back()

    def _save_end(self, trainer: Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _give_back(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether the validation loop runs before the next alternation."""
    loop = trainer.fit_loop
    return trainer.enable_validation and loop.epoch_loop._should_check_val_fx(cast(Any, loop._data_fetcher))


def _is_over(trainer: Trainer) -> bool:
    """Whether the alternation that has just ended is the last one.

    The end is saved then, and not in `on_train_end` where it can be helped: there Lightning has counted the epoch as
    complete, and a run that goes on from it counts it once more.
    """
    is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    is_last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or (is_last_batch and is_last_epoch)
