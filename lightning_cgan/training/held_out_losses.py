"""Adversarial losses on held-out images."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cgan.networks.base import Discriminator, Generator, discriminate
from lightning_cgan.objectives.inputs import InputSampler
from lightning_cgan.objectives.losses import AdversarialLoss


def held_out_losses(
    loss: AdversarialLoss,
    networks: tuple[Generator, Discriminator],
    input_sampler: InputSampler,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """Computes both losses on held-out images (N, C, H, W); zeros for a process without a share of a short batch."""
    if not len(images):
        zero = torch.zeros((), device=images.device)
        return {"discriminator_loss": zero, "generator_loss": zero}
    generator, discriminator = networks
    latents, fake_labels = input_sampler.sample_fakes(rng, labels, alone=True)
    real_logits = discriminate(discriminator, images, labels).logits
    fake_logits = discriminate(discriminator, generator(latents, fake_labels), fake_labels).logits
    return {
        "discriminator_loss": loss.discriminator(real_logits, fake_logits),
        "generator_loss": loss.generator(fake_logits, real_logits),
    }
