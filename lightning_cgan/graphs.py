"""When and how alternations run compiled, or as one graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.utils.parametrize import is_parametrized

from lightning_cgan.capture import CapturedAlternation, CaptureError, is_plain_adam
from lightning_cgan.engine import ROLES, Engine, Role
from lightning_cgan.errors import UsageError
from lightning_cgan.machine import ask_for_gpus_cheaply
from lightning_cgan.objectives import Objectives, Penalties
from lightning_cgan.reporting import Reporter
from lightning_cgan.rounds import Dealer, Round

Compiled = Literal["none", "networks", "alternation"]

# Hooks that are not called within a graph.
_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


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

    def prepare_compilation(self) -> None:
        """Compiles the networks, if they are to be compiled one by one.

        Raises:
            UsageError: There is nothing that compiles.
        """
        if self.compiled == "networks":
            if not self.has_compiler():
                raise UsageError("compile: expected a C++ compiler for a CPU, got none; install g++, or choose none")
            self.compile_networks()

    def on_train_start(self) -> None:
        """Starts the clock, and decides whether alternations run as graphs."""
        super().on_train_start()
        ask_for_gpus_cheaply()
        self.captured = None
        is_graph = self.device.type == "cuda" and self.cuda_graph and self.compiled == "none"
        if self.compiled != "alternation" and not is_graph:
            return
        reason = self.why_not_captured()
        if reason is not None:
            self._do_not_capture(reason)
            return
        compiles = self.compiled == "alternation"
        if compiles and not self.has_compiler():
            rank_zero_info("An alternation is one graph, but not compiled: there is no C++ compiler, such as g++")
            compiles = False
        optimizers = {f"{role}_optimizer": self.optimizer_of(role).optimizer for role in ROLES}
        self.captured = CapturedAlternation(
            self.generator,
            self.discriminator,
            self.objectives,
            self.dealer,
            **optimizers,
            skipped_steps=self.skipped_steps,
            compiles=compiles,
        )

    def why_not_captured(self) -> str | None:
        """Why an alternation cannot be one graph, if it cannot."""
        optimizers = [self.optimizer_of(role).optimizer for role in ROLES]
        watchers: list[tuple[Any, Any]] = [(callback, Callback) for callback in self.trainer.callbacks]  # type: ignore[attr-defined]
        watchers.append((self, Engine))  # a subclass
        watches = any(is_overridden(hook, *watcher) for hook in _HOOKS for watcher in watchers)
        reasons = {
            "processes average their gradients within it": self.trainer.world_size > 1,
            "float16 looks at gradients before each step": self.scaler() is not None,
            "clip_norm looks at gradients before each step": any(self.clip_norms.values()),
            "an update is accumulated": set(self.accumulation.values()) != {1},
            "only Adam and AdamW without amsgrad can be": not all(map(is_plain_adam, optimizers)),
            "a hook looks at backward passes or at steps of optimizers": watches,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _do_not_capture(self, reason: str) -> None:
        rank_zero_info(f"An alternation is not run as one graph: {reason}")
        self.captured = None
        if self.compiled == "alternation" and self.has_compiler():
            self.compile_networks()

    def run_captured(self, rounds: Sequence[Round], last: Round | None, due: Penalties) -> bool:
        """Makes an alternation as a graph, if there can be one for these rounds; see `CapturedAlternation`."""
        if self.captured is None or not self.captured.fits(rounds):
            return False
        seconds = self.captured.seconds
        try:
            means = self.captured.run(rounds, last, due)
        except CaptureError as error:
            self._do_not_capture(str(error))
            return False
        self.running_means.leave_out(self.captured.seconds - seconds)
        self.running_means.add(means)
        self.count_alternation()
        return True

    def count_alternation(self) -> None:
        """Moves the Trainer's clock after an alternation that did not go through `move`."""
        counted = self.optimizer_of("generator")
        counted._on_before_step()
        counted._on_after_step()
        for role in ROLES:
            self.optimizer_of(role).optimizer._opt_called = True  # type: ignore[attr-defined] # as schedules want to see

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
        return {**super().__getstate__(), "captured": None}
