"""Decide whether steps run compiled or as graphs, and run them so."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.compile import to_uncompiled
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import Optimizer

from lightning_cgan.core.compat import count_step, is_compiled_in_place
from lightning_cgan.core.errors import FusionError, UsageError
from lightning_cgan.core.hardware import ask_for_gpus_cheaply
from lightning_cgan.objectives.inputs import StepInputs
from lightning_cgan.objectives.objectives import Penalties
from lightning_cgan.training.contract import ROLES, TrainedModule
from lightning_cgan.training.fused_adam import check_optimizer
from lightning_cgan.training.fused_step import FusedStep, StepParts
from lightning_cgan.training.optimization import Optimization, scaler_of
from lightning_cgan.training.scalars import Scalars

Compiled = Literal["none", "networks", "step"]
COMPILED: tuple[Compiled, ...] = get_args(Compiled)

# Not called in a step that is a graph: hooks of callbacks, and methods of the module.
_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_METHODS = (*_HOOKS, "update_discriminator", "update_generator", "manual_backward", "backward")


class Compilation:
    """Runs steps compiled or as graphs where possible, and logs the reason where not.

    Attributes:
        fused_step: The graphs of the run, if there are any.
    """

    def __init__(
        self, module: TrainedModule, optimization: Optimization, scalars: Scalars, mode: Compiled, cuda_graph: bool
    ) -> None:
        self.module, self.optimization, self.scalars = module, optimization, scalars
        self.mode = mode
        self._is_automatic = False  # `choose` has set the mode
        self.cuda_graph = cuda_graph
        self.fused_step: FusedStep | None = None
        self._parts: StepParts | None = None  # of the last step, if a graph ran it
        self._checked_callbacks: list[Any] | None = None  # when `_check_overrides` last passed

    def choose(self, mode: Compiled) -> None:
        """Sets the mode in place of the user, before a fit; checkpoints record it like one that was given."""
        self.mode, self._is_automatic = mode, True
        module: Any = self.module
        module.hparams["compile"] = module.init_args["compile"] = mode

    def obstacle(self, trainer: Trainer) -> str | None:
        """Returns why a graph cannot hold the steps of the fit that a Trainer is about to begin, if that is known."""
        configured = cast(Sequence[dict[str, Any]], self.optimization.configure())
        try:
            self._check_run(trainer)
            self._check_step(trainer, [entry["optimizer"] for entry in configured])
        except FusionError as error:
            return str(error)
        return None

    def prepare(self) -> None:
        """Compiles the networks, if they are to be compiled separately."""
        if _undo_compile(cast(LightningModule, self.module)):
            self.mode = "networks" if self.mode == "none" else self.mode
            rank_zero_info(
                f"{type(self.module).__name__} was compiled as a whole, which breaks at each backward pass: it runs "
                f"as with compile={self.mode!r} instead"
            )
        if self.mode == "networks":
            if not self.has_compiler():
                raise UsageError(
                    "compile: expected a C++ compiler and Python.h for a CPU, got a machine that lacks one of them; "
                    "install g++ and python3-dev, or give none"
                )
            self.compile_networks()

    def begin(self) -> None:
        """Decides whether the steps of a run are graphs."""
        ask_for_gpus_cheaply()
        self.fused_step, self._parts, self._checked_callbacks = None, None, None
        is_graph = self.module.device.type == "cuda" and self.cuda_graph and self.mode == "none"
        if self.mode != "step" and not is_graph:
            return
        try:
            self.fused_step = self._fuse()
        except FusionError as error:
            self._fall_back(str(error))

    def _fuse(self) -> FusedStep:
        """Prepares to record steps as graphs, or raises a `FusionError`."""
        self._check_run(self.module.trainer)
        self._check_step(self.module.trainer, self.module.trainer.optimizers)
        compiles = self.mode == "step"
        if compiles and not self.has_compiler():
            rank_zero_info(
                "A step is one graph, but not compiled: there is no C++ compiler, such as g++, or Python.h is missing"
            )
            compiles = False
        return FusedStep(self.optimization.skipped_steps, compiles, self.cuda_graph, rank_zero_info)

    @staticmethod
    def _check_run(trainer: Trainer) -> None:
        """Raises a `FusionError` for what a graph cannot hold, where that stays the same during a run."""
        if trainer.world_size > 1:
            raise FusionError("processes average their gradients within it")
        if scaler_of(trainer) is not None:
            raise FusionError("float16 checks gradients before each step")

    def _check_step(self, trainer: Trainer, optimizers: Sequence[Optimizer]) -> None:
        """Raises a `FusionError` for what a graph cannot hold, where that may change between steps."""
        if any(self.optimization.clip_norms.values()):
            raise FusionError("clip_norm checks gradients before each step")
        if self.module.accumulates:
            raise FusionError("an update is accumulated")
        for optimizer in optimizers:
            check_optimizer(optimizer)
        for owner, methods in ((self.module, _METHODS), (self.optimization, ("step",))):
            if not vars(owner).keys().isdisjoint(methods):
                raise FusionError(f"{type(owner).__name__} has a custom method for a part of it")
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if callbacks != self._checked_callbacks:
            self._check_overrides(trainer)
            self._checked_callbacks = list(callbacks)

    def _check_overrides(self, trainer: Trainer) -> None:
        """Raises a `FusionError` if a class overrides a part of a step."""
        package = __name__.partition(".")[0]
        own = type(self.module)
        ours = next(kind for kind in own.__mro__ if kind.__module__.partition(".")[0] == package)
        for method in _METHODS:
            if getattr(own, method, None) is not getattr(ours, method, None):
                raise FusionError(f"{own.__name__}.{method} would not be called")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            for hook in _HOOKS:
                if is_overridden(hook, callback, Callback):
                    raise FusionError(f"{type(callback).__name__}.{hook} would not be called")
        for part in (trainer.strategy, trainer.precision_plugin):
            if type(part).__module__.partition(".")[0] not in ("lightning", "pytorch_lightning", package):
                raise FusionError(f"{type(part).__name__} may change steps")

    def _fall_back(self, reason: str) -> None:
        rank_zero_info(f"A step is not run as one graph: {reason}")
        self.fused_step = None
        # Nobody asked for it if the mode was chosen; if a graph did not compile, networks may not compile either.
        if self.mode == "step" and self.has_compiler() and not self._is_automatic:
            self.compile_networks()

    def run_step(self, inputs: StepInputs, penalties: Penalties, continues: bool) -> bool:
        """Runs a step as a graph if possible for such inputs; see `FusedStep`."""
        if self.fused_step is None:
            return False
        seconds = self.fused_step.seconds
        last, self._parts = self._parts, None
        try:
            parts = last if continues and last is not None else self._find_parts()
            if not self.fused_step.accepts(inputs):
                return False
            means = self.fused_step.run(parts, inputs, penalties, continues=parts is last)
        except FusionError as error:
            self._fall_back(str(error))
            return False
        self._parts = parts
        self.scalars.stopwatch.subtract(self.fused_step.seconds - seconds)
        self.scalars.add(means)
        # A graph bypasses Lightning's optimizers.
        optimizers = parts.generator_optimizer, parts.discriminator_optimizer
        count_step(self.optimization.optimizer_of("generator"), optimizers)
        return True

    def _find_parts(self) -> StepParts:
        """Returns the parts of a step, or raises a `FusionError` if a graph cannot hold it."""
        module, optimizers = self.module, self.module.trainer.optimizers
        self._check_step(module.trainer, optimizers)
        return StepParts(module.generator, module.discriminator, module.objectives, module.input_sampler, *optimizers)

    def compile_networks(self) -> None:
        """Compiles the networks in place, unless they are compiled already.

        A network with spectral normalisation is not compiled: each forward pass changes in place what the backward pass
        of another compiled pass, such as that of a penalty, still needs.
        """
        for role in ROLES:
            network = getattr(self.module, role)
            if not is_compiled_in_place(network) and not any(map(is_parametrized, network.modules())):
                network.compile()

    def has_compiler(self) -> bool:
        """Whether `torch.compile` finds what it needs; see `has_compiler_for_cpu`."""
        return self.module.trainer.strategy.root_device.type != "cpu" or has_compiler_for_cpu()

    def in_use(self) -> str:
        """Names what is compiled or a graph, as stored in checkpoints."""
        if self.fused_step is not None:
            return "step, compiled" if self.fused_step.compiles else "step"
        networks = [getattr(self.module, role) for role in ROLES]
        return "networks" if any(map(is_compiled_in_place, networks)) else "none"

    def __getstate__(self) -> dict[str, Any]:
        """Omits the graphs, which are tied to the memory addresses of this module's weights; a copy makes its own."""
        return {**vars(self), "fused_step": None, "_parts": None, "_checked_callbacks": None}


def has_compiler_for_cpu() -> bool:
    """Whether there is what `torch.compile` needs for a CPU: a C++ compiler, and Python's headers."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return has_headers and any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl")))


def _undo_compile(module: LightningModule) -> bool:
    """Undoes `torch.compile` of a whole module, and returns whether it was compiled."""
    try:
        to_uncompiled(module)
    except ValueError:  # Lightning's only sign that it was not compiled
        return False
    return True
