"""Addressable chance: every random number of a run is a function of where it is used.

The order of the data depends on (seed, epoch); latents and drawn labels depend on (seed, step, part) and on
their place in the whole batch; what networks draw themselves, as for dropout, on (seed, step, process). So a run
can be resumed, or shared out over processes, without a random state to carry along.
"""

from __future__ import annotations

import hashlib
import struct

import torch

# The purposes of a module's random numbers, a part of their address
TRAINING, VALIDATION, TEST, PREDICTION, NETWORKS = range(5)


def rng_at(*address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose stream is determined by an address, such as (seed, purpose, step).

    The address is hashed, so that neighbouring addresses give unrelated streams.

    Args:
        address: Whole numbers that fit 64 signed bits.
        device: Where the numbers will be drawn. The streams of a CPU and of a GPU differ.
    """
    return torch.Generator(device).manual_seed(_seed_at(*address))


def seed_global_rng(*address: int, device: torch.device) -> None:
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


def seed_of_process() -> int:
    """PyTorch's initial seed of the moment, as `seed_everything` sets it, within 63 bits."""
    return torch.initial_seed() % 2**63


def _seed_at(*address: int) -> int:
    digest = hashlib.blake2b(struct.pack(f"<{len(address)}q", *address), digest_size=4).digest()
    return int.from_bytes(digest, "little")
