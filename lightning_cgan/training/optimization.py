"""How two networks move: two optimizers under every strategy and precision of Lightning.

The order is always backward, average over processes, un-scale, clip, step, for one network after the other: with
float16 the loss scale may change in each step, so gradients of both must never wait together. A step whose gradient is
not finite is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
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
from lightning_cgan.core.distributed import SyncBatchNorm, average_buffers, average_gradients
from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.contract import ROLES, Role, TrainedModule
from lightning_cgan.training.gradients import leave_out_unless_finite, take_back
from lightning_cgan.training.manual_optimization import (
    check_lengths,
    check_optimizers,
    check_scheduler,
    name_learning_rates,
    step_schedulers,
    warn_of_ended_schedules,
)
from lightning_cgan.training.optimizer_config import Part
from lightning_cgan.training.schedules import give_lengths


class Optimization:
    """The optimizers and schedules of a generator and a discriminator.

    Under DDP the gradients of the network that moves are averaged here, in one message, and DDP's own reducer is left
    idle: it would look for the parameters of both networks in each backward pass, fail where one takes no part, and,
    told to search for such, send the gradients of both every time.

    Args:
        module: Has the networks.
        optimizer_factories: What builds the optimizer of each network.
        scheduler_factories: What builds the learning-rate scheduler of each network, if it has one.
        clip_norms: The largest norm of each network's gradient, if there is one.
        has_own: Whether the module has a `configure_optimizers` of its user's.

    Attributes:
        skipped_steps: The number of updates of each network that were left out, because a gradient was not finite.
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
        self.has_own = has_own
        self.skipped_steps: dict[Role, Tensor] = {role: torch.zeros((), dtype=torch.int64) for role in ROLES}

    # ---- before the first step ---------------------------------------------------------------------------------------

    def configure(self) -> OptimizerLRScheduler:
        """Builds an optimizer, and a scheduler if wanted, for the generator and for the discriminator.

        Raises:
            UsageError: A network has no weights, an optimizer or a scheduler refuses its options, or a scheduler waits
                for a score, of which there is none in each step.
        """
        configured: list[dict[str, Any]] = []
        for role in ROLES:
            network = getattr(self.module, role)
            weights = list(network.parameters())
            if not weights:
                example = "MLPGenerator" if role == "generator" else "MLPDiscriminator"
                raise UsageError(
                    f"{role}: expected a network with weights, got {type(network).__name__}, which has none; name "
                    f"another, such as {example}"
                )
            with _options_of(self.option(role, "optimizer")):
                optimizer = self.optimizer_factories[role](weights)
            configured.append({"optimizer": optimizer})
            scheduler_factory = self.scheduler_factories[role]
            if scheduler_factory is not None:
                with _options_of(self.option(role, "scheduler")):
                    scheduler = scheduler_factory(optimizer)
                    scheduler.state_dict()  # fails for functions that checkpoints cannot hold
                configured[-1]["lr_scheduler"] = {"scheduler": scheduler, "interval": "step"}
        return cast(OptimizerLRScheduler, tuple(configured))

    def option(self, role: Role, part: Part) -> str:
        """The option that gives a network's optimizer, or the scheduler of that; a user's own module may have none."""
        return f"configure_optimizers, {role}_{part}" if self.has_own else f"--model.{role}_{part}"

    def check(self) -> None:
        """Looks at the optimizers and schedulers, of a user's own `configure_optimizers`, too, and names them.

        Schedules that follow the run get its length.

        Raises:
            UsageError: They cannot move the two networks in turn, or follow a run without an end.
        """
        networks: dict[str, nn.Module] = {role: getattr(self.module, role) for role in ROLES}
        trainer = self.module.trainer
        check_optimizers(trainer.optimizers, networks, [self.option(role, "optimizer") for role in ROLES])
        for config in trainer.lr_scheduler_configs:
            check_scheduler(config.scheduler, self._option_of_schedule(config.scheduler.optimizer))
        give_lengths(trainer, self._option_of_schedule)
        name_learning_rates(trainer, ROLES)

    def _option_of_schedule(self, optimizer: Optimizer) -> str:
        return self.option(ROLES[self.module.trainer.optimizers.index(optimizer)], "scheduler")

    def begin(self) -> None:
        """Puts the counts where gradients are, so that nothing waits for a GPU, and compares schedules with the run.

        Raises:
            UsageError: A schedule ends before the run does, and would be an error then.
        """
        # A search for a batch size trains before `check`.
        give_lengths(self.module.trainer, self._option_of_schedule, only_missing=True)
        check_lengths(self.module.trainer, self._option_of_schedule)
        warn_of_ended_schedules(self.module.trainer, self._option_of_schedule)
        self.skipped_steps = {role: skipped.to(self.module.device) for role, skipped in self.skipped_steps.items()}

    # ---- one update --------------------------------------------------------------------------------------------------

    def zero_grad(self, role: Role) -> None:
        """Forgets the gradients of a network."""
        self.optimizer_of(role).zero_grad()

    def optimizer_of(self, role: Role) -> LightningOptimizer:
        """The optimizer of a network."""
        return cast(list[LightningOptimizer], self.module.optimizers())[ROLES.index(role)]

    def step(self, role: Role) -> None:
        """Makes one step of a network's optimizer with the gradients that are there."""
        optimizer, trainer = self.optimizer_of(role), self.module.trainer
        if trainer.world_size > 1:
            # Still scaled: an overflow in one process must reach all before they decide whether to skip the step.
            average_gradients(_parameters(optimizer.optimizer))
        scale = self._loss_scale()
        skipped = leave_out_unless_finite(optimizer.optimizer) if scale is None else None
        if role == "generator":
            optimizer.step()  # counted as the Trainer's step
        else:
            # Through the precision plugin, as every step, but past Lightning's counter.
            trainer.strategy.optimizer_step(optimizer.optimizer, closure=_nothing)
        if skipped is None:
            # The scaler backs off when it skips a step, and only then.
            skipped = cast(Tensor, self._loss_scale()) < cast(Tensor, scale)
        else:
            take_back(optimizer.optimizer)
        self.skipped_steps[role] += skipped

    def clip(self, optimizer: Optimizer) -> None:
        """Clips the gradient of the network that is about to move, by its true norm.

        Lightning's `clip_gradients` refuses fused optimizers, which un-scale float16 gradients within their step.
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
        nn.utils.clip_grad_norm_(_parameters(optimizer), clip_norm)

    def finish_step(self) -> None:
        """Steps the learning-rate schedules, and makes what the networks measured the same in all processes."""
        step_schedulers(self.module.trainer, self._option_of_schedule)
        if self.module.trainer.world_size > 1:
            for role in ROLES:
                average_buffers(getattr(self.module, role))

    # ---- skipped steps -----------------------------------------------------------------------------------------------

    def tell_skipped(self) -> None:
        """Tells how many updates were skipped."""
        normal = "; a few are normal, while float16's loss scale is being found" if self.scaler() is not None else ""
        for role, skipped in self.skipped_steps.items():
            if skipped:
                rank_zero_info(
                    f"{int(skipped)} updates of the {role} were skipped, because gradients were not finite{normal}"
                )

    def skipped_scalars(self) -> dict[str, Tensor]:
        """The counts of skipped updates as scalars to log, if there are any, and always with float16."""
        counts = {f"{role}_skipped_steps": skipped.clone() for role, skipped in self.skipped_steps.items()}
        return counts if self.scaler() is not None or any(counts.values()) else {}

    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales float16 losses, if they are."""
        return getattr(self.module.trainer.precision_plugin, "scaler", None)

    def _loss_scale(self) -> Tensor | None:
        """The scale of float16 losses, if there is one, on its device: `get_scale` would make a GPU wait."""
        scaler = self.scaler()
        return None if scaler is None else scaler.scale(torch.ones((), device=self.module.device))


def prepare_strategy(strategy: Strategy) -> None:
    """Refuses strategies that cut up the networks, and lets `sync_batchnorm` work on a CPU too.

    Raises:
        UsageError: The strategy is neither one for a single device nor DDP, or reduces gradients in its own way.
    """
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise UsageError(
            f"--trainer.strategy: expected ddp or a single device, got {type(strategy).__name__}; the networks are "
            "small enough for each process to hold both: use ddp"
        )
    if has_comm_hook(strategy):
        raise UsageError(
            "--trainer.strategy: expected a DDPStrategy without ddp_comm_hook, got one with it; the module "
            "averages gradients itself, so leave the hook out"
        )
    if isinstance(strategy, DDPStrategy):
        leave_out_static_graph(strategy)  # advice for the reducer, which would be missed by Lightning
    if strategy.root_device.type == "cpu":
        replace_layer_sync(strategy, _SyncBatchNormOnCPU())


class _SyncBatchNormOnCPU(LayerSync):
    """Changes the class of every batch normalisation while a run lasts: PyTorch's own conversion is for GPUs alone."""

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
    """Makes one line of what PyTorch says of options that it refuses."""
    try:
        yield
    except UsageError as error:  # which begins with the name of an argument
        raise UsageError(f"{option}.{error}") from error
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{option}: expected options that suit it, got others ({reason}); change them") from error


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _nothing() -> None:
    """The closure of an optimizer step whose gradients are already there."""
