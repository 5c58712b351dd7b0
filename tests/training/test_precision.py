"""Half precision: float16 through a real GradScaler on the CPU, and bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import SGD, Adam

from helpers.quiet import quiet_trainer
from lightning_cgan import (
    R1,
    ConditionalGAN,
    DigitsData,
    Discriminator,
    GradientPenalty,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
)


class Overflow(GradientPenalty):
    """Nothing, but with a gradient that no scale survives, in the steps that are named."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps, self.calls = steps, 0

    def __call__(self, discriminator: Discriminator, *_: Any) -> Tensor:
        self.calls += 1
        factor = 3e38 if self.calls - 1 in self.steps else 0.0
        weight = next(discriminator.parameters())
        return factor * (weight.sum() - weight.sum().detach())


def gan(**options: Any) -> ConditionalGAN:
    torch.manual_seed(3)
    sgd = {f"{role}_optimizer": partial(SGD, lr=1.0) for role in ("generator", "discriminator")}
    networks = {
        "generator": MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,)),
        "discriminator": MLPDiscriminator(10, 1, 8, hidden=(16,)),
    }
    return ConditionalGAN(**{"loss": NonSaturating(), **networks, **sgd, **options})


def fit(module: ConditionalGAN, steps: int = 1, scale: float = 2.0**12, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    options.setdefault("plugins", [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))])
    trainer = quiet_trainer(steps, **options)
    trainer.fit(module, DigitsData(batch_size=16))
    return module


def moves(module: ConditionalGAN, before: dict[str, Tensor], role: str) -> Tensor:
    """By how much a network moved, as one vector."""
    names = [name for name, _ in module.named_parameters() if name.startswith(f"{role}.")]
    return torch.cat([(module.get_parameter(name).detach() - before[name]).flatten() for name in names])


def weights_of(module: ConditionalGAN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_overflow_in_the_discriminator_leaves_the_generator_its_true_update() -> None:
    module = gan(penalties=[Overflow(0)])
    before, twin = weights_of(module), copy.deepcopy(module)
    inputs: list[Any] = []
    sample_update = module.input_sampler.sample_update
    module.input_sampler.sample_update = lambda *args: inputs.append(sample_update(*args)) or inputs[-1]  # type: ignore[method-assign,func-returns-value]
    fit(module)
    assert not moves(module, before, "discriminator").any()  # skipped
    assert {role: int(count) for role, count in module.optimization.skipped_steps.items()} == {
        "generator": 0,
        "discriminator": 1,
    }
    # what it should be: one SGD step in float32 on the gradient at the discriminator that did not move
    logits = twin.discriminator(twin.generator(inputs[0].latents, inputs[0].fake_labels), inputs[0].fake_labels)
    torch.nn.functional.softplus(-logits).mean().backward()
    expected = -torch.cat([p.grad.flatten() for p in twin.generator.parameters() if p.grad is not None])
    got = moves(module, before, "generator")
    assert expected.norm() > 1e-3
    assert ((got - expected).norm() / expected.norm()).item() < 0.01  # float16 has 11 bits; a wrong scale is off by 1


def test_float16_is_float32_to_its_rounding() -> None:
    before = weights_of(gan())
    half = fit(gan(penalties=[R1(0.1)]), steps=3)
    single = fit(gan(penalties=[R1(0.1)]), steps=3, plugins=None)
    for role in ("generator", "discriminator"):
        expected = moves(single, before, role)
        assert ((moves(half, before, role) - expected).norm() / expected.norm()).item() < 0.02


FUSED: dict[str, Callable[..., Any]] = {"plain": SGD, "fused": partial(SGD, fused=True)}


@pytest.mark.parametrize("kind", FUSED)
def test_clipping_sees_true_norms(kind: str) -> None:
    """Scaled by 4,096, every gradient would be longer than 2; the true ones are shorter."""
    sgd = {f"{role}_optimizer": partial(FUSED[kind], lr=1.0) for role in ("generator", "discriminator")}
    before = weights_of(gan())
    free = fit(gan(**sgd))
    clipped = fit(gan(**sgd, generator_clip_norm=2.0, discriminator_clip_norm=1e-3))
    norm = moves(free, before, "discriminator").norm().item()
    assert 1e-3 < norm < 2
    assert moves(clipped, before, "discriminator").norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert moves(free, before, "generator").norm().item() < 2
    wide = fit(gan(**sgd, generator_clip_norm=2.0, discriminator_clip_norm=2.0))
    for name, expected in free.named_parameters():
        assert torch.allclose(wide.get_parameter(name), expected, atol=1e-7), name


@pytest.mark.parametrize("optimizer", [Adam, partial(Adam, fused=True)])
def test_skipped_updates_are_counted_and_reported(optimizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    logged: dict[int, dict[str, float]] = {}

    class Keeper(DummyLogger):
        def log_metrics(self, metrics: Any, step: int) -> None:  # type: ignore[override]
            logged[step] = metrics

    module = gan(penalties=[Overflow(1, 2)], discriminator_optimizer=optimizer)
    fit(module, steps=4, logger=Keeper(), log_every_n_steps=1)
    assert [logged[step]["discriminator_skipped_steps"] for step in (1, 2, 3, 4)] == [0, 1, 2, 2]
    assert [logged[step]["generator_skipped_steps"] for step in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert "2 updates of the discriminator were skipped" in caplog.text


def test_bfloat16_uses_the_weights_of_the_moment() -> None:
    """Autocast may keep copies of weights: each of several discriminator steps must see the last one's result."""
    before = weights_of(gan())
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.1) for role in ("generator", "discriminator")}
    options: dict[str, Any] = {"discriminator_steps": 4, **sgd}
    half = fit(gan(**options), steps=2, plugins=None, precision="bf16-mixed")
    single = fit(gan(**options), steps=2, plugins=None)
    for role in ("generator", "discriminator"):
        expected = moves(single, before, role)
        assert ((moves(half, before, role) - expected).norm() / expected.norm()).item() < 0.05
