"""How many CPU threads a run takes: small networks try, large ones take all."""

from __future__ import annotations

import pytest
import torch

from lightning_cgan import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from lightning_cgan.training import threads


def test_flops_are_those_counted_by_hand() -> None:
    generator, discriminator = MLPGenerator(10, 1, 28), MLPDiscriminator(10, 1, 28)
    forward_generator = 2 * (110 * 128 + 128 * 784)
    forward_discriminator = 2 * (794 * 128 + 128)
    expected = 64 * (3 * forward_generator + 8 * forward_discriminator)
    assert threads.flops_of_step(generator, discriminator, 64) == expected
    generator, discriminator = DCGANGenerator(2, 1, 8, 4, channels=(6, 3)), DCGANDiscriminator(2, 1, 8, channels=(3, 6))  # type: ignore[assignment]
    # dense to 2 x 2 x 6, then 4 x 4 kernels: each input pixel meets all 16 places
    forward_generator = 2 * (6 * 24 + 4 * 6 * 3 * 16 + 16 * 3 * 16)
    forward_discriminator = 2 * (16 * 1 * 3 * 16 + 4 * 3 * 6 * 16 + 24)
    assert threads.flops_of_step(generator, discriminator, 1) == 3 * forward_generator + 8 * forward_discriminator
    assert generator.training


def test_small_networks_try_threads_and_large_ones_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = MLPGenerator(10, 1, 8, hidden=(4,)), MLPDiscriminator(10, 1, 8, hidden=(4,))
    tried: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", tried.append)
    now = iter(range(10**9))
    # as if each thread more took longer: the clock runs once more for each
    monkeypatch.setattr(threads.time, "perf_counter", lambda: sum(next(now) for _ in range(tried[-1])))
    assert threads.fastest_threads(*networks, 16, "32-true", most=6) == 1
    assert tried[:4] == [1, 2, 4, 6]
    assert tried[-1] == torch.get_num_threads()
    large = MLPGenerator(10, 1, 8, hidden=(3000, 3000)), MLPDiscriminator(10, 1, 8, hidden=(3000, 3000))
    assert threads.fastest_threads(*large, 16, "bf16-mixed", most=6) == 6
    assert threads.fastest_threads(*networks, 16, "32-true", most=1) == 1
