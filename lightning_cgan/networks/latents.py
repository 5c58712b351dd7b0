"""Latents: how they are drawn, and the way from one to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cgan.core.rng import rng_at

Distribution = Literal["normal", "uniform"]

# As many numbered images share a random stream: to make one for each would take longer than to draw. Seeds have 32
# bits, and blocks that happen to share one have the same latents: the fewer blocks, the less likely that is.
_BLOCK = 1024


def sample_latents(
    shape: tuple[int, ...],
    distribution: Distribution,
    rng: torch.Generator | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draws latents, standard normal or uniform in [-1, 1].

    Args:
        shape: The shape of the result, usually (N, latent_dim).
        distribution: The distribution of each number.
        rng: Draws the numbers, on its own device. Without one, PyTorch's global generator of the CPU does.
        dtype: Of the result; without it, PyTorch's default.
    """
    device = rng.device if rng is not None else torch.device("cpu")
    if distribution == "normal":
        return torch.randn(shape, generator=rng, device=device, dtype=dtype)
    return torch.rand(shape, generator=rng, device=device, dtype=dtype).mul_(2).sub_(1)


@dataclass(frozen=True)
class LatentSampler:
    """How the latents of numbered images are drawn.

    An image depends on the seed, its class and its number within the class alone: it is the same whatever else is made.

    Attributes:
        seed: Chooses other images.
        truncation: Draws no latent beyond this distance from 0, before they are scaled: more typical images, and less
            varied ones (Brock et al. 2019, arXiv:1809.11096, section 3.1).
        scale: What latents are multiplied by.
    """

    seed: int = 0
    truncation: float | None = None
    scale: float = 1.0

    def latents(
        self, labels: Tensor, numbers: Tensor, latent_dim: int, distribution: Distribution, variant: int = 0
    ) -> Tensor:
        """Draws the latents of images, shape (N, latent_dim), float32, on the CPU.

        Args:
            labels: The classes of the images, shape (N,).
            numbers: Their numbers within the classes, from 0, shape (N,).
            latent_dim: How many numbers a latent has.
            distribution: The distribution of each before it is cut off.
            variant: Gives other latents for the same numbers.
        """
        blocks: dict[tuple[int, int], Tensor] = {}
        rows = []
        for label, number in zip(labels.tolist(), numbers.tolist(), strict=True):
            block = (label, number // _BLOCK)
            if block not in blocks:
                rng = rng_at(self.seed, label, variant, block[1])
                uniform = torch.rand(_BLOCK, latent_dim, generator=rng, dtype=torch.float64)
                blocks[block] = self._shaped(uniform, distribution)
            rows.append(blocks[block][number % _BLOCK])
        return torch.stack(rows).float() if rows else torch.empty(0, latent_dim)

    def first(
        self, classes: Sequence[int], count: int, latent_dim: int, distribution: Distribution, variant: int = 0
    ) -> Tensor:
        """The latents of the first images of some classes, one class after the other; see `latents`."""
        labels, numbers = torch.tensor(classes).repeat_interleave(count), torch.arange(count).repeat(len(classes))
        return self.latents(labels, numbers, latent_dim, distribution, variant)

    def _shaped(self, uniform: Tensor, distribution: Distribution) -> Tensor:
        """Turns numbers that are uniform in [0, 1) to latents."""
        limit = math.inf if self.truncation is None else self.truncation
        if distribution == "uniform":
            return (uniform * 2 - 1) * min(limit, 1) * self.scale
        lowest = 0.5 * math.erfc(limit / math.sqrt(2))
        normal: Tensor = torch.special.ndtri(lowest + uniform * (1 - 2 * lowest))
        return normal.clamp(-8, 8) * self.scale  # 0 would be at infinity


def slerp(first: Tensor, second: Tensor, part: float) -> Tensor:
    """Latents on the way from the first (0) to the second (1), along a great circle (White 2016, arXiv:1609.04468).

    On a straight line they would come nearer to 0 than latents ever are in training, and images be less varied there.
    """
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)[:, None]
    angle = torch.acos(cosine)
    way: Tensor = (torch.sin((1 - part) * angle) * first + torch.sin(part * angle) * second) / torch.sin(angle)
    return way
