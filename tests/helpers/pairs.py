"""Small networks of every kind, and short trainings of them on digits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import Adam

from helpers.quiet import quiet_trainer
from lightning_cgan import (
    R1,
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    DigitsData,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)


def mlp() -> tuple[Generator, Discriminator]:
    return MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,)), MLPDiscriminator(10, 1, 8, hidden=(16,))


PAIRS: dict[str, Any] = {
    "mlp": mlp,
    "mlp with batch norm": lambda: (
        MLPGenerator(10, 1, 8, 4, (16,), batch_norm=True),
        MLPDiscriminator(10, 1, 8, (16,)),
    ),
    "dcgan": lambda: (
        DCGANGenerator(10, 1, 8, 4, channels=(8, 4), conditional_batch_norm=True),
        DCGANDiscriminator(10, 1, 8, channels=(4, 8), dropout=0.3, hidden=8),
    ),
    "resnet": lambda: (
        ResNetGenerator(10, 1, 8, 4, channels=(8, 4)),
        ResNetDiscriminator(10, 1, 8, channels=(4, 8), spectral_norm=True),
    ),
    "r3gan": lambda: (
        R3GANGenerator(10, 1, 8, 4, channels=(8, 4), label_embedding=3),
        R3GANDiscriminator(10, 1, 8, channels=(4, 8)),
    ),
}


def train(networks: tuple[Generator, Discriminator], path: Path | None = None, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    trainer_options = {key: options.pop(key) for key in ("precision", "steps", "callbacks") if key in options}
    common: dict[str, Any] = {
        "loss": NonSaturating(),
        "penalties": [R1(0.5, interval=2)],
        "ema_half_life": 100.0,
        **{f"{role}_optimizer": partial(Adam, lr=1e-3) for role in ("generator", "discriminator")},
    }
    module = ConditionalGAN(*networks, **{**common, **options})
    trainer = quiet_trainer(trainer_options.pop("steps", 6), **trainer_options)
    trainer.fit(module, DigitsData(batch_size=16))
    assert trainer.global_step == trainer.max_steps
    if path is not None:
        trainer.save_checkpoint(path)
    return module


def built(make: Any) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    return make()  # type: ignore[no-any-return]


def largest_difference(one: ConditionalGAN, other: ConditionalGAN) -> float:
    expected = other.state_dict()
    assert list(one.state_dict()) == list(expected)
    return max(
        (value.double() - expected[name].double()).abs().max().item() for name, value in one.state_dict().items()
    )
