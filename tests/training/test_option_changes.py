"""A run that goes on with other options of optimizers and schedules: the new ones win, and all the rest stays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as schedules
from torch.optim.lr_scheduler import LambdaLR, LinearLR, MultiStepLR, PolynomialLR

from lightning_cgan.core.errors import UsageError
from lightning_cgan.training.optimizer_config import check_configuration, check_same_classes, configuration
from lightning_cgan.training.option_changes import apply_changed_options

Schedule = Callable[[Optimizer], Any]
STEPS = 7

momentum_sgd = partial(SGD, lr=0.4, momentum=0.9)
adam = partial(Adam, lr=0.4)


class Warmup:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps)


def in_turn(first: int, total: int) -> Schedule:
    def make(optimizer: Optimizer) -> Any:
        parts = [LinearLR(optimizer, 0.1, total_iters=first), PolynomialLR(optimizer, total_iters=total)]
        return schedules.SequentialLR(optimizer, parts, milestones=[first])

    return make


def together(gamma: float) -> Schedule:
    def make(optimizer: Optimizer) -> Any:
        return schedules.ChainedScheduler([LinearLR(optimizer, 0.5), schedules.ExponentialLR(optimizer, gamma)])

    return make


class Run:
    """An optimizer of one weight, whose gradient is always 1, and its schedule."""

    def __init__(self, make: Callable[..., Optimizer], schedule: Schedule | None) -> None:
        self.weight = torch.zeros(1, requires_grad=True)
        self.optimizer = make([self.weight])
        scheduler = None if schedule is None else schedule(self.optimizer)
        self.configs = [SimpleNamespace(scheduler=scheduler, interval="step", frequency=1)] if scheduler else []
        self.configured = configuration([self.optimizer], self.configs)

    def go(self, steps: int) -> list[Any]:
        """What the optimizer was given at each step."""
        seen = []
        for _ in range(steps):
            group = self.optimizer.param_groups[0]
            seen.append(tuple(group.get(key) for key in ("lr", "momentum", "betas", "weight_decay")))
            self.weight.grad = torch.ones(1)
            self.optimizer.step()
            for config in self.configs:
                config.scheduler.step()
        return seen

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "optimizer_states": [self.optimizer.state_dict()],
                "lr_schedulers": [config.scheduler.state_dict() for config in self.configs],
            }
        )

    def resume(self, checkpoint: dict[str, Any], before: dict[str, Any]) -> list[str]:
        check_same_classes(before, self.configured, lambda number, part: part)
        lines = apply_changed_options(checkpoint, before, [self.optimizer], self.configs, lambda number, part: part)
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        for config, state in zip(self.configs, checkpoint["lr_schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        return lines


# How a schedule was, how it is now, and what is said of it
CHANGES: dict[str, tuple[Any, Any, list[str]]] = {
    "step": (partial(schedules.StepLR, step_size=3), partial(schedules.StepLR, step_size=2), ["step_size: 3 → 2"]),
    "milestones": (
        partial(MultiStepLR, milestones=[2, 4], gamma=0.5),
        partial(MultiStepLR, milestones=[3], gamma=0.1),
        ["gamma: 0.5 → 0.1", "milestones: [2, 4] → [3]"],
    ),
    "constant": (partial(schedules.ConstantLR, total_iters=5), partial(schedules.ConstantLR), []),
    "linear": (partial(LinearLR, total_iters=4), partial(LinearLR, total_iters=20), ["total_iters: 4 → 20"]),
    "exponential": (
        partial(schedules.ExponentialLR, gamma=0.5),
        partial(schedules.ExponentialLR, gamma=0.75),
        ["gamma: 0.5 → 0.75"],
    ),
    "ended": (partial(PolynomialLR, total_iters=7), partial(PolynomialLR, total_iters=28), ["total_iters: 7 → 28"]),
    "cosine": (
        partial(schedules.CosineAnnealingLR, T_max=7),
        partial(schedules.CosineAnnealingLR, T_max=14, eta_min=0.01),
        ["T_max: 7 → 14", "eta_min: 0.0 → 0.01"],
    ),
    "restarts": (
        partial(schedules.CosineAnnealingWarmRestarts, T_0=3),
        partial(schedules.CosineAnnealingWarmRestarts, T_0=2, T_mult=2),
        ["T_0: 3 → 2", "T_i: 3 → 2", "T_mult: 1 → 2"],
    ),
    "one cycle": (
        partial(schedules.OneCycleLR, max_lr=0.5, total_steps=10),
        partial(schedules.OneCycleLR, max_lr=1.0, total_steps=20),
        ["total_steps: 10 → 20", "max_lr: 0.5 → 1.0"],
    ),
    "cycles": (
        partial(schedules.CyclicLR, base_lr=0.1, max_lr=0.5, step_size_up=2),
        partial(schedules.CyclicLR, base_lr=0.1, max_lr=0.7, step_size_up=3),
        ["max_lrs: [0.5] → [0.7]", "total_size: 4.0 → 6.0"],
    ),
    "one after the other": (
        in_turn(2, 10),
        in_turn(4, 30),
        [
            "milestones: [2] → [4]",
            "schedulers.0.total_iters: 2 → 4",
            "schedulers.1.total_iters: 10 → 30",
        ],
    ),
    "together": (together(0.5), together(0.9), ["schedulers.1.gamma: 0.5 → 0.9"]),
    "function": (
        partial(LambdaLR, lr_lambda=lambda step: 1 / (step + 1)),
        partial(LambdaLR, lr_lambda=lambda step: 0.5**step),
        ["another schedule"],
    ),
    "factors": (
        partial(schedules.MultiplicativeLR, lr_lambda=lambda step: 0.9),
        partial(schedules.MultiplicativeLR, lr_lambda=lambda step: 0.8),
        ["another schedule"],
    ),
    "object": (
        partial(LambdaLR, lr_lambda=Warmup(4)),
        partial(LambdaLR, lr_lambda=Warmup(20)),
        ["lr_lambdas: [{'steps': 4}] → [{'steps': 20}]"],
    ),
}


@pytest.mark.parametrize("make", [momentum_sgd, adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_new_schedule_goes_on_at_the_rate_of_its_step(kind: str, make: Callable[..., Optimizer]) -> None:
    old, new, said = CHANGES[kind]
    first, rest, reference = Run(make, old), Run(make, new), Run(make, new)
    first.go(STEPS)
    expected = reference.go(STEPS + 3)[STEPS:]
    lines = rest.resume(first.checkpoint(), first.configured)
    assert rest.go(3) == expected  # to the last bit
    if kind == "constant":
        assert lines == []  # five is the default
    else:
        assert [line.removeprefix("scheduler").lstrip(".: ") for line in lines][: len(said)] == said


@pytest.mark.parametrize("make", [momentum_sgd, adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", CHANGES)
def test_where_nothing_differs_a_run_goes_on_to_the_last_bit(kind: str, make: Callable[..., Optimizer]) -> None:
    schedule = CHANGES[kind][0]
    first, rest, whole = Run(make, schedule), Run(make, schedule), Run(make, schedule)
    first.go(STEPS)
    expected = whole.go(STEPS + 3)
    checkpoint = first.checkpoint()
    assert rest.resume(checkpoint, first.configured) == []
    assert checkpoint["optimizer_states"][0]["param_groups"] == first.optimizer.state_dict()["param_groups"]
    assert rest.go(3) == expected[STEPS:]


def test_a_new_rate_under_a_schedule_keeps_moments_and_place() -> None:
    """Linear decay to zero in ten steps, by hand: after seven of them three tenths of the rate are left."""
    decay = partial(PolynomialLR, total_iters=10)
    first, rest = Run(adam, decay), Run(partial(Adam, lr=0.2, betas=(0.5, 0.9)), decay)
    first.go(STEPS)
    checkpoint = first.checkpoint()
    lines = rest.resume(checkpoint, first.configured)
    assert lines == ["optimizer.betas: [0.9, 0.999] → [0.5, 0.9]", "optimizer.lr: 0.4 → 0.2"]
    group = rest.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.2 * 0.3)
    assert (group["initial_lr"], tuple(group["betas"])) == (0.2, (0.5, 0.9))
    assert rest.configs[0].scheduler.last_epoch == STEPS
    moments, expected = (run.optimizer.state_dict()["state"][0] for run in (rest, first))
    assert all(torch.equal(moments[name], expected[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    rest.go(1)
    assert group["lr"] == pytest.approx(0.2 * 0.2)


def test_what_somebody_changed_meanwhile_stays_unless_it_is_configured_anew() -> None:
    first = Run(momentum_sgd, None)
    first.optimizer.param_groups[0]["lr"] = 0.125  # by a callback
    for decay, rate, lines in (
        (0.0, 0.4, []),
        (0.5, 0.4, ["optimizer.weight_decay: 0 → 0.5"]),
        (0.0, 0.3, ["optimizer.lr: 0.4 → 0.3"]),
    ):
        rest = Run(partial(SGD, lr=rate, momentum=0.9, weight_decay=decay or 0), None)
        assert rest.resume(first.checkpoint(), first.configured) == lines
        assert rest.go(1) == [(0.125 if rate == 0.4 else 0.3, 0.9, None, decay)]


def test_rates_of_groups_of_their_own() -> None:
    def two_groups(rate: float) -> Callable[..., Optimizer]:
        return lambda weights: SGD([{"params": weights}, {"params": [torch.zeros(2)], "lr": rate}], lr=0.1)

    first, rest = Run(two_groups(0.01), None), Run(two_groups(0.02), None)
    assert rest.resume(first.checkpoint(), first.configured) == ["optimizer.lr: 0.01 → 0.02"]
    assert [group["lr"] for group in rest.optimizer.param_groups] == [0.1, 0.02]
    with pytest.raises(UsageError, match="optimizer: expected SGD of 2 parameter groups, as the run had it, got SGD;"):
        Run(momentum_sgd, None).resume(first.checkpoint(), first.configured)


def test_a_rate_as_a_tensor() -> None:
    make = partial(Adam, foreach=False, capturable=False)
    first = Run(partial(make, lr=torch.tensor(0.5)), partial(PolynomialLR, total_iters=14))
    first.go(STEPS)
    rest = Run(partial(make, lr=torch.tensor(0.25)), partial(PolynomialLR, total_iters=14))
    assert rest.resume(first.checkpoint(), first.configured) == ["optimizer.lr: 0.5 → 0.25"]
    rate = rest.optimizer.param_groups[0]["lr"]
    assert isinstance(rate, Tensor)
    assert rate.item() == pytest.approx(0.125)


def test_other_classes_are_refused() -> None:
    decay = partial(PolynomialLR, total_iters=10)
    first = Run(adam, decay)
    for make, schedule, message in (
        (torch.optim.AdamW, decay, "optimizer: expected Adam, as the run had it, got AdamW"),
        (adam, None, "scheduler: expected PolynomialLR, as the run had it, got none"),
        (adam, LinearLR, "scheduler: expected PolynomialLR, as the run had it, got LinearLR"),
        (adam, in_turn(2, 5), r"got SequentialLR\(LinearLR, PolynomialLR\); give the former, or start a new run"),
    ):
        with pytest.raises(UsageError, match=message):
            Run(make, schedule).resume(first.checkpoint(), first.configured)


def test_a_schedule_that_ends_before_the_step_is_refused() -> None:
    first = Run(adam, partial(schedules.OneCycleLR, max_lr=0.5, total_steps=10))
    first.go(STEPS)
    rest = Run(adam, partial(schedules.OneCycleLR, max_lr=0.5, total_steps=5))
    message = (
        r"scheduler: expected a schedule that reaches step 7 of the checkpoint, got one .* \(Tried to step 6 times"
    )
    with pytest.raises(UsageError, match=message):
        rest.resume(first.checkpoint(), first.configured)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda saved: saved.clear(),
        lambda saved: saved.update(optimizers=3),
        lambda saved: saved["optimizers"].append({}),
        lambda saved: saved["optimizers"][0].update(groups=[1]),
        lambda saved: saved["schedulers"].append({"class": 1, "optimizer": 0, "state": {}}),
        lambda saved: saved["schedulers"][0].pop("state"),
    ],
)
def test_a_damaged_configuration_is_refused(spoil: Callable[[Any], object]) -> None:
    run = Run(adam, partial(PolynomialLR, total_iters=3))
    saved = copy.deepcopy(run.configured)
    saved["optimizers"] *= 2
    check_configuration(saved, "x")
    spoil(saved)
    with pytest.raises(UsageError, match="expected optimizers and schedulers for x; it is damaged: take another"):
        check_configuration(saved, "x")


def test_values_of_any_kind_are_compared() -> None:
    first = Run(adam, partial(PolynomialLR, total_iters=3))
    for junk in (None, math.nan, "x", [1, "a"], {}, torch.zeros(2), True):
        before = copy.deepcopy(first.configured)
        before["optimizers"][0]["groups"][0]["eps"] = junk
        (line,) = Run(adam, partial(PolynomialLR, total_iters=3)).resume(first.checkpoint(), before)
        assert line.startswith("optimizer.eps: ")
        assert line.endswith(" → 1e-08")
