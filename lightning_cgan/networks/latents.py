"""Sampling of latents, and interpolation between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cgan.core.rng import rng_at

Distribution = Literal["normal", "uniform"]

# How many numbered images share a random stream: creating one for each image would take longer than sampling from it.
# Seeds have 32 bits, and blocks whose seeds collide have the same latents: the fewer blocks, the less likely that is.
_BLOCK = 1024


def sample_latents(
    shape: tuple[int, ...],
    distribution: Distribution,
    rng: torch.Generator | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Samples latents, standard normal or uniform in [-1, 1], on the device of `rng`.

    They are the same in all precisions, up to rounding. Without `rng`, PyTorch's global CPU generator is used.
    """
    sample = torch.randn if distribution == "normal" else torch.rand
    device = rng.device if rng is not None else torch.device("cpu")
    # A generator of a GPU gives other numbers in float64 than in float32.
    latents = sample(shape, generator=rng, device=device, dtype=torch.float32)
    latents = latents.to(torch.get_default_dtype() if dtype is None else dtype)
    return latents if distribution == "normal" else latents.mul_(2).sub_(1)


@dataclass(frozen=True)
class LatentSampler:
    """Samples the latents of numbered images.

    An image depends only on the seed, its class and its number within the class, and not on other images.

    Attributes:
        seed: Selects a different set of images.
        truncation: The largest absolute value of a latent before scaling: images become more typical and less varied
            (Brock et al. 2019, arXiv:1809.11096, section 3.1).
        scale: A factor that multiplies the latents.
    """

    seed: int = 0
    truncation: float | None = None
    scale: float = 1.0

    def latents(
        self, labels: Tensor, numbers: Tensor, latent_dim: int, distribution: Distribution, variant: int = 0
    ) -> Tensor:
        """Samples the latents of images, shape (N, latent_dim), float32, on the CPU, from a distribution to truncate.

        `labels` are the classes of the images and `numbers` their numbers within the classes, from 0, shape (N,);
        another `variant` gives other latents for the same numbers.
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
        """Samples the latents of the first images of some classes, class by class; see `latents`."""
        labels, numbers = torch.tensor(classes).repeat_interleave(count), torch.arange(count).repeat(len(classes))
        return self.latents(labels, numbers, latent_dim, distribution, variant)

    def _shaped(self, uniform: Tensor, distribution: Distribution) -> Tensor:
        """Turns uniform numbers in [0, 1) into latents."""
        limit = math.inf if self.truncation is None else self.truncation
        if distribution == "uniform":
            return (uniform * 2 - 1) * min(limit, 1) * self.scale
        lowest = 0.5 * math.erfc(limit / math.sqrt(2))
        normal: Tensor = torch.special.ndtri(lowest + uniform * (1 - 2 * lowest))
        return normal.clamp(-8, 8) * self.scale  # a uniform number of 0 gives -infinity


def slerp(first: Tensor, second: Tensor, part: float) -> Tensor:
    """Interpolates from the first latents (0) to the second (1) along a great circle (White 2016, arXiv:1609.04468).

    A straight line would pass closer to 0 than latents do in training, where images are less varied.
    """
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)[:, None]
    angle = torch.acos(cosine)
    between: Tensor = (torch.sin((1 - part) * angle) * first + torch.sin(part * angle) * second) / torch.sin(angle)
    return between
