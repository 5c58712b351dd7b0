"""Addressable random numbers."""

from __future__ import annotations

import torch

from lightning_cgan.core.rng import rng_at


def test_an_address_is_a_stream_of_its_own() -> None:
    addresses = [(0,), (0, 0), (0, 1), (1, 0), (1, 0, 0), (-1, 0), (2**62, 5)]
    drawn = [torch.rand(4, generator=rng_at(*address)) for address in addresses]
    for i, one in enumerate(drawn):
        assert torch.equal(one, torch.rand(4, generator=rng_at(*addresses[i])))
        assert all(not torch.equal(one, other) for other in drawn[i + 1 :])


def test_an_address_means_the_same_for_ever() -> None:
    """Checkpoints rely on it: the first 4 bytes of BLAKE2b over the address as little-endian 64-bit numbers."""
    # printf '\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0' | b2sum --length 32
    assert rng_at(1, 2).initial_seed() == int.from_bytes(bytes.fromhex("b7f89532"), "little")
