"""Checkpoints every N steps, and one at the end of a run; what happens on Ctrl-C or SIGTERM is in `signals.py`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cgan.callbacks.signals import StopSignals
from lightning_cgan.core.compat import runs_validation_next, steps_between_saves
from lightning_cgan.core.errors import check_positive
from lightning_cgan.runs.csv_logger import MetricsFile


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which also saves the last step of a run as `last.ckpt`, however the run ends.

    Lightning's own saves only at multiples of `every_n_train_steps`. On a signal it stops immediately, possibly between
    the updates of the discriminator and of the generator, and in one process before the others. Here, Ctrl-C, SIGTERM
    and SIGUSR1 (which clusters send before they reclaim a machine) let the current step finish, save, and then stop; a
    second Ctrl-C stops at once. With several processes, a signal to one of them stops all of them after the same step,
    at most ten steps later.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> checkpoints = Checkpoints(every_n_train_steps=500, save_top_k=3, monitor="val_judge_fid")
        >>> trainer = Trainer(max_steps=1000, callbacks=[checkpoints], logger=False)
        >>> trainer.checkpoint_callback is checkpoints
        True

    Args:
        every_n_train_steps: The number of steps between checkpoints.
        save_top_k: How many checkpoints to keep in addition to `last.ckpt`; -1 keeps all.
        monitor: The logged scalar that ranks checkpoints; if not given, the newest are kept.
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
            enable_version_counter=False,  # a resumed run overwrites `last.ckpt`
        )
        self.has_begun = False  # whether this process has completed a step
        self.signals = StopSignals()
        self._save_waits = False  # for the validation

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Records the number of rows in the table of scalars."""
        rows = [len(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsFile)]
        checkpoint["lightning_cgan_rows"] = rows[0] if rows else 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Removes the rows that were written after the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.truncate_to(checkpoint.get("lightning_cgan_rows", 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs handlers for the signals that request a stop."""
        super().on_train_start(trainer, pl_module)
        self.signals.install_handlers(trainer)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether a checkpoint is due, or a signal has to be acted on."""
        is_due = trainer.global_step % steps_between_saves(self) == 0
        return is_due or self.signals.is_due(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if a checkpoint is due or a stop was requested; if a validation is due, waits for it first.

        A run resumed from a checkpoint between the last step of an epoch and its validation would skip that validation.
        """
        self.has_begun = True
        self._save_waits = trainer.enable_validation and runs_validation_next(trainer.fit_loop)
        if not self._save_waits:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._finish_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the save that waited for the validation."""
        super().on_validation_end(trainer, pl_module)
        if self._save_waits:
            self._save_waits = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
            self._finish_step(trainer)

    def _finish_step(self, trainer: Trainer) -> None:
        must_stop = self.signals.must_stop(trainer)
        if must_stop or _is_over(trainer):
            self._save_end(trainer)
        if must_stop:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end of a run that was stopped after its last step, such as by early stopping."""
        self._save_end(trainer)
        self.signals.restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the previous signal handlers."""
        super().on_exception(trainer, pl_module, exception)
        self.signals.restore_handlers()

    def _save_end(self, trainer: Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


def _is_over(trainer: Trainer) -> bool:
    """Whether the step that has just ended is the last one.

    Where possible, the last checkpoint is saved after that step instead of in `on_train_end`. There, Lightning has
    already counted the epoch as complete, and a run resumed from such a checkpoint would count it again.
    """
    is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    is_last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or (is_last_batch and is_last_epoch)
