"""Short fits that show which latents the generator was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating

IMAGES = torch.linspace(-1, 1, 48 * 64).reshape(48, 1, 8, 8)


def gan(**options: Any) -> ConditionalGAN:
    networks = MLPGenerator(3, 1, 8, latent_dim=4, hidden=(8,)), MLPDiscriminator(3, 1, 8, hidden=(8,))
    return ConditionalGAN(*networks, NonSaturating(), **options)


def loader(batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, torch.arange(48) % 3), batch_size=batch_size)


def fit(module: ConditionalGAN, steps: int = 3, **options: Any) -> list[Tensor]:
    """The latents of a fit, which leaves `last.ckpt`."""
    seen: list[Tensor] = []
    hook = module.generator.register_forward_hook(lambda network, inputs, output: seen.append(inputs[0].clone()))
    trainer = quiet_trainer(steps)
    trainer.fit(module, loader(), **options)
    trainer.save_checkpoint("last.ckpt")
    hook.remove()
    return seen
