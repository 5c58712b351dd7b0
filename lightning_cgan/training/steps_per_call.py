"""Several steps in one call of `training_step`, where nothing has to happen between them.

Around each call, Lightning does work that takes as long as a step of a small network: hooks, loggers, progress bars.
"""

from __future__ import annotations

import time
from typing import Literal, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_cgan.core.compat import has_next_batch, steps_between_saves
from lightning_cgan.core.errors import UsageError

StepsPerCall = int | Literal["auto"]

# With `auto`, a call ends after the step at which it has lasted this long, so that a run reacts to signals at once.
_SECONDS, _MOST = 0.05, 100
_HOOKS = ("on_train_batch_start", "on_train_batch_end")


@runtime_checkable
class CalledBetweenSteps(Protocol):
    """A callback that says after which steps it has to be called; others with hooks around batches, after each."""

    def steps_between_calls(self, trainer: Trainer) -> int:
        """Returns the interval, which starts at step 0; 0 if the callback goes by time."""


def check_steps_per_call(value: StepsPerCall) -> None:
    """Raises `UsageError` unless the value is a positive number or `auto`."""
    if value != "auto" and (not isinstance(value, int) or value < 1):
        raise UsageError(f"steps_per_call: expected 1 or more, or auto, got {value}; give one of them")


class Calls:
    """Decides how many steps a call of `training_step` makes.

    A call ends where Lightning or a callback acts: at the end of an epoch or of the run, before a validation, and at
    each multiple of an interval. So the run is the same, to the last bit, whatever the number.

    Args:
        module: The module that is trained.
        most: The largest number of steps; `auto` chooses it by time, and 1 with several processes.
    """

    def __init__(self, module: LightningModule, most: StepsPerCall) -> None:
        self.module = module
        self.most = most
        self._intervals: set[int] | None = None  # none: a call for each step
        self._made, self._started = 0, 0.0  # of the present call

    def begin(self) -> None:
        """Finds out who has to be called when."""
        self._intervals = None if self._alone() else self._find_intervals()

    def _alone(self) -> bool:
        """Whether each step needs a call."""
        module, trainer = self.module, self.module.trainer
        ours = next(kind for kind in type(module).__mro__ if kind.__module__ == f"{__name__.partition('.')[0]}.module")
        methods = ("training_step", *_HOOKS)
        return (
            self.most == 1
            # Processes stop and talk together, so they cannot go by their own clocks.
            or (self.most == "auto" and trainer.world_size > 1)
            or any(getattr(type(module), method) is not getattr(ours, method) for method in methods)
            or not vars(module).keys().isdisjoint(methods)
        )

    def _find_intervals(self) -> set[int] | None:
        trainer = self.module.trainer
        intervals = {trainer.log_every_n_steps}  # type: ignore[attr-defined]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CalledBetweenSteps):
                intervals.add(callback.steps_between_calls(trainer))
            elif type(callback) is not Timer and any(is_overridden(hook, callback, Callback) for hook in _HOOKS):
                own_hooks = any(getattr(type(callback), hook) is not getattr(ModelCheckpoint, hook) for hook in _HOOKS)
                if not isinstance(callback, ModelCheckpoint) or own_hooks:
                    return None
                intervals.add(steps_between_saves(callback))
        return intervals - {0}

    def start(self) -> None:
        """Begins a call."""
        self._made, self._started = 0, time.monotonic()

    def goes_on(self) -> bool:
        """Whether the call makes another step, asked after each."""
        if self._intervals is None:
            return False
        trainer = self.module.trainer
        self._made += 1
        step = trainer.global_step
        return not (
            self._is_full()
            or step == trainer.max_steps
            or any(step % interval == 0 for interval in self._intervals)
            or trainer.should_stop
            or not has_next_batch(trainer.fit_loop)
        )

    def _is_full(self) -> bool:
        if self.most == "auto":
            return self._made == _MOST or time.monotonic() - self._started > _SECONDS
        return self._made >= self.most
