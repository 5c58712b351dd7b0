"""Checkpoints on the clock of steps, and a clean end for who asks for one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed

from lightning_cgan.core.compat import runs_validation_next
from lightning_cgan.core.errors import check_positive
from lightning_cgan.runs.csv_logger import MetricsFile

_SIGNALS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_AGREE_EVERY = 10  # steps: what processes tell one another each time costs as much as a small network's update


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, with `last.ckpt` of the very last step, however the run ends.

    Lightning's own saves at multiples of `every_n_train_steps` only, and on a signal stops wherever it is, also between
    the update of the discriminator and that of the generator, and in one process before the others. Here Ctrl-C,
    SIGTERM and SIGUSR1, which clusters send before they take a machine away, wait for the end of a step, save,
    and then stop; a second Ctrl-C stops at once. With several processes, a signal to one of them stops all after the
    same step, of at most the next ten.

    Args:
        every_n_train_steps: The number of steps from one checkpoint to the next.
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
        self.has_begun = False  # a step has been made, in this process
        self.stopped_by: signal.Signals | None = None
        self._control_group: Any = None
        self._waits = False  # for a validation
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes how far the table of scalars has got."""
        rows = [len(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsFile)]
        checkpoint["lightning_cgan_rows"] = rows[0] if rows else 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes back the rows that came after the checkpoint."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.truncate_to(checkpoint.get("lightning_cgan_rows", 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals that ask for an end."""
        super().on_train_start(trainer, pl_module)
        if trainer.world_size > 1 and self._control_group is None:
            # On the CPU, where it does not wait for a GPU.
            self._control_group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number)

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether a process was asked to stop; all of them get the same answer."""
        if self._control_group is None:
            return self.stopped_by is not None
        if trainer.global_step % _AGREE_EVERY:
            return False
        asked = torch.tensor([int(self.stopped_by or 0)])
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, self._control_group)
        self.stopped_by = signal.Signals(int(asked)) if asked else None
        return self.stopped_by is not None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time, or when somebody asked to stop; but behind a look at validation scores, if one is due.

        A run that goes on from between the last step of an epoch and its validation would leave that out.
        """
        self.has_begun = True
        self._waits = _validation_is_due(trainer)
        if not self._waits:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._finish_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what waited for the validation."""
        super().on_validation_end(trainer, pl_module)
        if self._waits:
            self._waits = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
            self._finish_step(trainer)

    def _finish_step(self, trainer: Trainer) -> None:
        must_stop = self._must_stop(trainer)
        if must_stop or _is_over(trainer):
            self._save_end(trainer)
        if must_stop:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end of a run that was stopped behind its last step, as by a look at a validation score."""
        self._save_end(trainer)
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        super().on_exception(trainer, pl_module, exception)
        self._give_back()

    def _save_end(self, trainer: Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _give_back(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether the validation loop runs before the next step."""
    return trainer.enable_validation and runs_validation_next(trainer.fit_loop)


def _is_over(trainer: Trainer) -> bool:
    """Whether the step that has just ended is the last one.

    The end is saved then, and not in `on_train_end` where it can be helped: there Lightning has counted the epoch as
    complete, and a run that goes on from it counts it once more.
    """
    is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    is_last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or (is_last_batch and is_last_epoch)
