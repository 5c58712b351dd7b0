"""Every loss with every way for the label to enter and every pair of networks."""

from __future__ import annotations

from itertools import product
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

LOSSES = (NonSaturating, Saturating, LeastSquares, Hinge, Wasserstein, RelativisticPairing)
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
PAIRS = list(product(GENERATORS, DISCRIMINATORS))


def weights(module: ConditionalGAN) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_combination_trains(loss: Any, conditioning: str) -> None:
    """Three steps of all pairs: no NaN, both networks change, and in each update only the one that should."""
    for generator, discriminator in PAIRS:
        module = ConditionalGAN(
            GENERATORS[generator](),
            DISCRIMINATORS[discriminator](**CONDITIONINGS[conditioning]),
            loss(),
            penalties=[WassersteinGradientPenalty(1.0) if loss is Wasserstein else R1(1.0, interval=2)],
            auxiliary_classifier=AuxiliaryClassifier(1.0) if "classifier" in conditioning else None,
        )
        moved: list[tuple[str, set[str]]] = []
        move = module.move

        def watch(role: Any, module: Any = module, move: Any = move, moved: Any = moved) -> None:
            before = weights(module)
            move(role)
            after = weights(module)
            moved.append((role, {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}))

        module.move = watch  # type: ignore[method-assign]
        before = weights(module)
        fit(module, steps=3)
        assert moved == [("discriminator", {"discriminator"}), ("generator", {"generator"})] * 3
        after = weights(module)
        stuck = {name for name in after if torch.equal(before[name], after[name])}
        stuck -= {"discriminator.head.linear.bias"}  # cancels in losses that look at differences of logits
        assert not stuck, f"{generator}, {discriminator}: {stuck} never moved"
        for name, value in module.state_dict().items():
            assert torch.isfinite(value).all(), f"{generator}, {discriminator}: {name}"
