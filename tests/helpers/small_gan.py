"""A small module for digits of 8 x 8 pixels, and a short fit."""

from __future__ import annotations

from typing import Any

from helpers.pairs import mlp
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DigitsData, NonSaturating


def gan(**options: Any) -> ConditionalGAN:
    networks = dict(zip(("generator", "discriminator"), mlp(), strict=True))
    return ConditionalGAN(**{"loss": NonSaturating(), **networks, **options})


def fit(module: ConditionalGAN, steps: int = 3, data: Any = None, **options: Any) -> ConditionalGAN:
    trainer = quiet_trainer(steps, **options)
    data = data if data is not None else DigitsData(batch_size=16)
    trainer.fit(module, data)
    return module
