"""Addressable random numbers: each is a function of where it is used.

The order of the data depends on (seed, epoch); latents and sampled labels on (seed, step, part) and on their index in
the whole batch; random numbers within networks, as for dropout, on (seed, step, process). So a run can be resumed, or
split among processes, without storing random states.
"""

from __future__ import annotations

import hashlib
import struct

import torch

# The purposes of random numbers of a module or its generator; part of their addresses
TRAINING, VALIDATION, TEST, PREDICTION, NETWORKS, INVERSION = range(6)


def rng_at(*address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose stream is determined by an address, such as (seed, purpose, step).

    The address consists of signed 64-bit numbers. It is hashed, so that neighbouring addresses give unrelated streams.
    The streams of a CPU and of a GPU differ.
    """
    return torch.Generator(device).manual_seed(_seed_at(*address))


def seed_global_rng(*address: int, device: torch.device) -> None:
    """Seeds PyTorch's global generators of the CPU and of one device, which dropout uses, with an address."""
    # `torch.manual_seed` would also seed all other devices, which is slow.
    torch.default_generator.manual_seed(_seed_at(*address))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(_seed_at(*address))


def seed_of_process() -> int:
    """PyTorch's current initial seed, as `seed_everything` sets it, reduced to 63 bits.

    `ConditionalGAN.setup` asks for it when a run starts; the command line sets it, to 0 if not told otherwise.
    """
    return torch.initial_seed() % 2**63


def _seed_at(*address: int) -> int:
    digest = hashlib.blake2b(struct.pack(f"<{len(address)}q", *address), digest_size=4).digest()
    return int.from_bytes(digest, "little")
