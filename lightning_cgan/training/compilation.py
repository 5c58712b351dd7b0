"""When and how alternations run compiled, or as one graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from operator import is_
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.compile import to_uncompiled
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.utils.parametrize import is_parametrized

from lightning_cgan.core.errors import CaptureError, UsageError
from lightning_cgan.core.hardware import ask_for_gpus_cheaply
from lightning_cgan.objectives.inputs import Dealer, Round
from lightning_cgan.objectives.objectives import Objectives, Penalties
from lightning_cgan.training.fused_adam import why_not_in_a_graph
from lightning_cgan.training.fused_step import CapturedAlternation
from lightning_cgan.training.optimization import ROLES, Engine, Role
from lightning_cgan.training.scalars import Reporter

Compiled = Literal["none", "networks", "alternation"]

# What is not called where an alternation is a graph: hooks of callbacks, and methods of the module.
_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_METHODS = (*_HOOKS, "_alternate", "_update_discriminator", "_update_generator", "manual_backward", "backward", "move")


class GraphEngine(Engine, Reporter):
    """An engine that runs alternations as graphs where it can, and says why where it cannot.

    Attributes:
        compiled: What `torch.compile` fuses.
        cuda_graph: Whether a GPU runs alternations as CUDA graphs.
        accumulation: The number of parts that the batch of each network's update is cut into.
        objectives: What the networks minimise.
        dealer: Augments the generated images.
        captured: The graphs of the run, if there are any.
    """

    compiled: Compiled
    cuda_graph: bool
    accumulation: dict[Role, int]
    objectives: Objectives
    dealer: Dealer
    captured: CapturedAlternation | None = None
    _looked_at: tuple[Any, str | None] = (None, None)  # callbacks, and who watches

    def prepare_compilation(self) -> None:
        """Compiles the networks, if they are to be compiled one by one.

        Raises:
            UsageError: There is nothing that compiles.
        """
        if self._compiler_ctx is not None:  # by torch.compile(module), which Lightning takes apart
            to_uncompiled(self)
            self.compiled = "networks" if self.compiled == "none" else self.compiled
            rank_zero_info(
                f"{type(self).__name__} was compiled as a whole, which stops at each backward pass: it is run as with "
                f"compile={self.compiled!r} instead"
            )
        if self.compiled == "networks":
            if not self.has_compiler():
                raise UsageError("compile: expected a C++ compiler for a CPU, got none; install g++, or choose none")
            self.compile_networks()

    def on_train_start(self) -> None:
        """Starts the clock, and decides whether alternations run as graphs."""
        super().on_train_start()
        ask_for_gpus_cheaply()
        self.captured, self._looked_at = None, (None, None)
        is_graph = self.device.type == "cuda" and self.cuda_graph and self.compiled == "none"
        if self.compiled != "alternation" and not is_graph:
            return
        try:
            self.captured = self._capture()
        except CaptureError as error:
            self._do_not_capture(str(error))

    def _capture(self) -> CapturedAlternation:
        """Gets ready to record alternations as graphs.

        Raises:
            CaptureError: An alternation cannot be one.
        """
        reason = self.why_not_captured()
        if reason is not None:
            raise CaptureError(reason)
        compiles = self.compiled == "alternation"
        if compiles and not self.has_compiler():
            rank_zero_info("An alternation is one graph, but not compiled: there is no C++ compiler, such as g++")
            compiles = False
        run: dict[str, Any] = {"skipped_steps": self.skipped_steps, "compiles": compiles, "tell": rank_zero_info}
        return CapturedAlternation(*self._parts(), **run)

    def _parts(self) -> tuple[Any, ...]:
        """What graphs are recorded of."""
        return self.generator, self.discriminator, self.objectives, self.dealer, *self.trainer.optimizers

    def why_not_captured(self) -> str | None:
        """Why an alternation cannot be one graph, if it cannot."""
        if self.trainer.world_size > 1:
            return "processes average their gradients within it"
        if self.scaler() is not None:
            return "float16 looks at gradients before each step"
        return self._why_not_now()

    def _why_not_now(self) -> str | None:
        """The same, as far as it may change between steps."""
        if any(self.clip_norms.values()):
            return "clip_norm looks at gradients before each step"
        if set(self.accumulation.values()) != {1}:
            return "an update is accumulated"
        for optimizer in self.trainer.optimizers:
            if reason := why_not_in_a_graph(optimizer):
                return reason
        if not vars(self).keys().isdisjoint(_METHODS):
            return f"{type(self).__name__} has a method of its own for a part of it"
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if callbacks != self._looked_at[0]:
            self._looked_at = list(callbacks), self._who_watches()
        return self._looked_at[1]

    def _who_watches(self) -> str | None:
        """Which class has code of its own for a part of an alternation, if one has."""
        package = __name__.partition(".")[0]
        ours = next(kind for kind in type(self).__mro__ if kind.__module__.partition(".")[0] == package)
        for method in _METHODS:
            if getattr(type(self), method, None) is not getattr(ours, method, None):
                return f"{type(self).__name__}.{method} would not be called"
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            for hook in _HOOKS:
                if is_overridden(hook, callback, Callback):
                    return f"{type(callback).__name__}.{hook} would not be called"
        for part in (self.trainer.strategy, self.trainer.precision_plugin):
            if type(part).__module__.partition(".")[0] not in ("lightning", "pytorch_lightning", package):
                return f"{type(part).__name__} may look at steps"
        return None

    def _do_not_capture(self, reason: str) -> None:
        rank_zero_info(f"An alternation is not run as one graph: {reason}")
        self.captured = None
        if self.compiled == "alternation" and self.has_compiler():
            self.compile_networks()

    def run_captured(self, rounds: Sequence[Round], last: Round | None, due: Penalties) -> bool:
        """Makes an alternation as a graph, if there can be one for these rounds; see `CapturedAlternation`."""
        if self.captured is None:
            return False
        seconds = self.captured.seconds
        try:
            self._look_again()
            if not self.captured.fits(rounds):
                return False
            means = self.captured.run(rounds, last, due)
        except CaptureError as error:
            self._do_not_capture(str(error))
            return False
        self.running_means.leave_out(self.captured.seconds - seconds)
        self.running_means.add(means)
        self.count_alternation()
        return True

    def _look_again(self) -> None:
        """Begins anew where networks, objectives or optimizers have been replaced.

        Raises:
            CaptureError: An alternation cannot be a graph any more.
        """
        assert self.captured is not None
        if reason := self._why_not_now():
            raise CaptureError(reason)
        parts = self._parts()
        if not all(map(is_, parts, self.captured.parts)):
            self.captured.begin_anew(*parts)

    def count_alternation(self) -> None:
        """Moves the Trainer's clock after an alternation that did not go through `move`."""
        counted = self.optimizer_of("generator")
        counted._on_before_step()
        counted._on_after_step()
        for optimizer in self.trainer.optimizers:
            optimizer._opt_called = True  # type: ignore[attr-defined] # as schedules want to see

    def compile_networks(self) -> None:
        """Compiles the networks in place, which keeps the names of their weights, unless they are already.

        One with spectral normalisation is left as it is: each pass changes in place what the backward pass of another,
        compiled one, such as that of a penalty, would look at.
        """
        for role in ROLES:
            network = getattr(self, role)
            if network._compiled_call_impl is None and not any(map(is_parametrized, network.modules())):
                network.compile()

    def has_compiler(self) -> bool:
        """Whether `torch.compile` finds what it needs: on a CPU, something that compiles C++."""
        compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
        return self.trainer.strategy.root_device.type != "cpu" or any(map(shutil.which, compilers))

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own graphs: these belong to the places of this module's weights in memory."""
        return {**super().__getstate__(), "captured": None, "_looked_at": (None, None)}
