"""Adam as tensor operations, for graphs; PyTorch's optimizer shares its state and can take over at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from lightning_cgan.core.compat import HOOKS_OF_OPTIMIZERS, MARK_OF_SCHEDULE, hooks_of_all_optimizers
from lightning_cgan.core.errors import FusionError
from lightning_cgan.training.gradients import are_finite

# The numbers of a parameter group, which may change in every step, in the order of `_numbers`.
_NUMBERS = ("rate", "beta1", "beta2", "eps", "decay")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_Decay = Literal["none", "coupled", "decoupled"]
_HOOKS_OF_ALL_OPTIMIZERS = hooks_of_all_optimizers()


class GraphAdam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1) on tensors that are passed in.

    PyTorch's own implementation reads Python numbers from its state, which a graph cannot do.

    Attributes:
        tensors: All that the steps read and write, except weights: numbers and moments by group, and the count.
    """

    def __init__(self, optimizer: Optimizer, names: Mapping[nn.Parameter, str], skipped: Tensor) -> None:
        self.optimizer = optimizer
        self.names = names  # parameters without a name get no gradients
        self._structure = _structure(optimizer)
        self._seen: list[list[Any]] = [[None] * len(_NUMBERS) for _ in optimizer.param_groups]
        self._groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            device = group["params"][0].device if group["params"] else skipped.device
            numbers = {name: torch.zeros((), device=device, dtype=torch.float64) for name in _NUMBERS}
            self._groups.append({"numbers": numbers, "moments": {}})
        self.tensors: dict[str, Any] = {"groups": self._groups, "skipped": skipped}
        self.find_moments()

    def has_its_structure(self) -> bool:
        """Whether the groups hold the same parameters with the same options, apart from numbers."""
        return _structure(self.optimizer) == self._structure

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
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] = state["step"].to(parameter.device)
        self._found += [(self._state, parameter, state), *((state, name, state[name]) for name in _MOMENTS)]
        return {name: state[name] for name in _MOMENTS}

    def sync_learning_rates(self) -> None:
        """Loads learning rates and other numbers, which a schedule or a callback may have changed."""
        for group, tensors, seen in zip(self.optimizer.param_groups, self._groups, self._seen, strict=True):
            for index, (name, number) in enumerate(zip(_NUMBERS, _numbers(group), strict=True)):
                if isinstance(number, Tensor):
                    tensors["numbers"][name].copy_(number.reshape(()))
                elif number is not seen[index]:
                    tensors["numbers"][name].fill_(number)
                seen[index] = number

    def step(
        self, tensors: Mapping[str, Any], weights: Mapping[str, Tensor], leaves: Mapping[str, Tensor], objective: Tensor
    ) -> None:
        """Updates the weights, which share their memory with the leaves from which the objective was computed."""
        names = [name for group in tensors["groups"] for name in group["moments"]]
        found = torch.autograd.grad(objective, [leaves[name] for name in names], allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
        with torch.no_grad():
            is_good = are_finite(list(gradients.values()))
            tensors["skipped"].add_(~is_good)
            for group, state in zip(self.optimizer.param_groups, tensors["groups"], strict=True):
                for name, moments in state["moments"].items():
                    if name in gradients:
                        # In a skipped step gradients are 0 too, since a share of 0 times infinity is NaN.
                        operands = {"weight": weights[name], "gradient": torch.where(is_good, gradients[name], 0.0)}
                        decays = _kind_of_decay(self.optimizer, group)
                        _adam_step(decays, share=is_good.double(), **operands, **state["numbers"], **moments)


def _adam_step(
    decays: _Decay,
    share: Tensor,
    weight: Tensor,
    gradient: Tensor,
    rate: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    decay: Tensor,
    step: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
) -> None:
    """Applies the whole of an Adam step (share 1) or nothing of it (share 0)."""
    if decays == "decoupled":
        weight.mul_(1 - share * rate * decay)
    elif decays == "coupled":  # an L2 penalty
        gradient = gradient + (decay * weight).to(gradient.dtype)
    step.add_(share)
    exp_avg.lerp_(gradient, (share * (1 - beta1)).to(gradient.dtype))
    exp_avg_sq.lerp_(gradient * gradient, (share * (1 - beta2)).to(gradient.dtype))
    at = step.double().clamp(min=1)  # scalars in double precision, like the Python numbers in PyTorch's Adam
    deviation = exp_avg_sq.sqrt() / (1 - beta2**at).sqrt() + eps
    weight.sub_(share * rate / (1 - beta1**at) * exp_avg / deviation)


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


def _structure(optimizer: Optimizer) -> list[tuple[Any, ...]]:
    """Returns what is fixed in a recorded step: kinds of weight decay and parameters, by group."""
    groups = optimizer.param_groups
    return [(_kind_of_decay(optimizer, group), *map(id, group["params"])) for group in groups]


def _kind_of_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> _Decay:
    if not group["weight_decay"]:
        return "none"
    # Older releases of PyTorch have no such option, but a separate AdamW.
    return "decoupled" if group.get("decoupled_weight_decay", isinstance(optimizer, AdamW)) else "coupled"


def _numbers(group: Mapping[str, Any]) -> tuple[Any, ...]:
    return (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
