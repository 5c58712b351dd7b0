"""The training step and the module's own promises."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from helpers.small_gan import fit, gan
from lightning_cgan import (
    R1,
    Cutout,
    DigitsData,
    Discriminator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    UsageError,
)
from lightning_cgan.training.optimization import prepare_strategy


class Recorder:
    """Keeps what a network was called with, and what it gave."""

    def __init__(self, network: nn.Module) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        network.register_forward_hook(self.note)

    def note(self, _: nn.Module, inputs: Any, output: Tensor) -> None:
        self.calls.append((inputs[0].detach().clone(), inputs[1].clone(), output.detach().clone()))


def test_each_update_moves_its_own_network_only() -> None:
    module = gan()
    moved: list[set[str]] = []
    step = type(module).on_before_optimizer_step

    def watch(optimizer: Any) -> None:
        weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        if watch.last:  # type: ignore[attr-defined]
            last = watch.last  # type: ignore[attr-defined]
            moved.append({name.split(".")[0] for name in weights if not torch.equal(weights[name], last[name])})
        watch.last = weights  # type: ignore[attr-defined]
        step(module, optimizer)

    watch.last = None  # type: ignore[attr-defined]
    module.on_before_optimizer_step = watch  # type: ignore[method-assign]
    fit(module, steps=2)
    assert moved == [{"discriminator"}, {"generator"}, {"discriminator"}]


def test_step_is_a_hand_written_loop() -> None:
    """Two discriminator steps, R1 every second step and SGD, against the loop that one would write by hand."""
    options: dict[str, Any] = {
        "penalties": [R1(0.5, interval=2)],
        "generator_optimizer": partial(SGD, lr=0.3),
        "discriminator_optimizer": partial(SGD, lr=0.2),
        "discriminator_steps": 2,
    }
    module = gan(**options)
    twin = copy.deepcopy(module)
    real, fake = Recorder(module.discriminator), Recorder(module.generator)
    batches: list[Any] = []
    module.on_train_batch_start = lambda batch, _: batches.append(batch)  # type: ignore[method-assign,assignment]
    fit(module, steps=3)
    assert len(fake.calls) == 6  # one pass of the generator for each discriminator step: the last one is shared

    generator, discriminator = twin.generator, twin.discriminator
    g_sgd, d_sgd = SGD(generator.parameters(), lr=0.3), SGD(discriminator.parameters(), lr=0.2)
    drawn = iter(fake.calls)
    for step, (images, labels) in enumerate(batches):
        assert images.shape == (32, 1, 8, 8)
        for part in range(2):
            x, y = images[16 * part : 16 * part + 16], labels[16 * part : 16 * part + 16]
            latents, fake_labels, _ = next(drawn)
            assert torch.equal(y, fake_labels)
            d_loss = -torch.log(torch.sigmoid(discriminator(x, y))).mean()
            d_loss = d_loss - torch.log(1 - torch.sigmoid(discriminator(generator(latents, y).detach(), y))).mean()
            if step % 2 == 0:
                x = x.clone().requires_grad_()
                (slope,) = torch.autograd.grad(discriminator(x, y).sum(), x, create_graph=True)
                d_loss = d_loss + 2 * 0.5 / 2 * slope.flatten(1).square().sum(1).mean()
            d_sgd.zero_grad()
            d_loss.backward()
            d_sgd.step()
        g_loss = -torch.log(torch.sigmoid(discriminator(generator(latents, y), y))).mean()
        g_sgd.zero_grad()
        g_loss.backward()
        g_sgd.step()
    for (name, value), (_, expected) in zip(module.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.allclose(value, expected, atol=1e-5), name
    assert real.calls


class BatchNormDiscriminator(Discriminator):
    def __init__(self) -> None:
        super().__init__(10, 1, 8)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.layers(images).squeeze(1)  # type: ignore[no-any-return]


def test_real_and_fake_share_a_pass_unless_batch_statistics_forbid_it() -> None:
    for discriminator, sizes in ((MLPDiscriminator(10, 1, 8), [32, 16]), (BatchNormDiscriminator(), [16, 16, 16])):
        recorder = Recorder(discriminator)
        fit(gan(discriminator=discriminator), steps=1)
        assert [len(images) for images, _, _ in recorder.calls] == sizes


def test_unshared_fakes_are_fresh() -> None:
    module = gan(share_fakes=False)
    recorder = Recorder(module.generator)
    fit(module, steps=2)
    latents = [call[0] for call in recorder.calls]
    assert len(latents) == 4
    assert len({tuple(rows.flatten().tolist()) for rows in latents}) == 4


def test_clipping_bounds_the_true_norm_of_each_network() -> None:
    options = {"generator_optimizer": partial(SGD, lr=1.0), "discriminator_optimizer": partial(SGD, lr=1.0)}
    module = gan(**options, generator_clip_norm=1e-3, discriminator_clip_norm=1e-2)
    before = copy.deepcopy(dict(module.named_parameters()))
    fit(module, steps=1)
    for network, norm in (("generator", 1e-3), ("discriminator", 1e-2)):
        moves = [(p - before[name]).flatten() for name, p in module.named_parameters() if name.startswith(network)]
        assert torch.cat(moves).norm().item() == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("fake_labels", ["real", "uniform", "empirical"])
def test_labels_of_fakes(fake_labels: Any) -> None:
    images, labels = torch.zeros(4096, 1, 8, 8), (torch.arange(4096) % 16).clamp(max=9)  # many nines
    loader: DataLoader[Any] = DataLoader(TensorDataset(images, labels), batch_size=4096)
    module = gan(fake_labels=fake_labels)
    recorder = Recorder(module.generator)
    fit(module, steps=1, data=loader)
    drawn = recorder.calls[0][1]
    counts = torch.bincount(drawn, minlength=10)
    if fake_labels == "uniform":
        assert ((counts - 409.6).abs() < 100).all()
    else:
        assert torch.equal(counts, torch.bincount(labels))
        assert torch.equal(drawn, labels) == (fake_labels == "real")


@pytest.mark.parametrize(("latents", "lowest", "deviation"), [("normal", -3.0, 1.0), ("uniform", -1.0, 3**-0.5)])
def test_latents(latents: Any, lowest: float, deviation: float) -> None:
    module = gan(latents=latents)
    drawn = module.sample_latents(5000, seed=1)
    assert drawn.shape == (5000, 4)
    assert drawn.std().item() == pytest.approx(deviation, abs=0.02)
    assert drawn.mean().item() == pytest.approx(0, abs=0.02)
    assert (drawn.min() < lowest) if latents == "normal" else (drawn.abs().max() <= 1 and drawn.min() < -0.99)
    assert torch.equal(drawn, module.sample_latents(5000, seed=1))


def test_generate() -> None:
    module = gan(generator=MLPGenerator(10, 1, 8, batch_norm=True))
    module.train()
    images = module.generate([3, 3, 7], seed=5)
    assert images.shape == (3, 1, 8, 8)
    assert torch.equal(images, module.generate(torch.tensor([3, 3, 7]), seed=5))
    alone = module.generate(3, latents=module.sample_latents(3, seed=5)[:1])
    assert torch.allclose(images[:1], alone, atol=1e-5)  # no batch statistics: the others do not matter
    assert not torch.equal(images[0], images[1])
    assert module.generator.training
    assert not images.requires_grad
    with pytest.raises(UsageError, match=r"labels: expected class numbers from 0 to 9, got \[3, 10\]"):
        module.generate([3, 10])


def test_networks_must_agree_with_each_other_and_with_the_data() -> None:
    with pytest.raises(UsageError, match=r"discriminator.num_classes: expected 10, as the generator has, got 3"):
        gan(discriminator=MLPDiscriminator(3, 1, 8))
    with pytest.raises(UsageError, match=r"generator.image_size: expected 16, as the data has, got 8"):
        fit(gan(), data=DigitsData(image_size=16))
    with pytest.raises(UsageError, match=r"generator.num_classes: expected 2, as the data has, got 10"):
        fit(gan(), data=DigitsData(classes=[4, 9]))


def test_own_loader_must_fit_the_discriminator_steps() -> None:
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.zeros(64, 1, 8, 8), torch.zeros(64).long()), batch_size=64)
    with pytest.raises(
        UsageError,
        match="discriminator_steps: expected training batches of a multiple of 5 images in each process, got 64",
    ):
        fit(gan(discriminator_steps=5), data=loader)
    with pytest.raises(UsageError, match="discriminator_steps: expected 1 or more, got 0"):
        gan(discriminator_steps=0)


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    module, weights = gan(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(fit(copy.deepcopy(module)).generator.layers[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train(precision: str) -> None:
    module = gan(generator_clip_norm=1.0, penalties=[R1(1.0)], discriminator_steps=3)
    before = copy.deepcopy(dict(module.named_parameters()))
    fit(module, precision=precision)
    assert all(not torch.equal(p, before[name].to(p.dtype)) for name, p in module.named_parameters())
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(("precision", "expected"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_losses_are_never_in_half_precision(precision: str, expected: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Watching(NonSaturating):
        def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            seen.extend([real_logits.dtype, fake_logits.dtype])
            return super().discriminator(real_logits, fake_logits)

    fit(gan(loss=Watching()), steps=1, precision=precision)
    assert seen == [expected, expected]


def test_a_scheduler_that_waits_for_a_score_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a scheduler that counts steps, got ReduceLROnPlateau"):
        fit(gan(generator_scheduler=ReduceLROnPlateau))


def test_limited_epochs_are_as_long_as_they_say() -> None:
    module = gan()
    trainer = fit(module, steps=-1, max_epochs=2, limit_train_batches=60).trainer
    assert trainer.global_step == 120


def test_no_logging_at_all() -> None:
    assert fit(gan(), steps=2, log_every_n_steps=0).trainer.global_step == 2


def test_default_optimizer_is_adam() -> None:
    assert gan().optimization.optimizer_factories == {"generator": Adam, "discriminator": Adam}


def test_accumulation_changes_nothing() -> None:
    """One process: cut into parts or not, shared fakes or not, the weights agree to rounding."""
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.3) for role in ("generator", "discriminator")}
    for share_fakes in (True, False):
        options: dict[str, Any] = {"penalties": [R1(0.5)], "share_fakes": share_fakes, "discriminator_steps": 2, **sgd}
        whole = gan(**options)
        parts = [copy.deepcopy(whole) for _ in range(2)]
        parts[0].accumulation = {"generator": 4, "discriminator": 1}
        parts[1].accumulation = {"generator": 1, "discriminator": 8}
        torch.manual_seed(1)
        fit(whole)
        for module in parts:
            recorder = Recorder(module.generator)
            torch.manual_seed(1)
            fit(module)
            assert max(len(call[0]) for call in recorder.calls) == 16
            for (name, value), (_, expected) in zip(module.named_parameters(), whole.named_parameters(), strict=True):
                assert torch.allclose(value, expected, rtol=0, atol=1e-6), name


def test_penalties_and_augmentations_see_what_the_discriminator_sees() -> None:
    seen: list[Tensor] = []

    class Watching(R1):
        def __call__(self, discriminator: Any, inputs: Any, fake: Tensor) -> Tensor:
            seen.extend([inputs.real, fake])
            return super().__call__(discriminator, inputs, fake)

    module = gan(penalties=[Watching(1.0)], augmentations=[Cutout(0.5, fill=7.0)])
    recorder = Recorder(module.discriminator)
    fit(module, steps=1)
    real, fake = seen
    assert ((real == 7).flatten(1).sum(1) > 0).all()  # blanked on each image
    assert ((fake == 7).flatten(1).sum(1) > 0).all()
    assert not torch.equal(real == 7, fake == 7)
    assert torch.equal(recorder.calls[0][0], torch.cat([real, fake]))  # the discriminator's update
    assert torch.equal(recorder.calls[-1][0], fake)  # the generator's


def test_strategies_that_cannot_be_right_are_refused() -> None:
    hook = DDPStrategy(ddp_comm_hook=lambda state, bucket: None)  # type: ignore[arg-type,return-value]
    for strategy, message in (
        (hook, "expected a DDPStrategy without ddp_comm_hook, got one with it; .* so remove the hook"),
        (ModelParallelStrategy(), "expected ddp or a single device, got ModelParallelStrategy; .* use ddp"),
    ):
        with pytest.raises(UsageError, match=f"--trainer.strategy: {message}"):
            prepare_strategy(strategy)
