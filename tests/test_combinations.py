"""Losses, ways for the label to enter and networks: whatever is put together trains."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.small_gan import fit
from lightning_cgan import (
    R1,
    AuxiliaryClassifier,
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    Hinge,
    LeastSquares,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    R3GANDiscriminator,
    R3GANGenerator,
    RelativisticPairing,
    ResNetDiscriminator,
    ResNetGenerator,
    Saturating,
    Wasserstein,
    WassersteinGradientPenalty,
)

LOSSES: dict[str, Any] = {
    loss.__name__: loss for loss in (NonSaturating, Saturating, LeastSquares, Hinge, Wasserstein, RelativisticPairing)
}
CONDITIONINGS: dict[str, dict[str, Any]] = {
    "one_hot": {"conditioning": "concatenation"},
    "embedding": {"conditioning": "concatenation", "label_embedding": 3},
    "projection": {"conditioning": "projection"},
    "classifier": {"conditioning": "classifier"},
    "projection_classifier": {"conditioning": "projection_classifier"},
}
GENERATORS: dict[str, Any] = {
    "mlp": lambda: MLPGenerator(10, 1, 8, hidden=(16,), batch_norm=True),
    "dcgan": lambda: DCGANGenerator(10, 1, 8, channels=(8, 4), conditional_batch_norm=True),
    "dcgan_embedding": lambda: DCGANGenerator(10, 1, 8, channels=(8, 4), label_embedding=3),
    "resnet": lambda: ResNetGenerator(10, 1, 8, channels=(8, 4)),
    "r3gan": lambda: R3GANGenerator(10, 1, 8, channels=(8, 4), group_width=4),
}
DISCRIMINATORS: dict[str, Any] = {
    "mlp": lambda **options: MLPDiscriminator(10, 1, 8, hidden=(16,), **options),
    "dcgan": lambda **options: DCGANDiscriminator(10, 1, 8, channels=(4, 8), **options),
    "resnet": lambda **options: ResNetDiscriminator(10, 1, 8, channels=(4, 8), spectral_norm=True, **options),
    "r3gan": lambda **options: R3GANDiscriminator(10, 1, 8, channels=(4, 8), group_width=4, **options),
}
Row = tuple[str, ...]
FACTORS: list[list[str]] = [list(factor) for factor in (LOSSES, CONDITIONINGS, GENERATORS, DISCRIMINATORS)]


def pairs_in(row: Row) -> set[tuple[tuple[int, str], ...]]:
    """Which value of a factor meets which of another."""
    return set(combinations(enumerate(row), 2))


def covering_rows() -> list[Row]:
    """Few rows in which all pairs of values meet: each is the first of those with the most pairs that are left."""
    rows: list[Row] = []
    left = {pair for row in product(*FACTORS) for pair in pairs_in(row)}
    while left:
        rows.append(max(product(*FACTORS), key=lambda row: len(pairs_in(row) & left)))
        left -= pairs_in(rows[-1])
    return rows


def weights(module: ConditionalGAN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def check_training(loss: str, conditioning: str, generator: str, discriminator: str) -> None:
    """Three steps: no NaN, both networks change, and in each update only the one that should."""
    module = ConditionalGAN(
        GENERATORS[generator](),
        DISCRIMINATORS[discriminator](**CONDITIONINGS[conditioning]),
        LOSSES[loss](),
        penalties=[WassersteinGradientPenalty(1.0) if loss == "Wasserstein" else R1(1.0, interval=2)],
        auxiliary_classifier=AuxiliaryClassifier(1.0) if "classifier" in conditioning else None,
    )
    moved: list[tuple[str, set[str]]] = []
    step = module.optimization.step

    def watch(role: Any) -> None:
        before = weights(module)
        step(role)
        after = weights(module)
        moved.append((role, {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}))

    module.optimization.step = watch  # type: ignore[method-assign]
    before = weights(module)
    fit(module, steps=3)
    assert moved == [("discriminator", {"discriminator"}), ("generator", {"generator"})] * 3
    after = weights(module)
    stuck = {name for name in after if torch.equal(before[name], after[name])}
    stuck -= {"discriminator.head.linear.bias"}  # cancels in losses that look at differences of logits
    assert not stuck, f"{generator}, {discriminator}: {stuck} never moved"
    for name, value in module.state_dict().items():
        assert torch.isfinite(value).all(), f"{generator}, {discriminator}: {name}"


@pytest.mark.parametrize("row", covering_rows(), ids="-".join)
def test_every_pair_of_parts_trains(row: Row) -> None:
    check_training(*row)


def test_the_rows_have_every_pair() -> None:
    rows = covering_rows()
    assert len(rows) <= 36
    for (i, first), (j, second) in combinations(enumerate(FACTORS), 2):
        assert {(row[i], row[j]) for row in rows} == set(product(first, second))


@pytest.mark.ci
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_combination_trains(loss: str, conditioning: str) -> None:
    for generator, discriminator in product(GENERATORS, DISCRIMINATORS):
        check_training(loss, conditioning, generator, discriminator)
