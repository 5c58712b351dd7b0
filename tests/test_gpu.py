"""The modes of Lightning on a GPU; run with `pytest -m gpu`."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from helpers.quiet import quiet_trainer
from lightning_cgan import (
    R1,
    Color,
    ConditionalGAN,
    Cutout,
    DCGANDiscriminator,
    DCGANGenerator,
    DigitsData,
    MLPDiscriminator,
    MLPGenerator,
    RelativisticPairing,
    Translation,
)
from lightning_cgan.training.compilation import Compiled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def fit(module: ConditionalGAN, steps: int, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    trainer = quiet_trainer(steps, accelerator="gpu", devices=1, **options)
    trainer.fit(module, DigitsData(batch_size=64))
    return module


@pytest.mark.parametrize("compile", ["none", "networks", "step"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_part_trains_in_every_precision(precision: str, compile: Compiled) -> None:
    adam = partial(Adam, lr=1e-3, fused=True)
    module = ConditionalGAN(
        DCGANGenerator(10, 1, 8, channels=(16, 8), conditional_batch_norm=True),
        DCGANDiscriminator(10, 1, 8, channels=(8, 16), spectral_norm=True),
        RelativisticPairing(),
        penalties=[R1(1.0, interval=2)],
        augmentations=[Translation(), Cutout(), Color()],
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        generator_clip_norm=1.0,
        discriminator_clip_norm=1.0,
        ema_half_life=500.0,
        compile=compile,
        cuda_graph=False,
    )
    before = copy.deepcopy(module.state_dict())
    fit(module, 20, precision=precision)
    after = {name: value.cpu() for name, value in module.state_dict().items()}
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(after["generator.project.weight"], before["generator.project.weight"])
    assert not torch.equal(after["generator_ema.project.weight"], before["generator_ema.project.weight"])
    assert sum(int(count) for count in module.optimization.skipped_steps.values()) < 20


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-4), ("bf16-mixed", 0.05), ("16-mixed", 0.02)])
def test_precisions_agree_with_float32_eager(precision: str, tolerance: float) -> None:
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.1) for role in ("generator", "discriminator")}
    networks = MLPGenerator(10, 1, 8, hidden=(64,)), MLPDiscriminator(10, 1, 8, hidden=(64,))
    module = ConditionalGAN(*networks, RelativisticPairing(), **sgd)
    reference = fit(copy.deepcopy(module), 4, precision="64-true")
    before = dict(module.state_dict())
    half = fit(copy.deepcopy(module), 4, precision=precision)
    assert not any(half.optimization.skipped_steps.values())
    for name, value in half.state_dict().items():
        moved = reference.state_dict()[name].cpu() - before[name]
        if moved.norm() > 1e-6:
            assert ((value.cpu() - before[name] - moved).norm() / moved.norm()).item() < tolerance, name


@pytest.mark.parametrize("compile", ["none", "step"])
@pytest.mark.parametrize(("interval", "dropout"), [(1, 0.0), (3, 0.0), (3, 0.3)])
def test_cuda_graphs_train_as_separate_operations_do(compile: Compiled, interval: int, dropout: float) -> None:
    """In float64, with graphs for steps with and without penalty, and schedules that change the rates."""
    found = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        adam = partial(Adam, lr=1e-3, fused=True)
        module = ConditionalGAN(
            DCGANGenerator(10, 1, 8, channels=(16, 8), conditional_batch_norm=True),
            DCGANDiscriminator(10, 1, 8, channels=(8, 16), dropout=dropout),
            RelativisticPairing(),
            penalties=[R1(1.0, interval=interval)],
            generator_optimizer=adam,
            discriminator_optimizer=adam,
            generator_scheduler=partial(torch.optim.lr_scheduler.PolynomialLR, total_iters=12),
            ema_half_life=500.0,
            compile=compile if cuda_graph else "none",
            cuda_graph=cuda_graph,
        )
        fit(module, 12, precision="64-true")
        assert (module.compilation.fused_step is not None) == cuda_graph
        found.append({name: value.cpu().double() for name, value in module.state_dict().items()})
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, atol=1e-7), name


class BrightGenerator(MLPGenerator):
    """Fetches a number from the CPU in each pass, which a CUDA graph cannot."""

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = super().forward(latents, labels)
        return images * torch.full((1,), 0.5).to(images.device)


def test_a_step_that_no_graph_can_hold_runs_as_separate_operations(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        adam = partial(Adam, lr=1e-3, fused=True)
        optimizers = {f"{role}_optimizer": adam for role in ("generator", "discriminator")}
        networks = BrightGenerator(10, 1, 8), DCGANDiscriminator(10, 1, 8, channels=(8, 16), dropout=0.3)
        module = ConditionalGAN(*networks, RelativisticPairing(), cuda_graph=cuda_graph, **optimizers)
        fit(module, 6, precision="64-true")
        assert module.compilation.fused_step is None
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        found.append({name: value.cpu() for name, value in module.state_dict().items()})
    assert "A step is not run as one graph: " in caplog.text
    for name, value in found[0].items():
        assert torch.allclose(found[1][name], value, atol=1e-12), name


def test_a_step_does_not_wait_for_the_device() -> None:
    class Watched(ConditionalGAN):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            torch.cuda.set_sync_debug_mode("error" if batch_idx > 2 else "default")  # after what happens once
            try:
                super().training_step(batch, batch_idx)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    for cuda_graph in (False, True):
        adam = partial(Adam, lr=1e-3, fused=True)
        optimizers = {f"{role}_optimizer": adam for role in ("generator", "discriminator")}
        networks = MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8)
        module = Watched(*networks, RelativisticPairing(), ema_half_life=500.0, cuda_graph=cuda_graph, **optimizers)
        fit(module, 8, log_every_n_steps=100)
        assert (module.compilation.fused_step is not None) == cuda_graph


def test_images_lie_on_the_device() -> None:
    data = DigitsData(batch_size=64)
    trainer = quiet_trainer(1, accelerator="gpu", devices=1)
    trainer.fit(ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), RelativisticPairing()), data)
    assert {images.device.type for images, _ in data.train_dataloader()} == {"cuda"}
    data = DigitsData(batch_size=64, memory_budget=0)
    trainer.fit(ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), RelativisticPairing()), data)
    assert {images.device.type for images, _ in data.train_dataloader()} == {"cpu"}
