"""A whole training step as one graph of tensor operations, including backward passes and Adam updates.

Networks for small images are so small that most of a step is spent launching its operations one by one. Here the
operations are recorded once and then run as a whole: compiled by PyTorch's compiler, as a CUDA graph, or both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from lightning_cgan.core.compat import flatten
from lightning_cgan.core.errors import FusionError
from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.objectives.inputs import InputSampler, StepInputs, UpdateInputs
from lightning_cgan.objectives.objectives import Means, Objectives, Penalties
from lightning_cgan.training.contract import ROLES, Role
from lightning_cgan.training.fused_adam import GraphAdam
from lightning_cgan.training.graph_dependencies import Dependencies, is_number
from lightning_cgan.training.graph_recording import Run, as_tensors, record, without_autocast

Log = Callable[[str], None]

# How often graphs are recorded again for changes of the same thing, and how many sets of graphs are kept.
_MOST_CHANGES, _MOST_CACHED = 3, 4
_MOST_SIZES = 2  # of batches, including the last one of a loader


class StepParts(NamedTuple):
    """The objects that make up a step."""

    generator: Generator
    discriminator: Discriminator
    objectives: Objectives
    input_sampler: InputSampler
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


class FusedStep:
    """Runs steps from graphs, recording one for each set of penalties that are active together.

    What changes between steps enters a graph as a tensor: weights, buffers, the optimizers' state and numbers, and the
    numbers that a class names in `varying`. After any other change graphs are recorded again, but only a few times.

    Args:
        skipped_steps: Count the updates of each network skipped because a gradient is not finite.
        compiles: Whether PyTorch's compiler compiles each graph.
        cuda_graph: Whether a GPU runs each as one CUDA graph.
        log: Logs a line when graphs are recorded again.

    Attributes:
        seconds: The time spent on recording and compiling.
        sizes: The sizes of the batches that graphs have been recorded for.
        cached: The latest sets of graphs, the last used first.
    """

    def __init__(
        self,
        skipped_steps: Mapping[Role, Tensor],
        compiles: bool,
        cuda_graph: bool = False,
        log: Log = lambda line: None,
    ) -> None:
        self.skipped_steps = skipped_steps
        self.compiles = compiles
        self.cuda_graph = cuda_graph
        self.log = log
        self.seconds = 0.0
        self.sizes: set[Any] = set()
        self._with_varying, self._has_logged_sizes = True, False
        self._changes: Counter[str] = Counter()
        self.cached: list[_GuardedGraphs] = []

    def accepts(self, inputs: StepInputs) -> bool:
        """Whether graphs exist for batches of this size, or may be recorded: only for the first two sizes."""
        accepts = len(self.sizes) < _MOST_SIZES or _size(inputs) in self.sizes
        if not accepts and not self._has_logged_sizes:
            self._has_logged_sizes = True
            self.log(f"Batches of more than {_MOST_SIZES} sizes: steps of the others are not run as one graph")
        return accepts

    def run(self, parts: StepParts, inputs: StepInputs, penalties: Penalties, continues: bool = False) -> Means:
        """Runs a step, and returns the scalars to log.

        Args:
            parts: What the step consists of.
            inputs: What is new in it.
            penalties: Those that are computed in it.
            continues: Whether nothing but learning rates and other numbers can have changed since the last step.

        Raises:
            FusionError: There is no graph for this step yet, and none can be recorded.
        """
        continues = continues and self.cached[0].fixed_numbers_hold()
        graphs = self.cached[0] if continues else self._valid_graphs(parts)
        graphs.sync_numbers()
        if not continues:
            graphs.sync_locations()
        key = _key(inputs, penalties)
        if key not in graphs.recorded:
            graphs = self._record(graphs, inputs, penalties)
            self.sizes |= {_size(inputs)}
        graph, names, _ = graphs.recorded[key]
        updates, last = _inputs_of_graph(inputs)
        columns = [column for inputs in (*updates, *last) for column in inputs]
        with torch.no_grad(), without_autocast(inputs.generator.real.device.type):
            return dict(zip(names, graph(*graphs.persistent_tensors, *columns), strict=True))

    def _valid_graphs(self, parts: StepParts) -> _GuardedGraphs:
        """Returns the graphs that are valid now: the latest, earlier ones, or a new set."""
        if self.cached and not all(map(is_, parts, self.cached[0].parts)):
            self.cached = []
            self.count_change("a network, an optimizer or another part")
        for index, graphs in enumerate(self.cached):
            if graphs.hold():
                self.cached.insert(0, self.cached.pop(index))
                return graphs
        new = _GuardedGraphs(self, parts, self._with_varying)
        if self.cached:
            self.count_change(self.cached[0].difference())
        self.cached = [new, *self.cached][:_MOST_CACHED]
        return new

    def count_change(self, changed: str) -> None:
        """Logs that graphs are recorded again, or raises if that has happened too often."""
        self._changes[changed] += 1
        if self._changes[changed] > _MOST_CHANGES:
            raise FusionError(f"{changed} has changed {self._changes[changed]} times: graphs are not recorded again")
        self.log(f"{changed} has changed: steps are recorded again as graphs")

    def _record(self, graphs: _GuardedGraphs, inputs: StepInputs, penalties: Penalties) -> _GuardedGraphs:
        """Records a graph; numbers that may vary enter as tensors, if the code that uses them accepts tensors."""
        started = time.monotonic()
        try:
            try:
                graphs.record(inputs, penalties)
            except Exception:
                if not graphs.dependencies.varying:
                    raise
                self._with_varying = False
                graphs = self.cached[0] = _GuardedGraphs(self, graphs.parts, False)
                graphs.sync_numbers()
                graphs.record(inputs, penalties)
        except FusionError:
            raise
        except Exception as error:  # custom networks can fail in any way
            raise FusionError(" ".join(str(error).split())[:200]) from error
        self.seconds += time.monotonic() - started
        return graphs


class _GuardedGraphs:
    """Graphs of the same parts, valid as long as only the tensors that enter them change."""

    def __init__(self, fused_step: FusedStep, parts: StepParts, with_varying: bool) -> None:
        self.fused_step, self.parts = fused_step, parts
        self.pair = _Pair(parts.generator, parts.discriminator)
        parameters = dict(self.pair.named_parameters())
        self.trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
        roots: list[tuple[str, Any]] = [("generator", parts.generator), ("discriminator", parts.discriminator)]
        roots += [("", parts.objectives), ("", parts.input_sampler)]
        self.dependencies = Dependencies(roots, parameters, with_varying)
        names = {parameter: name for name, parameter in parameters.items()}
        fixes_numbers = fused_step.cuda_graph and next(iter(parameters.values())).is_cuda
        self.adams: list[GraphAdam] = []
        for role, optimizer in zip(ROLES, (parts.generator_optimizer, parts.discriminator_optimizer), strict=True):
            self.adams.append(GraphAdam(optimizer, names, fused_step.skipped_steps[role], fixes_numbers))
            if not self.adams[-1].trains():
                raise FusionError(f"the {role}'s optimizer trains none of the weights that are there")
        self.tensors = {**parameters, **dict(self.pair.named_buffers())}
        weight = next(iter(parameters.values()))
        number = torch.zeros((), dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
        self.numbers = [number.clone() for _ in self.dependencies.varying]
        self.recorded: dict[Any, tuple[Run, list[str], Penalties]] = {}  # with the names of the results
        self._find_persistent()

    def hold(self) -> bool:
        """Whether its graphs are valid for the present objects."""
        return self.dependencies.hold() and all(adam.has_its_structure() for adam in self.adams)

    def fixed_numbers_hold(self) -> bool:
        """Whether the numbers that a CUDA graph contains are still those of the optimizers."""
        return all(not adam.fixes_numbers or adam.has_its_structure() for adam in self.adams)

    def difference(self) -> str:
        """Names what has changed."""
        return "a group of an optimizer" if self.dependencies.hold() else self.dependencies.difference()

    def sync_numbers(self) -> None:
        """Updates the numbers that enter the graphs."""
        for adam in self.adams:
            adam.sync_learning_rates()
        for (attributes, name), number in zip(self.dependencies.varying, self.numbers, strict=True):
            value = attributes[name]
            if not is_number(value):
                raise FusionError(f"{name} is no longer a number")
            number.fill_(value)

    def sync_locations(self) -> None:
        """Finds the tensors that enter the graphs again if they have moved."""
        if self._locations != self._locate() or not all(adam.has_its_moments() for adam in self.adams):
            before = self.persistent_tensors
            self._find_persistent()
            # A CUDA graph contains memory addresses, and any graph contains layouts.
            if before[0].is_cuda or list(map(_layout, before)) != list(map(_layout, self.persistent_tensors)):
                self.fused_step.count_change("the memory location of weights")
                self.recorded.clear()

    def _find_persistent(self) -> None:
        """Collects the tensors that persist between steps; graphs write to them."""
        for adam in self.adams:
            adam.find_moments()
        detached = {name: tensor.detach() for name, tensor in self.tensors.items()}
        self.persistent = (detached, *(adam.tensors for adam in self.adams), self.numbers)
        self.persistent_tensors: list[Tensor] = flatten(self.persistent)[0]
        self._locations = self._locate()

    def _locate(self) -> list[Any]:
        tensors = self.tensors.values()
        return [*map(Tensor.data_ptr, tensors), *map(Tensor.stride, tensors)]

    def record(self, inputs: StepInputs, penalties: Penalties) -> None:
        """Records the graph of a step without performing the step."""
        names: list[str] = []
        entering, unflatten = flatten((self.persistent, *_inputs_of_graph(inputs)))

        def run_step(*tensors: Tensor) -> list[Tensor]:
            persistent, updates, last = unflatten(tensors)
            means = self._run_updates(persistent, updates, last[0] if last else None, penalties)
            names[:] = means
            return [mean.detach() for mean in means.values()]

        how = self.dependencies, self.fused_step.compiles, self.fused_step.cuda_graph
        graph = record(run_step, entering, len(self.persistent_tensors), *how)
        self.recorded[_key(inputs, penalties)] = graph, names, penalties

    @torch.enable_grad()
    def _run_updates(
        self, persistent: Any, updates: Sequence[UpdateInputs], last: UpdateInputs | None, penalties: Penalties
    ) -> Means:
        """Performs the step on tensors that replace those of networks and optimizers."""
        tensors, generator_moments, discriminator_moments, numbers = persistent
        generator_adam, discriminator_adam = self.adams
        leaves = {name: tensor.detach() for name, tensor in tensors.items()}
        for name in self.trained:
            leaves[name].requires_grad_()
        objectives, input_sampler = self.parts.objectives, self.parts.input_sampler

        def run_step(generator: Generator, discriminator: Discriminator) -> Means:
            for inputs in updates:
                fake = input_sampler.generate_fakes(generator, inputs)
                objective, means = objectives.of_discriminator(discriminator, inputs, fake.detach(), penalties)
                discriminator_adam.step(discriminator_moments, tensors, leaves, objective)
            if last is not None:
                inputs, fake = last, input_sampler.generate_fakes(generator, last)
            objective, generator_means = objectives.of_generator(discriminator, inputs, fake)
            generator_adam.step(generator_moments, tensors, leaves, objective)
            return {**means, **generator_means}

        used = dict(leaves)  # `functional_call` stores tensors here that a network replaces
        with as_tensors(self.dependencies.varying, numbers):
            means: Means = functional_call(self.pair, used, (run_step,))
        for name, tensor in used.items():
            if tensor is not leaves[name]:
                raise FusionError(f"{name} is replaced in each pass")
        return means


class _Pair(nn.Module):
    """Both networks as one module, so that the tensors of both can be replaced temporarily."""

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    def forward(self, run_step: Callable[[Generator, Discriminator], Means]) -> Means:
        return run_step(self.generator, self.discriminator)


def _key(inputs: StepInputs, penalties: Penalties) -> Any:
    return _size(inputs), inputs.shares_fakes, tuple(map(id, penalties))


def _size(inputs: StepInputs) -> Any:
    updates = inputs.discriminator
    return tuple(
        (inputs.real.shape, inputs.real.stride(), inputs.real.dtype, inputs.labels.dtype) for inputs in updates
    )


def _inputs_of_graph(inputs: StepInputs) -> tuple[list[UpdateInputs], list[UpdateInputs]]:
    """Returns the inputs of a graph; the generator's are omitted if it shares those of the discriminator."""
    return inputs.discriminator, [] if inputs.shares_fakes else [inputs.generator]


def _layout(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
