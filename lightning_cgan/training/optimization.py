"""The updates of two networks by two optimizers, under each supported strategy and precision of Lightning.

The order is always backward, average over processes, unscale, clip, step, for one network after the other: with
float16 the loss scale may change in each step, so gradients of both must never be pending together. A step whose
gradient is not finite is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cgan.core.compat import (
    has_comm_hook,
    is_batch_norm,
    leave_out_static_graph,
    replace_layer_sync,
    takes_found_inf,
)
from lightning_cgan.core.distributed import SyncBatchNorm, average_buffers
from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.contract import ROLES, Role, TrainedModule
from lightning_cgan.training.gradients import average_gradients, parameters_of, skip_nonfinite_step
from lightning_cgan.training.manual_optimization import (
    check_lengths,
    check_optimizers,
    check_schedulers,
    name_learning_rates,
    step_schedulers,
    warn_of_ended_schedules,
)
from lightning_cgan.training.optimizer_config import Part
from lightning_cgan.training.schedules import give_lengths


class Optimization:
    """The optimizers and schedulers of a generator and a discriminator.

    Under DDP the gradients of the network being updated are averaged here, in one message, and DDP's own reducer is not
    used: it would expect the parameters of both networks in each backward pass, fail where some are unused, and, if set
    to find unused ones, send the gradients of both networks every time.

    Attributes:
        skipped_steps: The number of updates of each network skipped because a gradient was not finite.
    """

    def __init__(
        self,
        module: TrainedModule,
        optimizer_factories: dict[Role, OptimizerCallable],
        scheduler_factories: dict[Role, LRSchedulerCallable | None],
        clip_norms: dict[Role, float | None],
        has_own: bool = False,
    ) -> None:
        self.module = module
        self.optimizer_factories = optimizer_factories
        self.scheduler_factories = scheduler_factories
        self.clip_norms = clip_norms
        self.has_own = has_own  # a subclass overrides `configure_optimizers`
        self.skipped_steps: dict[Role, Tensor] = {role: torch.zeros((), dtype=torch.int64) for role in ROLES}

    # ---- before the first step ---------------------------------------------------------------------------------------

    def configure(self) -> OptimizerLRScheduler:
        """Builds an optimizer and, if configured, a scheduler for the generator and for the discriminator.

        Raises:
            UsageError: An optimizer or a scheduler rejects its options, or a scheduler cannot be saved in checkpoints.
        """
        configured: list[dict[str, Any]] = []
        for role in ROLES:
            network = getattr(self.module, role)
            weights = list(network.parameters())
            with _options_of(self.option(role, "optimizer")):
                optimizer = self.optimizer_factories[role](weights)
            configured.append({"optimizer": optimizer})
            scheduler_factory = self.scheduler_factories[role]
            if scheduler_factory is not None:
                with _options_of(self.option(role, "scheduler")):
                    scheduler = scheduler_factory(optimizer)
                    scheduler.state_dict()  # fails for functions that a checkpoint cannot store
                configured[-1]["lr_scheduler"] = {"scheduler": scheduler, "interval": "step"}
        return cast(OptimizerLRScheduler, tuple(configured))

    def option(self, role: Role, part: Part) -> str:
        """Names the option for a network's optimizer or scheduler; a user's own module may have none."""
        return f"configure_optimizers, {role}_{part}" if self.has_own else f"--model.{role}_{part}"

    def check(self) -> None:
        """Validates the optimizers and schedulers, including those of a custom `configure_optimizers`, and names them.

        Schedules that follow the run get its length.

        Raises:
            UsageError: They cannot update the two networks in turn, a scheduler needs a metric, or a schedule follows a
                run without an end.
        """
        networks: dict[str, nn.Module] = {role: getattr(self.module, role) for role in ROLES}
        trainer = self.module.trainer
        check_optimizers(trainer.optimizers, networks, [self.option(role, "optimizer") for role in ROLES])
        check_schedulers(trainer, self._option_of_schedule)
        give_lengths(trainer, self._option_of_schedule)
        name_learning_rates(trainer, ROLES)

    def _option_of_schedule(self, optimizer: Optimizer) -> str:
        return self.option(ROLES[self.module.trainer.optimizers.index(optimizer)], "scheduler")

    def begin(self) -> None:
        """Moves the counts to the device of the gradients, to avoid waiting for a GPU, and checks schedules."""
        # A search for a batch size trains before `check`.
        give_lengths(self.module.trainer, self._option_of_schedule, only_missing=True)
        check_lengths(self.module.trainer, self._option_of_schedule)
        warn_of_ended_schedules(self.module.trainer, self._option_of_schedule)
        self.skipped_steps = {role: skipped.to(self.module.device) for role, skipped in self.skipped_steps.items()}

    # ---- one update --------------------------------------------------------------------------------------------------

    def zero_grad(self, role: Role) -> None:
        """Clears the gradients of a network."""
        self.optimizer_of(role).zero_grad()

    def optimizer_of(self, role: Role) -> LightningOptimizer:
        """Returns the optimizer of a network."""
        return cast(list[LightningOptimizer], self.module.optimizers())[ROLES.index(role)]

    def step(self, role: Role) -> None:
        """Takes one step of a network's optimizer with its current gradients."""
        optimizer, trainer = self.optimizer_of(role), self.module.trainer
        if trainer.world_size > 1:
            # Still scaled: an overflow in one process must reach all before they decide whether to skip the step.
            average_gradients(parameters_of(optimizer.optimizer))
        scale = self._loss_scale()
        if scale is None:
            with skip_nonfinite_step(optimizer.optimizer) as skipped:
                self._apply(role, optimizer)
        else:  # the scaler lowers its scale when it skips a step, and only then
            self._apply(role, optimizer)
            skipped = cast(Tensor, self._loss_scale()) < scale
        self.skipped_steps[role] += skipped

    def _apply(self, role: Role, optimizer: LightningOptimizer) -> None:
        if role == "generator":
            optimizer.step()  # counted in the Trainer's `global_step`
        else:
            # Through the precision plugin, like every step, but not through Lightning's step counter.
            self.module.trainer.strategy.optimizer_step(optimizer.optimizer, closure=_empty_closure)

    def clip(self, optimizer: Optimizer) -> None:
        """Clips the gradient of the network that is about to be updated, by its unscaled norm.

        Lightning's `clip_gradients` rejects fused optimizers, which unscale float16 gradients within their step.
        """
        if not any(self.clip_norms.values()):
            return
        is_generator = optimizer is self.optimizer_of("generator").optimizer
        clip_norm = self.clip_norms["generator" if is_generator else "discriminator"]
        if clip_norm is None:
            return
        scaler = self.scaler()
        if scaler is not None and takes_found_inf(optimizer):
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters_of(optimizer), clip_norm)

    def finish_step(self) -> None:
        """Steps the learning-rate schedulers, and averages the networks' buffers over processes."""
        step_schedulers(self.module.trainer, self._option_of_schedule)
        if self.module.trainer.world_size > 1:
            for role in ROLES:
                average_buffers(getattr(self.module, role))

    # ---- skipped steps -----------------------------------------------------------------------------------------------

    def log_skipped(self) -> None:
        """Logs how many updates were skipped."""
        normal = "; a few are normal while float16's loss scale adjusts" if self.scaler() is not None else ""
        for role, skipped in self.skipped_steps.items():
            if skipped:
                rank_zero_info(
                    f"{int(skipped)} updates of the {role} were skipped, because gradients were not finite{normal}"
                )

    def skipped_scalars(self) -> dict[str, Tensor]:
        """Returns the counts of skipped updates to log, if there are any, and always with float16."""
        counts = {f"{role}_skipped_steps": skipped.clone() for role, skipped in self.skipped_steps.items()}
        return counts if self.scaler() is not None or any(counts.values()) else {}

    def scaler(self) -> torch.amp.GradScaler | None:
        """Returns the scaler of float16 losses, if there is one."""
        return scaler_of(self.module.trainer)

    def _loss_scale(self) -> Tensor | None:
        """Returns the scale of float16 losses, if there is one, on its device: `get_scale` would make a GPU wait."""
        scaler = self.scaler()
        return None if scaler is None else scaler.scale(torch.ones((), device=self.module.device))


def scaler_of(trainer: Trainer) -> torch.amp.GradScaler | None:
    """Returns the scaler of float16 losses under a Trainer, if there is one."""
    return getattr(trainer.precision_plugin, "scaler", None)


def prepare_strategy(strategy: Strategy) -> None:
    """Rejects strategies that shard the networks, and makes `sync_batchnorm` work on a CPU too.

    Raises:
        UsageError: The strategy is neither for a single device nor DDP, or has a custom gradient reduction.
    """
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise UsageError(
            f"--trainer.strategy: expected ddp or a single device, got {type(strategy).__name__}; the networks are "
            "small enough for each process to hold both: use ddp"
        )
    if has_comm_hook(strategy):
        raise UsageError(
            "--trainer.strategy: expected a DDPStrategy without ddp_comm_hook, got one with it; the module "
            "averages gradients itself, so remove the hook"
        )
    if isinstance(strategy, DDPStrategy):
        leave_out_static_graph(strategy)  # with it, Lightning would call the unused reducer
    if strategy.root_device.type == "cpu":
        replace_layer_sync(strategy, _SyncBatchNormOnCPU())


class _SyncBatchNormOnCPU(LayerSync):
    """Replaces the class of each batch normalisation during a run, since PyTorch's conversion supports only GPUs."""

    def __init__(self) -> None:
        self.classes: dict[nn.Module, type[nn.Module]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if is_batch_norm(module):
                self.classes[module] = type(module)
                module.__class__ = SyncBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for module, original in self.classes.items():
            module.__class__ = original
        return model


@contextmanager
def _options_of(option: str) -> Iterator[None]:
    """Turns PyTorch's errors about invalid options into one line."""
    try:
        yield
    except UsageError as error:  # its message starts with the name of an argument
        raise UsageError(f"{option}.{error}") from error
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{option}: expected valid options, got invalid ones ({reason}); change them") from error


def _empty_closure() -> None:
    """The closure of an optimizer step whose gradients have been computed."""
