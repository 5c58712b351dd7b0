"""Several steps in one call of `training_step`, where nothing has to happen between them.

Around each call, Lightning does work that takes as long as a step of a small network: hooks, loggers, progress bars.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast, runtime_checkable

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch import Tensor

from lightning_cgan.core.compat import has_next_batch, next_batch, saves_by_time, steps_between_saves
from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.compile_choice import is_known
from lightning_cgan.training.contract import TrainedModule
from lightning_cgan.training.option_changes import calls_function
from lightning_cgan.training.schedules import parts_of_schedule

StepsPerCall = int | Literal["auto"]

# With `auto`, a call ends after the step at which it has lasted this long, so that a run reacts to signals at once.
_SECONDS, _MOST = 0.05, 100
_HOOKS = ("on_train_batch_start", "on_train_batch_end")
_HOOKS_OF_MOVES = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


@runtime_checkable
class CalledWhenDue(Protocol):
    """A callback that says when it has something to do; others with hooks around batches are called at each step."""

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the callback has something to do after the step that has just ended; asked after each step.

        To ask must change nothing, and the answer must be the same in all processes: they wait for each other between
        calls.
        """


def check_steps_per_call(value: StepsPerCall) -> None:
    """Raises `UsageError` unless the value is a positive number or `auto`."""
    if value != "auto" and (not isinstance(value, int) or value < 1):
        raise UsageError(f"steps_per_call: expected 1 or more, or auto, got {value}; give one of them")


class Calls:
    """Decides how many steps a call of `training_step` makes.

    A call ends where Lightning or a callback acts: at the end of an epoch or of the run, before a validation, where
    scalars are logged, and when a callback is due. So the run is the same, to the last bit, whatever the number.

    Args:
        module: The module that is trained.
        most: The largest number of steps; `auto` chooses it by time, and 1 with several processes.

    Attributes:
        continues: Whether the step follows another one in its call, and the code that has run in between is known, so
            that what was checked before that one still holds.
    """

    def __init__(self, module: LightningModule, most: StepsPerCall) -> None:
        self.module = module
        self.most = most
        self._callbacks: list[CalledWhenDue] | None = None  # none: a call for each step
        self._made, self._started = 0, 0.0  # of the present call
        self._moves_batches, self._is_known = True, False
        self.continues = False

    def begin(self) -> None:
        """Finds out who has to be asked."""
        self._callbacks = None if self._alone() else self._find_callbacks()
        self._moves_batches = not self._has_ready_batches()
        self._is_known = not self._moves_batches and self._knows_code_between_steps()
        self.continues = False

    def _alone(self) -> bool:
        """Whether each step needs a call."""
        module, trainer = self.module, self.module.trainer
        ours = next(kind for kind in type(module).__mro__ if kind.__module__ == f"{__name__.partition('.')[0]}.module")
        methods = ("training_step", *_HOOKS)
        return (
            self.most == 1
            # Processes stop and talk together, so they cannot go by their own clocks.
            or (self.most == "auto" and trainer.world_size > 1)
            or _overrides(module, ours, methods)
        )

    def _find_callbacks(self) -> list[CalledWhenDue] | None:
        found: list[CalledWhenDue] = []
        for callback in self.module.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CalledWhenDue) and _speaks_for_its_hooks(callback):
                found.append(callback)
            elif isinstance(callback, ModelCheckpoint) and not _overrides(callback, ModelCheckpoint):
                if saves_by_time(callback):
                    return None
                found.append(_PlainCheckpoints(steps_between_saves(callback)))
            elif type(callback) is not Timer and _overrides(callback, Callback):  # a timer may wait for the call's end
                return None
        return found

    def _has_ready_batches(self) -> bool:
        """Whether the batches are this package's, and nobody changes them."""
        trainer = self.module.trainer
        data = getattr(trainer, "datamodule", None)
        return (
            getattr(trainer.train_dataloader, "is_checked", False)
            and type(trainer.precision_plugin) in (Precision, MixedPrecision)
            and not _overrides(self.module, LightningModule, _HOOKS_OF_MOVES)
            and (data is None or not _overrides(data, LightningDataModule, _HOOKS_OF_MOVES))
        )

    def _knows_code_between_steps(self) -> bool:
        """Whether all code that runs between two steps of a call is of libraries: of the loader, and of schedules."""
        trainer = self.module.trainer
        schedulers = [part for config in trainer.lr_scheduler_configs for part in parts_of_schedule(config.scheduler)]
        code = [trainer.train_dataloader, *schedulers]
        return is_known(cast(TrainedModule, self.module), code) and not any(map(calls_function, schedulers))

    def next_batch(self) -> tuple[Any, int]:
        """Takes the batch of a further step of the call, and its number."""
        self.continues = self._is_known
        return next_batch(self.module.trainer, self._is_ready)

    def _is_ready(self, batch: Any) -> bool:
        device = self.module.device
        return not self._moves_batches and all(isinstance(part, Tensor) and part.device == device for part in batch)

    def start(self) -> None:
        """Begins a call."""
        self._made, self._started = 0, time.monotonic()

    def goes_on(self) -> bool:
        """Whether the call makes another step, asked after each."""
        self.continues = False
        if self._callbacks is None:
            return False
        trainer = self.module.trainer
        self._made += 1
        return not (
            self._is_full()
            or trainer.global_step == trainer.max_steps
            or _is_multiple(trainer.global_step, trainer.log_every_n_steps)  # type: ignore[attr-defined]
            or any(callback.is_due(trainer) for callback in self._callbacks)
            or trainer.should_stop
            or not has_next_batch(trainer.fit_loop)
        )

    def _is_full(self) -> bool:
        if self.most == "auto":
            return self._made == _MOST or time.monotonic() - self._started > _SECONDS
        return self._made >= self.most


class _PlainCheckpoints:
    """Says when a `ModelCheckpoint` of Lightning's saves."""

    def __init__(self, every_n_train_steps: int) -> None:
        self.every_n_train_steps = every_n_train_steps

    def is_due(self, trainer: Trainer) -> bool:
        return _is_multiple(trainer.global_step, self.every_n_train_steps)


def _is_multiple(step: int, interval: int) -> bool:
    return bool(interval) and step % interval == 0


def _speaks_for_its_hooks(callback: CalledWhenDue) -> bool:
    """Whether no subclass or instance has replaced a hook, but not `is_due`."""
    spaces = (vars(callback), *map(vars, type(callback).__mro__))
    return "is_due" in next(space for space in spaces if not space.keys().isdisjoint(("is_due", *_HOOKS)))


def _overrides(owner: object, base: type, methods: Sequence[str] = _HOOKS) -> bool:
    """Whether a subclass or the instance, such as a `LambdaCallback`, has replaced a method of a class."""
    return any(getattr(getattr(owner, name), "__func__", None) is not getattr(base, name) for name in methods)
