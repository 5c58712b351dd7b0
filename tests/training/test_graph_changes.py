"""Steps as graphs while something changes between them, against the module's own way with PyTorch's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from helpers.graph_changes import NOT, Change, both, in_every_step, networks
from helpers.marks import ci_but_for
from helpers.pairs import largest_difference, train
from lightning_cgan import (
    R1,
    R2,
    AuxiliaryClassifier,
    ConditionalGAN,
    Cutout,
    Hinge,
    MLPDiscriminator,
    MLPGenerator,
    WassersteinGradientPenalty,
)
from lightning_cgan.training.compilation import Compilation

AGAIN = " has changed: steps are recorded again as graphs"


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves graphs uncompiled, which is quick."""
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)


# ---- what enters a graph as a tensor -----------------------------------------------------------------------------------


def replace_data(module: ConditionalGAN, step: int) -> None:
    for weight in module.discriminator.parameters():
        weight.data = weight.data.clamp(-0.1, 0.1)


def load_state(module: ConditionalGAN, step: int) -> None:
    for optimizer in module.trainer.optimizers:
        state = optimizer.state_dict()
        for moments in state["state"].values():
            moments["exp_avg"] = -moments["exp_avg"]
        optimizer.load_state_dict(state)


def forget_moments(module: ConditionalGAN, step: int) -> None:
    for optimizer in module.trainer.optimizers:
        optimizer.state.clear()


def replace_a_moment(module: ConditionalGAN, step: int) -> None:
    for moments in module.trainer.optimizers[1].state.values():
        moments["exp_avg_sq"] = moments["exp_avg_sq"] * 4


SCHEDULES: dict[str, Any] = {
    "OneCycleLR": partial(OneCycleLR, max_lr=0.01, total_steps=8),
    "CyclicLR": partial(CyclicLR, base_lr=1e-3, max_lr=0.01, step_size_up=3, base_momentum=0.5, max_momentum=0.9),
}

ENTERS: dict[str, Change] = {
    "betas": in_every_step(betas=lambda step: (0.1 * step, 1 - 0.1 / (1 + step))),
    "eps": in_every_step(eps=lambda step: 0.01 * (step + 1)),
    "weight decay": in_every_step(weight_decay=lambda step: 0.01 * (step + 1)),
    "rate as a tensor": in_every_step(lr=lambda step: torch.tensor(0.01 * step, dtype=torch.float64)),
    "gamma": lambda module, step: setattr(module.penalties[0], "gamma", 0.8**step),
    "weight of another penalty": lambda module, step: setattr(module.penalties[1], "weight", 0.8**step),
    "replaced data": replace_data,
    "loaded state": load_state,
    "forgotten moments": forget_moments,
    "a replaced moment": replace_a_moment,
    "statistics": lambda module, step: module.discriminator.norm.running_mean.fill_(step),
    "weights": lambda module, step: nn.init.constant_(next(module.generator.parameters()), 0.01 * step),
}


def with_two_penalties() -> dict[str, Any]:
    return {"penalties": [R1(0.5), WassersteinGradientPenalty(1.0)]}


@pytest.mark.ci
@pytest.mark.parametrize("name", [*SCHEDULES])
def test_schedules_of_betas_are_followed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    schedules = {f"{role}_scheduler": SCHEDULES[name] for role in ("generator", "discriminator")}
    module, lines = both(None, caplog, lambda: dict(schedules))
    assert module.compilation.fused_step is not None
    assert lines == []


@pytest.mark.parametrize("name", ci_but_for(ENTERS, "gamma", "loaded state"))
def test_what_enters_may_change_in_every_step(name: str, caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(ENTERS[name], caplog, with_two_penalties, at=None)
    assert module.compilation.fused_step is not None
    assert lines == []


@pytest.mark.ci
def test_the_weight_of_class_terms_may_change_in_every_step(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        pair = MLPGenerator(10, 1, 8, 4, (16,)), MLPDiscriminator(10, 1, 8, (16,), conditioning="classifier")
        return {"networks": lambda: pair, "auxiliary_classifier": AuxiliaryClassifier(1.0)}

    module, lines = both(
        lambda module, step: setattr(module.auxiliary_classifier, "weight", 0.1 * step), caplog, make, at=None
    )
    assert module.compilation.fused_step is not None
    assert lines == []


@pytest.mark.ci
@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_both_kinds_of_weight_decay(optimizer: type[Adam], caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"weight_decay": 0.3, "lr": 0.01}
    if optimizer is Adam:
        try:
            Adam([torch.ones(1)], decoupled_weight_decay=True)
        except TypeError:
            pytest.skip("an option of newer releases of PyTorch")
        options["decoupled_weight_decay"] = True
    optimizers = {f"{role}_optimizer": partial(optimizer, **options) for role in ("generator", "discriminator")}
    module, _ = both(None, caplog, lambda: dict(optimizers))
    assert module.compilation.fused_step is not None
    # Decoupled, both optimizers are the same one.
    twin = {f"{role}_optimizer": partial(AdamW, lr=0.01, weight_decay=0.3) for role in ("generator", "discriminator")}
    assert largest_difference(module, train(networks(), precision="64-true", steps=8, **twin)) < 1e-9


# ---- what takes a new graph ----------------------------------------------------------------------------------------


FACTOR = 1.0


class Scaled(R1):
    """Multiplies by a variable of this file, and by one of its class."""

    scale = 1.0

    def __call__(self, *args: Any) -> Tensor:
        return FACTOR * self.scale * super().__call__(*args)


class Sure(MLPGenerator):
    """Multiplies by a tensor that is no buffer, as a number."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, 4, (16,))
        self.factor = torch.tensor(1.0)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return super().forward(latents, labels) * float(self.factor)


@pytest.fixture
def _as_before() -> Iterator[None]:
    yield
    globals()["FACTOR"], Scaled.scale = 1.0, 1.0


def scaled() -> dict[str, Any]:
    globals()["FACTOR"], Scaled.scale = 1.0, 1.0
    return {"penalties": [Scaled(0.5)]}


def sure() -> dict[str, Any]:
    return {"networks": lambda: (networks()[1], Sure())[::-1]}


def add_group(module: ConditionalGAN, step: int) -> None:
    optimizer = module.trainer.optimizers[1]
    optimizer.add_param_group({"params": [optimizer.param_groups[0]["params"].pop()], "lr": 0.1})


def replace_a_parameter(module: ConditionalGAN, step: int) -> None:
    layer = module.generator.layers[0]
    layer.weight = nn.Parameter(layer.weight.detach() * 1.1)


def double_a_weight(module: ConditionalGAN, step: int) -> None:
    module.objectives.penalties.append(R2(0.5))


def set_factor(module: ConditionalGAN, step: int) -> None:
    globals()["FACTOR"] = 3.0


RECORDED_AGAIN: dict[str, tuple[Change, Callable[[], dict[str, Any]]]] = {
    "requires_grad of discriminator.layers.0.weight": (
        lambda module, step: module.discriminator.layers[0].weight.requires_grad_(False),
        dict,
    ),
    "discriminator.drop.p": (lambda module, step: setattr(module.discriminator.drop, "p", 0.6), dict),
    "discriminator.norm.training": (lambda module, step: module.discriminator.norm.eval(), dict),
    "discriminator.norm.eps": (lambda module, step: setattr(module.discriminator.norm, "eps", 0.1), dict),
    "generator.layers.0.weight": (replace_a_parameter, dict),
    "penalties[0].interval": (lambda module, step: setattr(module.penalties[0], "interval", 3), dict),
    "penalties": (double_a_weight, dict),
    "loss": (lambda module, step: setattr(module.objectives, "loss", Hinge()), dict),
    "augmentations[0].fill": (
        lambda module, step: setattr(module.input_sampler.augmentations[0], "fill", 0.7),
        lambda: {"augmentations": [Cutout()]},
    ),
    "a group of an optimizer": (add_group, dict),
    "a tensor that is neither a parameter nor a buffer": (
        lambda module, step: module.generator.factor.fill_(0.5),
        sure,
    ),
    "FACTOR": (set_factor, scaled),
    "Scaled.scale": (lambda module, step: setattr(Scaled, "scale", 2.0), scaled),
}


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("name", ci_but_for(RECORDED_AGAIN, "FACTOR"))
def test_what_makes_graphs_be_recorded_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    change, make = RECORDED_AGAIN[name]
    module, lines = both(change, caplog, make)
    assert module.compilation.fused_step is not None
    assert lines == [name + AGAIN]


@pytest.mark.ci
def test_what_comes_back_finds_its_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def change(module: ConditionalGAN, step: int) -> None:
        module.discriminator.drop.p = 0.3 if step % 2 else 0.5
        module.discriminator.layers[0].weight.requires_grad_(step % 2 == 0)

    module, lines = both(change, caplog, at=None)
    assert module.compilation.fused_step is not None
    assert lines == ["discriminator.drop.p" + AGAIN]


@pytest.mark.ci
def test_what_changes_again_and_again_ends_graphs(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(lambda module, step: setattr(module.discriminator.drop, "p", 0.1 * step), caplog, at=None)
    assert module.compilation.fused_step is None
    ended = NOT + "discriminator.drop.p has changed 4 times: graphs are not recorded again"
    assert lines == ["discriminator.drop.p" + AGAIN] * 3 + [ended]


class Decides(R1):
    """Looks at its weight in Python, which a tensor does not allow."""

    def __call__(self, *args: Any) -> Tensor:
        penalty: Tensor = super().__call__(*args)
        return penalty if self.gamma > 0.5 else penalty.square()


@pytest.mark.ci
def test_a_number_that_cannot_be_a_tensor_is_recorded_again(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(
        lambda module, step: setattr(module.penalties[0], "gamma", 0.2), caplog, lambda: {"penalties": [Decides(1.0)]}
    )
    assert module.compilation.fused_step is not None
    assert lines == ["penalties[0].gamma" + AGAIN]
