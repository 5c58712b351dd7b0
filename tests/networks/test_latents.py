"""Latents that are drawn at an address."""

from __future__ import annotations

import pytest
import torch

from lightning_cgan.core.rng import rng_at
from lightning_cgan.networks.latents import sample_latents


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_neighbouring_steps_are_uncorrelated(distribution: str) -> None:
    rows = torch.stack(
        [sample_latents((2000,), distribution, rng_at(0, 0, step, 0)) for step in range(20)]  # type: ignore[arg-type]
    )
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.1
