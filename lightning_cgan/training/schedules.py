"""Learning-rate schedules that are as long as the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import PolynomialLR, SequentialLR

from lightning_cgan.core.compat import MILESTONES, PARTS_OF_SCHEDULE, forget_loader
from lightning_cgan.core.errors import UsageError, check_positive

# From an optimizer to the name of the option that configures its scheduler
NameOfScheduler = Callable[[Optimizer], str]


class LinearDecay(PolynomialLR):
    """Lowers the learning rate linearly, from that of the optimizer to zero at the end of the run.

    A fit by a `ConditionalGAN` sets its length: the steps of the run, from the Trainer's `max_steps` and `max_epochs`,
    whichever ends the run first; the number of epochs, if it is stepped once per epoch; or, in a `SequentialLR`, the
    part of either that it covers. So `--trainer.max_steps 1000` alone makes a shorter run of the same shape. The rates
    equal those of `torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters)` to the last bit.

    `generator_scheduler` and `discriminator_scheduler` also take any other scheduler of PyTorch, or a custom
    subclass of `LRScheduler`; nothing has to be registered. Only `LinearDecay` and its subclasses get their length
    from the run.

    Examples:
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> scheduler = LinearDecay(optimizer, total_iters=4)
        >>> for _ in range(4):
        ...     optimizer.step()
        ...     scheduler.step()
        ...     print(optimizer.param_groups[0]["lr"])
        0.75
        0.5
        0.25
        0.0

    Args:
        optimizer: Sets the rate from which the decay starts.
        total_iters: The number of steps until zero, 1 or more; that of the run if not given.
        last_epoch: The number of steps already taken, minus one; -1 for a new schedule.

    Attributes:
        follows_run: Whether its length is that of the run.
        total_iters: The number of steps until zero; 0 until it is known.

    Raises:
        UsageError: `total_iters` is 0 or negative; or, in a step, the length is not known yet.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int | None = None, last_epoch: int = -1) -> None:
        check_positive("total_iters", total_iters)
        self.follows_run = total_iters is None
        super().__init__(optimizer, total_iters=total_iters or 0, last_epoch=last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rates of the next step, one for each parameter group."""
        if self.last_epoch > 0:  # the initial rates are the optimizer's, whatever the length
            self._check_length()
        return super().get_lr()

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        self._check_length()  # called by `SequentialLR` at the start of a part
        return super()._get_closed_form_lr()

    def _check_length(self) -> None:
        if not self.total_iters:
            raise UsageError(
                "LinearDecay: expected a length before its first step, got none; ConditionalGAN sets it when a fit "
                "starts, elsewhere give total_iters"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the state with the keys of PolynomialLR's, so that each can load that of the other."""
        return {key: value for key, value in super().state_dict().items() if key != "follows_run"}


def give_lengths(trainer: Trainer, name: NameOfScheduler, only_missing: bool = False) -> None:
    """Sets the length of each `LinearDecay` that follows the run, or only of those that have none yet.

    Raises:
        UsageError: The length of the run is unknown.
    """
    had_loader = trainer.train_dataloader is not None
    for config in trainer.lr_scheduler_configs:
        decays = [decay for decay in _decays(config.scheduler) if not (only_missing and decay.total_iters)]
        if not decays:
            continue
        length = _steps_to_go(trainer, config.interval)
        if length == math.inf:
            raise UsageError(
                f"{name(config.scheduler.optimizer)}: expected a run with an end for LinearDecay, got "
                f"{_describe_endless(trainer)}; give --trainer.max_steps, or total_iters"
            )
        # One rate per step: that of the last step is not zero yet.
        _give_length(config.scheduler, math.ceil(length / config.frequency))
    if not had_loader and trainer.ckpt_path is not None:
        # Lightning restores the states of loaders when it sets them up, and has not read the checkpoint yet.
        forget_loader(trainer.fit_loop)


def length_of_run(trainer: Trainer, interval: str) -> float:
    """Returns the number of steps or epochs that the limits of a Trainer allow.

    Args:
        trainer: Is about to fit. Where epochs matter, its training loader is set up.
        interval: `step` for steps, `epoch` for epochs.

    Returns:
        The number; infinity if it is unknown.
    """
    if trainer.train_dataloader is None and (trainer.max_epochs != -1 or interval == "epoch"):
        trainer.fit_loop.setup_data()  # otherwise Lightning does, with a log line
    steps = trainer.estimated_stepping_batches
    steps = steps if steps >= 0 else math.inf  # for a loader without a length, without `max_steps`
    batches = trainer.num_training_batches
    if interval == "step":
        return steps
    if batches < math.inf and steps < math.inf:
        return math.ceil(steps / max(1, batches))
    return math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs


def _steps_to_go(trainer: Trainer, interval: str) -> float:
    """Returns the length of the fit ahead: another fit of the same Trainer starts its schedules again."""
    if trainer.limit_train_batches == 0:
        return 0  # a fit without steps
    begun = trainer.global_step if interval == "step" else trainer.current_epoch
    return length_of_run(trainer, interval) - (begun if trainer.ckpt_path is None else 0)


def _decays(scheduler: Any) -> list[LinearDecay]:
    """Returns each `LinearDecay` that follows the run, among a scheduler and its parts."""
    return [part for part in parts_of_schedule(scheduler) if isinstance(part, LinearDecay) and part.follows_run]


def parts_of_schedule(scheduler: Any) -> list[Any]:
    """Returns a scheduler and those of which it consists."""
    parts = getattr(scheduler, PARTS_OF_SCHEDULE, ())
    return [scheduler, *(inner for part in parts for inner in parts_of_schedule(part))]


def _give_length(scheduler: Any, length: int) -> None:
    if isinstance(scheduler, LinearDecay) and scheduler.follows_run:
        scheduler.total_iters = max(1, length)
    parts = getattr(scheduler, PARTS_OF_SCHEDULE, ())
    begins, ends = [0] * len(parts), [length] * len(parts)
    if isinstance(scheduler, SequentialLR):  # its parts run one after the other
        begins[1:] = ends[:-1] = getattr(scheduler, MILESTONES)
    for part, begin, end in zip(parts, begins, ends, strict=True):
        _give_length(part, min(end, length) - begin)


def _describe_endless(trainer: Trainer) -> str:
    if trainer.max_epochs not in (None, -1):
        return "epochs of unknown length"
    limits = f"--trainer.max_steps {trainer.max_steps} and --trainer.max_epochs -1"
    is_timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return f"{limits}, which only --trainer.max_time ends" if is_timed else limits
