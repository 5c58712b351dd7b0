"""A whole alternation as one graph of tensor operations, both backward passes and both steps of Adam included.

Networks for small images are so small that most of an alternation goes into launching its operations one by one. Here
they are recorded once and then run as a whole: fused by `torch.compile`, as a CUDA graph, or both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Adam, AdamW, Optimizer
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_cgan.gradients import are_finite
from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.objectives import Means, Objectives, Penalties
from lightning_cgan.rounds import Dealer, Round

Run = Callable[..., Sequence[Tensor]]


class CaptureError(Exception):
    """An alternation does something that no graph can hold; nothing has been changed."""


class CapturedAlternation:
    """Runs alternations from graphs, of which it records one for each set of penalties that are due together.

    Args:
        generator: Makes the images.
        discriminator: Judges them.
        objectives: What the two minimise.
        dealer: Augments the generated images.
        generator_optimizer: See `is_plain_adam`.
        discriminator_optimizer: The same.
        skipped_steps: Count the updates of each network that are left out, because a gradient is not finite.
        compiles: Whether `torch.compile` fuses each graph.

    Attributes:
        seconds: How long recording and compiling has taken.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        objectives: Objectives,
        dealer: Dealer,
        generator_optimizer: Optimizer,
        discriminator_optimizer: Optimizer,
        skipped_steps: Mapping[Any, Tensor],
        compiles: bool,
    ) -> None:
        self.pair = _Pair(generator, discriminator)
        self.objectives = objectives
        self.dealer = dealer
        self.generator_adam = _Adam(generator_optimizer, self.pair, skipped_steps["generator"])
        self.discriminator_adam = _Adam(discriminator_optimizer, self.pair, skipped_steps["discriminator"])
        self.compiles = compiles
        # What lasts from one alternation to the next: graphs hold on to its places in memory.
        self.lasting = (
            {name: tensor.detach() for name, tensor in (*self.pair.named_parameters(), *self.pair.named_buffers())},
            self.generator_adam.tensors,
            self.discriminator_adam.tensors,
        )
        self.lasting_tensors: list[Tensor] = tree_flatten(self.lasting)[0]
        self._shapes: list[torch.Size] = []
        self.seconds = 0.0
        self._graphs: dict[Penalties, tuple[Run, list[str]]] = {}

    def fits(self, rounds: Sequence[Round]) -> bool:
        """Whether the rounds are of the size that the graphs are for, which is that of the first ones."""
        return not self._shapes or self._shapes == [dealt.real.shape for dealt in rounds]

    def run(self, rounds: Sequence[Round], last: Round | None, due: Penalties) -> Means:
        """Makes an alternation, and returns the scalars to log.

        Args:
            rounds: One for each update of the discriminator.
            last: That of the generator's update, unless it works on the images of the discriminator's last one.
            due: The penalties to compute.

        Raises:
            CaptureError: There is no graph for these penalties yet, and none can be made.
        """
        self.generator_adam.take_up_rates()
        self.discriminator_adam.take_up_rates()
        if due not in self._graphs:
            self._shapes = [dealt.real.shape for dealt in rounds]
            started = time.monotonic()
            try:
                self._graphs[due] = self._record(rounds, last, due)
            except Exception as error:  # networks can do anything, and so fail in many ways
                raise CaptureError(" ".join(str(error).split())[:200]) from error
            self.seconds += time.monotonic() - started
        graph, names = self._graphs[due]
        with torch.no_grad():
            return dict(zip(names, graph(*self.lasting_tensors, *_columns(rounds, last)), strict=True))

    def _record(self, rounds: Sequence[Round], last: Round | None, due: Penalties) -> tuple[Run, list[str]]:
        names: list[str] = []
        inputs, spec = tree_flatten((self.lasting, list(rounds), [] if last is None else [last]))

        def alternate(*tensors: Tensor) -> list[Tensor]:
            lasting, rounds, last = tree_unflatten(list(tensors), spec)
            means = self._alternate(lasting, rounds, last[0] if last else None, due)
            names[:] = means
            return [mean.detach() for mean in means.values()]

        devices = [inputs[0].device] if inputs[0].is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            graph: Run = make_fx(alternate)(*(tensor.clone() for tensor in inputs))  # copies, since it is done as well
            if self.compiles:
                # Random numbers, as for dropout, come from PyTorch's generators, so that the seed decides them.
                graph = torch.compile(graph, fullgraph=True, dynamic=False, options={"fallback_random": True})
                graph(*(tensor.clone() for tensor in inputs))  # compiles
            if inputs[0].is_cuda:
                graph = _CudaGraph(graph, inputs, len(self.lasting_tensors))
        return graph, names

    @torch.enable_grad()
    def _alternate(self, lasting: Any, rounds: Sequence[Round], last: Round | None, due: Penalties) -> Means:
        """The alternation itself, on tensors that stand for those of networks and optimizers."""
        tensors, generator_moments, discriminator_moments = lasting
        leaves = {name: tensor.detach() for name, tensor in tensors.items()}
        for name in self.pair.trained:
            leaves[name].requires_grad_()

        def alternate(generator: Generator, discriminator: Discriminator) -> Means:
            for dealt in rounds:
                fake = self.dealer.make(generator, dealt)
                objective, means = self.objectives.of_discriminator(discriminator, dealt, fake.detach(), due)
                self.discriminator_adam.step(discriminator_moments, tensors, leaves, objective)
            if last is not None:
                dealt, fake = last, self.dealer.make(generator, last)
            objective, generator_means = self.objectives.of_generator(discriminator, dealt, fake)
            self.generator_adam.step(generator_moments, tensors, leaves, objective)
            return {**means, **generator_means}

        return functional_call(self.pair, leaves, (alternate,))  # type: ignore[no-any-return]


class _Pair(nn.Module):
    """Both networks as one module, so that the tensors of both can be replaced for a while."""

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def forward(self, alternate: Callable[[Generator, Discriminator], Means]) -> Means:
        return alternate(self.generator, self.discriminator)


class _Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1) on tensors that are handed in.

    PyTorch's own asks its state for numbers, which a graph cannot. The state is that of PyTorch's optimizer, which can
    go on from it at any time.
    """

    def __init__(self, optimizer: Optimizer, pair: _Pair, skipped: Tensor) -> None:
        self.groups = optimizer.param_groups
        self.is_decoupled = isinstance(optimizer, AdamW)
        names = {parameter: name for name, parameter in pair.named_parameters()}
        groups = [
            {
                "rate": torch.tensor(float(group["lr"]), device=group["params"][0].device, dtype=torch.float64),
                "moments": {names[p]: _moments(optimizer, p) for p in group["params"] if p.requires_grad},
            }
            for group in self.groups
        ]
        self.tensors: dict[str, Any] = {"groups": groups, "skipped": skipped}

    def take_up_rates(self) -> None:
        """Looks at the learning rates, which a schedule may have changed."""
        for group, tensors in zip(self.groups, self.tensors["groups"], strict=True):
            tensors["rate"].fill_(group["lr"])

    def step(
        self, tensors: Mapping[str, Any], weights: Mapping[str, Tensor], leaves: Mapping[str, Tensor], objective: Tensor
    ) -> None:
        """Moves the weights, which share their memory with the leaves that the objective was computed from."""
        names = [name for group in tensors["groups"] for name in group["moments"]]
        found = torch.autograd.grad(objective, [leaves[name] for name in names], allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
        with torch.no_grad():
            is_good = are_finite(list(gradients.values()))
            tensors["skipped"].add_(~is_good)
            for group, state in zip(self.groups, tensors["groups"], strict=True):
                for name, moments in state["moments"].items():
                    if name in gradients:
                        # Nothing moves where no part of a step is taken, and nothing times infinity would be NaN.
                        gradient = torch.where(is_good, gradients[name], 0.0)
                        self._move(group, state["rate"], is_good.double(), weights[name], gradient, **moments)

    def _move(
        self,
        group: Mapping[str, Any],
        rate: Tensor,
        share: Tensor,
        weight: Tensor,
        gradient: Tensor,
        step: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
    ) -> None:
        """Takes a share of a step, all of it or nothing."""
        beta1, beta2 = group["betas"]
        if group["weight_decay"] and self.is_decoupled:
            weight.mul_(1 - share * rate * group["weight_decay"])
        elif group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * weight
        step.add_(share)
        exp_avg.lerp_(gradient, (share * (1 - beta1)).to(gradient.dtype))
        exp_avg_sq.lerp_(gradient * gradient, (share * (1 - beta2)).to(gradient.dtype))
        at = step.double().clamp(min=1)  # single numbers, as PyTorch's are Python's
        deviation = exp_avg_sq.sqrt() / (1 - beta2**at).sqrt() + group["eps"]
        weight.sub_(share * rate / (1 - beta1**at) * exp_avg / deviation)


def is_plain_adam(optimizer: Optimizer) -> bool:
    """Whether it is PyTorch's Adam or AdamW, without AMSGrad."""
    groups = optimizer.param_groups
    return type(optimizer) in (Adam, AdamW) and not any(group["amsgrad"] or group["maximize"] for group in groups)


def _moments(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The state of a parameter, begun as PyTorch's Adam begins it; the count of steps must be where the graph runs."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    state["step"] = state["step"].to(parameter.device)
    return {name: state[name] for name in ("step", "exp_avg", "exp_avg_sq")}


class _CudaGraph:
    """A function of tensors as a CUDA graph: its kernels are launched together."""

    def __init__(self, run: Run, inputs: Sequence[Tensor], lasting: int) -> None:
        self.passing = [tensor.clone() for tensor in inputs[lasting:]]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # once on copies, for libraries to make their choices and `compile` to compile
            run(*(tensor.clone() for tensor in inputs))
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = run(*inputs[:lasting], *self.passing)

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """Runs it; the results are overwritten by the next call."""
        for place, tensor in zip(self.passing, tensors[-len(self.passing) :], strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return self.results


def _columns(rounds: Sequence[Round], last: Round | None) -> list[Tensor]:
    return [column for dealt in (*rounds, *([last] if last is not None else [])) for column in dealt]
