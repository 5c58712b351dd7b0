"""Duties that manual optimization leaves to the module: checking optimizers and schedulers, and stepping schedulers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Optimizer, SparseAdam
from torch.optim.lr_scheduler import ChainedScheduler, OneCycleLR, ReduceLROnPlateau

from lightning_cgan.core.compat import PARTS_OF_SCHEDULE, rename_rates, saves_by_time
from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.gradients import parameters_of
from lightning_cgan.training.schedules import NameOfScheduler, length_of_run


def check_optimizers(optimizers: Sequence[Optimizer], networks: Mapping[str, nn.Module], names: Sequence[str]) -> None:
    """Rejects optimizers that cannot update the networks in turn; `names` are the options that configure them.

    Raises:
        UsageError: They are not two, the generator's first, or need more than one dense gradient.
    """
    if len(optimizers) != len(networks):
        raise UsageError(
            f"configure_optimizers: expected two optimizers, that of the generator first, got {len(optimizers)}; "
            "return one for each network"
        )
    owners = {id(parameter): role for role, network in networks.items() for parameter in network.parameters()}
    for name, role, optimizer in zip(names, networks, optimizers, strict=True):
        others = {owners.get(id(parameter), role) for parameter in parameters_of(optimizer)} - {role}
        if others:
            raise UsageError(
                f"{name}: expected an optimizer of the {role} only, got weights of the {others.pop()}; "
                "return that of the generator first, then that of the discriminator"
            )
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        needs_closure = closure is not None and closure.default is inspect.Parameter.empty
        if needs_closure or isinstance(optimizer, SparseAdam):
            needs = "gradients more than once in a step" if needs_closure else "sparse gradients"
            raise UsageError(
                f"{name}: expected an optimizer that takes one dense gradient, got {type(optimizer).__name__}, which "
                f"needs {needs}; choose another, such as Adam"
            )


def check_schedulers(trainer: Trainer, name: NameOfScheduler) -> None:
    """Rejects ReduceLROnPlateau, which cannot be stepped without a metric."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            raise UsageError(
                f"{name(config.scheduler.optimizer)}: expected a scheduler that counts steps, got ReduceLROnPlateau, "
                "which needs a metric; choose another, such as LinearDecay"
            )


def check_lengths(trainer: Trainer, name: NameOfScheduler) -> None:
    """Rejects a OneCycleLR that would end, with an error, before the run does."""
    for config in trainer.lr_scheduler_configs:
        for scheduler in _stepped_together(config.scheduler):
            if isinstance(scheduler, OneCycleLR):
                length = length_of_run(trainer, config.interval)
                steps = math.inf if length == math.inf else length // config.frequency
                if scheduler.total_steps < steps < math.inf:
                    raise UsageError(
                        f"{name(scheduler.optimizer)}.total_steps: expected at least the {steps} steps of the run, got "
                        f"{scheduler.total_steps}; give {steps}, or shorten the run (--trainer.max_steps)"
                    )


def _stepped_together(scheduler: Any) -> list[Any]:
    """Returns a scheduler, or those that are stepped together as one."""
    if not isinstance(scheduler, ChainedScheduler):
        return [scheduler]
    return [one for part in getattr(scheduler, PARTS_OF_SCHEDULE) for one in _stepped_together(part)]


def step_schedulers(trainer: Trainer, name: NameOfScheduler) -> None:
    """Steps the schedulers that are scheduled after this step: by its number, or in the last one of an epoch."""
    for config in trainer.lr_scheduler_configs:
        if config.interval == "step":
            is_due = trainer.global_step % config.frequency == 0
        else:  # before saving, so that each checkpoint at the epoch's end includes it
            is_due = trainer.is_last_batch and (trainer.current_epoch + 1) % config.frequency == 0
        if is_due:
            try:
                config.scheduler.step()  # type: ignore[call-arg] # none needs a metric
            except (ArithmeticError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UsageError(
                    f"{name(config.scheduler.optimizer)}: expected a schedule for the whole run, got one that fails at "
                    f"step {trainer.global_step} ({reason}); change its options"
                ) from error


def warn_of_ended_schedules(trainer: Trainer, name: NameOfScheduler) -> None:
    """Warns if a run resumes after the end of its schedule, with a learning rate of 0."""
    for config in trainer.lr_scheduler_configs:
        optimizer = config.scheduler.optimizer
        if trainer.global_step and all(float(group["lr"]) == 0 for group in optimizer.param_groups):
            rank_zero_warn(
                f"{name(optimizer)}: the learning rate is 0 from step {trainer.global_step} on, where the schedule has "
                "ended; make it longer (total_iters, for example), or the network learns nothing more"
            )


def name_learning_rates(trainer: Trainer, roles: Sequence[str]) -> None:
    """Makes Lightning's `LearningRateMonitor` log rates under the names of the networks, unless the user named them."""
    names = {id(optimizer): f"lr-{role}" for optimizer, role in zip(trainer.optimizers, roles, strict=True)}
    for config in trainer.lr_scheduler_configs:
        config.name = config.name or names[id(config.scheduler.optimizer)]
    for monitor in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(monitor, LearningRateMonitor):
            _name_rates_without_schedule(monitor, names)


def _name_rates_without_schedule(monitor: LearningRateMonitor, names: Mapping[int, str]) -> None:
    """Renames rates that Lightning names by the class of the optimizer, without an option to change that."""

    def rename(optimizer: Optimizer, name: str, found: list[str]) -> list[str]:
        begins = f"lr-{type(optimizer).__name__}"
        ours = names.get(id(optimizer))
        if ours is None or name != begins:
            return found
        endings = (found_name.removeprefix(begins).partition("/") for found_name in found)
        return [f"{ours}{slash}{group}" for _, slash, group in endings]

    rename_rates(monitor, rename)


def save_by_time(trainer: Trainer) -> None:
    """Lets each `ModelCheckpoint(train_time_interval=…)` check its clock, as in automatic optimization."""
    automatic = cast(LightningModule, SimpleNamespace(automatic_optimization=True))
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and saves_by_time(callback):
            ModelCheckpoint.on_train_batch_end(callback, trainer, automatic, None, None, 0)
