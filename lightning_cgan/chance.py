"""Addressable chance: every random number of a run is a function of where it is used.

The order of the data depends on (seed, epoch); latents and drawn labels depend on (seed, alternation, part) and on
their place in the whole batch; what networks draw themselves, as for dropout, on (seed, alternation, process). So a run
can be resumed, or shared out over processes, without a random state to carry along.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["normal", "uniform"]

# The purposes of a module's random numbers, a part of their address
TRAINING, VALIDATION, TEST, PREDICTION, NETWORKS = range(5)

# As many numbered images share a generator: to make one for each would take longer than to draw. Seeds have 32 bits,
# and blocks that happen to share one have the same latents: the fewer blocks, the less likely that is.
_BLOCK = 1024


def generator_at(*address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose stream is determined by an address, such as (seed, purpose, step).

    The address is hashed, so that neighbouring addresses give unrelated streams.

    Args:
        address: Whole numbers that fit 64 signed bits.
        device: Where the numbers will be drawn. The streams of a CPU and of a GPU differ.
    """
    return torch.Generator(device).manual_seed(_seed_at(*address))


def move_global_generator(*address: int, device: torch.device) -> None:
    """Puts PyTorch's global generators of the CPU and of a device to the beginning of the stream of an address.

    What draws from them, such as dropout, then depends on nothing that came before. `torch.manual_seed` would do the
    same for all devices there are, and takes a while to find them.

    Args:
        address: Whole numbers that fit 64 signed bits.
        device: Where networks are.
    """
    torch.default_generator.manual_seed(_seed_at(*address))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(_seed_at(*address))


def _seed_at(*address: int) -> int:
    digest = hashlib.blake2b(struct.pack(f"<{len(address)}q", *address), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def draw_latents(
    shape: tuple[int, ...],
    distribution: Distribution,
    generator: torch.Generator | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draws latents, standard normal or uniform in [-1, 1].

    Args:
        shape: The shape of the result, usually (N, latent_dim).
        distribution: The distribution of each number.
        generator: Draws the numbers, on its own device. Without one, PyTorch's global generator of the CPU does.
        dtype: Of the result; without it, PyTorch's default.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    if distribution == "normal":
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)
    return torch.rand(shape, generator=generator, device=device, dtype=dtype).mul_(2).sub_(1)


@dataclass(frozen=True)
class Drawing:
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
                generator = generator_at(self.seed, label, variant, block[1])
                uniform = torch.rand(_BLOCK, latent_dim, generator=generator, dtype=torch.float64)
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
