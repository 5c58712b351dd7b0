"""Networks compiled in place."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from quiet import quiet_trainer
from torch.optim import SGD

from lightning_cgan import R1, ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating, UsageError


def train(path: Path, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.1) for role in ("generator", "discriminator")}
    module = ConditionalGAN(
        MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,)),
        MLPDiscriminator(10, 1, 8, hidden=(16,)),
        NonSaturating(),
        penalties=[R1(0.5, interval=2)],
        ema_half_life=100.0,
        **sgd,
        **options,
    )
    trainer = quiet_trainer(4)
    trainer.fit(module, DigitsData(batch_size=16))
    trainer.save_checkpoint(path)
    return module


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_networks_train_alike(tmp_path: Path) -> None:
    compiled = train(tmp_path / "compiled.ckpt", compile=True)
    eager = train(tmp_path / "eager.ckpt")
    assert compiled.generator._compiled_call_impl is not None
    assert compiled.discriminator._compiled_call_impl is not None
    saved, expected = (
        torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"] for name in ("compiled", "eager")
    )
    assert list(saved) == list(expected)
    for name, value in expected.items():
        assert torch.allclose(saved[name], value, atol=1e-5), name
    loaded = ConditionalGAN.load_from_checkpoint(tmp_path / "compiled.ckpt")
    latents = loaded.sample_latents(3, seed=0)
    assert torch.allclose(loaded.generate([1, 2, 3], latents), eager.generate([1, 2, 3], latents), atol=1e-5)


def test_missing_compiler_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"compile: expected a C\+\+ compiler for a CPU, got none; install g\+\+, or"):
        train(tmp_path / "none.ckpt", compile=True)
