"""What happens on Ctrl-C, SIGTERM and SIGUSR1: the current step finishes, and all processes stop after the same one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import distributed

STOP_SIGNALS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_AGREE_EVERY = 10  # steps, since each exchange between processes costs as much as an update of a small network


class StopSignals:
    """Records signals that ask a run to stop, for `Checkpoints`, which saves and stops after the step.

    A second Ctrl-C stops at once.

    Attributes:
        stopped_by: The signal that was received, in any process; None if there was none.
    """

    def __init__(self) -> None:
        self.stopped_by: signal.Signals | None = None
        self._control_group: Any = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def install_handlers(self, trainer: Trainer) -> None:
        """Handles the signals until `restore_handlers`; every process of the run must call this."""
        if trainer.world_size > 1 and self._control_group is None:
            # Gloo exchanges on the CPU, without waiting for a GPU.
            self._control_group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}

    def restore_handlers(self) -> None:
        """Restores the handlers from before."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def is_due(self, trainer: Trainer) -> bool:
        """Whether `must_stop` has to be asked now: several processes ask at the same steps."""
        if trainer.world_size > 1:
            return trainer.global_step % _AGREE_EVERY == 0
        return self.stopped_by is not None

    def must_stop(self, trainer: Trainer) -> bool:
        """Whether any process has received a signal, the same answer in all; several processes ask every ten steps."""
        if not self.is_due(trainer):
            return False
        if self._control_group is not None:
            received = torch.tensor([int(self.stopped_by or 0)])
            distributed.all_reduce(received, distributed.ReduceOp.MAX, self._control_group)
            self.stopped_by = signal.Signals(int(received)) if received else None
        return self.stopped_by is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number)
