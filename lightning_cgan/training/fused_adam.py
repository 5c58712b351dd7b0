"""Adam as one operation of a graph; PyTorch's optimizer shares its state and can take over at any time.

The operation calls PyTorch's fused kernel, which updates all tensors of a network at once. It is registered with
PyTorch so that compiled graphs call it as it is: code that the compiler makes from Adam's formula computes the powers
of the betas again for every eight weights, which takes longer than all the rest of a small network's step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from lightning_cgan.core.compat import (
    HOOKS_OF_OPTIMIZERS,
    MARK_OF_SCHEDULE,
    find_nonfinite,
    foreach,
    fused_adam,
    hooks_of_all_optimizers,
)
from lightning_cgan.core.errors import FusionError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_HOOKS_OF_ALL_OPTIMIZERS = hooks_of_all_optimizers()

_add_each_ = foreach("add_")

torch.library.define("lightning_cgan::has_nonfinite", "(Tensor[] gradients) -> Tensor")
torch.library.define(
    "lightning_cgan::adam_",
    "(Tensor(a!)[] weights, Tensor[] gradients, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] steps, "
    "Tensor rate, Tensor numbers, Tensor is_bad, bool is_decoupled) -> ()",
)


def has_nonfinite(gradients: Sequence[Tensor]) -> Tensor:
    """Returns 1.0 if a gradient contains inf or NaN, else 0.0: a scalar, in float32, as fused kernels take it."""
    found = torch.zeros((), dtype=torch.float32, device=gradients[0].device)
    # The kernel writes to them, the same values: not possible where one element of memory stands for several.
    find_nonfinite([one.contiguous() if 0 in one.stride() else one for one in gradients], found)
    return found


def adam_(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    rate: Tensor,
    numbers: Tensor,
    is_bad: Tensor,
    is_decoupled: bool,
) -> None:
    """Applies an Adam step to tensors of one type, or nothing of it if `is_bad` is 1."""
    _add_each_(steps, [1 - is_bad] * len(steps))  # one for each: PyTorch would read a single one, and wait for a GPU
    gradients, *moments = ([*map(_laid_out_like, weights, column)] for column in (gradients, exp_avgs, exp_avg_sqs))
    numbers_by_name = dict(zip(("beta1", "beta2", "eps", "weight_decay"), numbers.tolist(), strict=True))
    options = {"lr": rate, **numbers_by_name, "amsgrad": False, "maximize": False, "found_inf": is_bad}
    fused_adam(is_decoupled)(weights, gradients, *moments, [], steps, **options)
    for kept, moved in zip((*exp_avgs, *exp_avg_sqs), (*moments[0], *moments[1]), strict=True):
        if moved is not kept:
            kept.copy_(moved)


def _laid_out_like(weight: Tensor, tensor: Tensor) -> Tensor:
    """Returns a tensor whose elements lie in memory as those of the weight, which the kernel assumes."""
    return tensor if tensor.stride() == weight.stride() else torch.empty_like(weight).copy_(tensor)


torch.library.impl("lightning_cgan::has_nonfinite", "default", has_nonfinite)
torch.library.impl("lightning_cgan::adam_", "default", adam_)

# What they return while a compiler follows a graph without data.
torch.library.register_fake(
    "lightning_cgan::has_nonfinite", lambda gradients: gradients[0].new_empty((), dtype=torch.float32)
)
torch.library.register_fake("lightning_cgan::adam_", lambda *_: None)


class GraphAdam:
    """Adam or AdamW (Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101) in a graph.

    PyTorch's own optimizers read Python numbers from their state, which a graph cannot do.

    Args:
        optimizer: The optimizer of one network.
        names: The names of the network's parameters; parameters without a name get no gradients.
        skipped: Counts the steps skipped because a gradient is not finite.
        fixes_numbers: Whether a record contains betas, eps and weight decay, as a CUDA graph does.

    Attributes:
        tensors: All that the steps read and write, except weights: numbers and moments by group, and the count.
    """

    def __init__(
        self, optimizer: Optimizer, names: Mapping[nn.Parameter, str], skipped: Tensor, fixes_numbers: bool = False
    ) -> None:
        self.optimizer = optimizer
        self.names = names
        self.fixes_numbers = fixes_numbers
        self._structure = self._find_structure()
        self._seen: list[list[Any]] = [[None] * 5 for _ in optimizer.param_groups]
        self._groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            device = group["params"][0].device if group["params"] else skipped.device
            # The types that PyTorch's kernels read.
            rate = torch.zeros((), device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
            self._groups.append({"rate": rate, "numbers": torch.zeros(4, dtype=torch.float64), "moments": {}})
        self.tensors: dict[str, Any] = {"groups": self._groups, "skipped": skipped}
        self.find_moments()

    def has_its_structure(self) -> bool:
        """Whether the groups hold the same parameters with the same options, apart from numbers that may change."""
        return self._find_structure() == self._structure

    def has_its_moments(self) -> bool:
        """Whether the optimizer's state still consists of the same tensors."""
        return self.optimizer.state is self._state and all(
            container.get(key) is value for container, key, value in self._found
        )

    def trains(self) -> bool:
        """Whether any of the named parameters is updated."""
        return any(group["moments"] for group in self._groups)

    def find_moments(self) -> None:
        """Finds the optimizer's state, and initialises it where it is missing."""
        self._state = self.optimizer.state
        self._found: list[tuple[Any, Any, Any]] = []  # container, key, value
        for group, tensors in zip(self.optimizer.param_groups, self._groups, strict=True):
            trained = [weight for weight in group["params"] if weight.requires_grad and weight in self.names]
            tensors["moments"] = {self.names[weight]: self._moments(weight) for weight in trained}

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Returns the state of a parameter, initialised as in PyTorch's Adam; the count moves to its device."""
        state = self._state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # The kernel of a GPU reads it as float32, whatever type it has, and it has PyTorch's default type.
        state["step"] = state["step"].to(parameter.device, torch.float32)
        self._found += [(self._state, parameter, state), *((state, name, state[name]) for name in _MOMENTS)]
        return {name: state[name] for name in _MOMENTS}

    def sync_learning_rates(self) -> None:
        """Loads learning rates and other numbers, which a schedule or a callback may have changed."""
        for group, tensors, seen in zip(self.optimizer.param_groups, self._groups, self._seen, strict=True):
            rate, *others = new = _numbers(group)
            if isinstance(rate, Tensor):
                tensors["rate"].copy_(rate.reshape(()))
            elif rate != seen[0]:
                tensors["rate"].fill_(rate)
            if any(map(is_not, others, seen[1:])):
                tensors["numbers"].copy_(torch.tensor(list(map(float, others)), dtype=torch.float64))
            seen[:] = new

    def step(
        self, tensors: Mapping[str, Any], weights: Mapping[str, Tensor], leaves: Mapping[str, Tensor], objective: Tensor
    ) -> None:
        """Updates the weights, which share their memory with the leaves from which the objective was computed."""
        names = [name for group in tensors["groups"] for name in group["moments"]]
        found = torch.autograd.grad(objective, [leaves[name] for name in names], allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
        with torch.no_grad():
            is_bad = torch.ops.lightning_cgan.has_nonfinite(list(gradients.values()))
            tensors["skipped"].add_(is_bad.long())
            for group, state in zip(self.optimizer.param_groups, tensors["groups"], strict=True):
                trained: defaultdict[Any, list[str]] = defaultdict(list)  # a kernel takes tensors of one type
                for name in state["moments"]:
                    if name in gradients:
                        trained[weights[name].dtype].append(name)
                numbers = state["rate"], state["numbers"], is_bad, _is_decoupled(self.optimizer, group)
                for alike in trained.values():
                    moments = ([state["moments"][name][key] for name in alike] for key in _MOMENTS)
                    columns = [weights[name] for name in alike], [gradients[name] for name in alike], *moments
                    torch.ops.lightning_cgan.adam_(*columns, *numbers)

    def _find_structure(self) -> list[tuple[Any, ...]]:
        """Returns what is fixed in a recorded step: by group, the kind of weight decay and the parameters."""
        groups = self.optimizer.param_groups
        fixed = [_numbers(group)[1:] if self.fixes_numbers else () for group in groups]
        return [
            (_is_decoupled(self.optimizer, group), *numbers, *map(id, group["params"]))
            for group, numbers in zip(groups, fixed, strict=True)
        ]


def check_optimizer(optimizer: Optimizer) -> None:
    """Raises a `FusionError` if a graph cannot hold an optimizer's steps: it must be PyTorch's Adam or AdamW."""
    unlike = ("amsgrad", "maximize", "differentiable")
    is_unlike = any(group.get(option) for group in optimizer.param_groups for option in unlike)
    if type(optimizer) not in (Adam, AdamW) or is_unlike:
        raise FusionError("only Adam and AdamW without amsgrad, maximize and differentiable can be")
    own_step = vars(optimizer).get("step")  # a scheduler adds one to count steps
    is_changed = own_step is not None and not hasattr(own_step, MARK_OF_SCHEDULE)
    has_hooks = any(getattr(optimizer, hooks) for hooks in HOOKS_OF_OPTIMIZERS) or any(_HOOKS_OF_ALL_OPTIMIZERS)
    if is_changed or has_hooks:
        raise FusionError(f"a hook of {type(optimizer).__name__} would not be called")


def _is_decoupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    # Older releases of PyTorch have no such option, but a separate AdamW.
    return bool(group.get("decoupled_weight_decay", isinstance(optimizer, AdamW)))


def _numbers(group: Mapping[str, Any]) -> tuple[Any, ...]:
    return (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
