"""The moving average of the generator against the recurrence written out in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from helpers.paths import FIXED_DECAY
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DCGANGenerator, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.training.ema import ema_decay


class Reference(Callback):
    """Averages in float64, once in each step, from what the generator is then."""

    def __init__(
        self, batch_size: int, half_life: float, ramp_up: float | None, start: dict[str, Tensor] | None = None
    ) -> None:
        self.batch_size, self.half_life, self.ramp_up, self.start = batch_size, half_life, ramp_up, start
        self.images = 0
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        start = self.start or pl_module.generator.state_dict()
        self.average = {name: value.double() for name, value in start.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        half_life = self.half_life if self.ramp_up is None else min(self.half_life, self.ramp_up * self.images)
        decay = 0.5 ** (self.batch_size / half_life) if half_life else 0.0
        for name, value in pl_module.generator.state_dict().items():
            kept = decay if value.is_floating_point() else 0.0
            self.average[name] = kept * self.average[name] + (1 - kept) * value.double()
        self.images += self.batch_size
        self.at[trainer.global_step] = {name: value.clone() for name, value in self.average.items()}


def gan(**options: Any) -> ConditionalGAN:
    generator = DCGANGenerator(10, 1, 8, latent_dim=4, channels=(8, 4), conditional_batch_norm=True)
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.5) for role in ("generator", "discriminator")}
    return ConditionalGAN(generator, MLPDiscriminator(10, 1, 8), NonSaturating(), **sgd, **options)


def assert_close(average: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert average.keys() == expected.keys()
    for name, value in average.items():
        assert torch.allclose(value.double(), expected[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("ramp_up", [None, 0.5])
@pytest.mark.parametrize("discriminator_steps", [1, 5])
def test_average_is_the_recurrence(discriminator_steps: int, ramp_up: float | None) -> None:
    module = gan(ema_half_life=60.0, ema_ramp_up=ramp_up, discriminator_steps=discriminator_steps)
    reference = Reference(16, 60.0, ramp_up)
    quiet_trainer(8, callbacks=[reference]).fit(module, DigitsData(batch_size=16))
    assert module.generator_ema is not None
    assert_close(module.generator_ema.state_dict(), reference.at[8])
    buffers = dict(module.generator_ema.named_buffers())
    assert any(name.endswith("running_var") for name in buffers)  # batch statistics are averaged too
    raw = module.generator.state_dict()
    assert not torch.allclose(module.generator_ema.state_dict()["project.weight"], raw["project.weight"], atol=1e-4)
    assert all(not parameter.requires_grad for parameter in module.generator_ema.parameters())


class CountingGenerator(MLPGenerator):
    """Replaces a buffer in each pass, instead of writing to it."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, hidden=(8,))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        self.passes = self.passes + 1.0
        images: Tensor = super().forward(latents, labels)
        return images


class Replaces(Callback):
    """Replaces a part of the generator before a step."""

    def __init__(self, part: str) -> None:
        self.part = part

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != 3:
            return
        layer = pl_module.generator.layers[0]
        if self.part == "weight":
            layer.weight = nn.Parameter(layer.weight.detach() + 1.0)
        elif self.part == "layer":
            pl_module.generator.layers[0] = nn.Linear(layer.in_features, layer.out_features)
        else:
            pl_module.generator = CountingGenerator()


@pytest.mark.parametrize("part", ["weight", "layer", "network"])
def test_parts_that_are_replaced_are_averaged(part: str) -> None:
    module = ConditionalGAN(CountingGenerator(), MLPDiscriminator(10, 1, 8), NonSaturating(), ema_half_life=100.0)
    reference = Reference(16, 100.0, 0.05)
    quiet_trainer(6, callbacks=[Replaces(part), reference]).fit(module, DigitsData(batch_size=16))
    assert module.generator.passes == (3 if part == "network" else 6)
    assert module.generator_ema is not None
    assert_close(module.generator_ema.state_dict(), reference.at[6])


def test_half_life_and_ramp_up() -> None:
    assert ema_decay(100, images_seen=10**6, half_life=100, ramp_up=None) == 0.5
    assert ema_decay(100, images_seen=10**6, half_life=50, ramp_up=0.05) == 0.25
    assert ema_decay(100, images_seen=1000, half_life=10**6, ramp_up=0.05) == 0.25  # half-life 50
    assert ema_decay(100, images_seen=0, half_life=100, ramp_up=0.05) == 0  # the first weights are forgotten at once
    product = 1.0
    for _ in range(10):
        product *= ema_decay(64, images_seen=10**6, half_life=640, ramp_up=None)
    assert product == pytest.approx(0.5)


def test_samples_are_made_with_the_average(tmp_path: Path) -> None:
    module = gan(ema_half_life=1000.0)
    run = quiet_trainer(5)
    run.fit(module, DigitsData(batch_size=16))
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ConditionalGAN.load_from_checkpoint(tmp_path / "x.ckpt")
    latents, labels = module.sample_latents(6, seed=1), torch.arange(6)
    for made in (module, loaded):
        for ema, network in ((True, module.generator_ema), (False, module.generator)):
            assert network is not None
            with torch.no_grad():
                expected = network.eval()(latents, labels)
            assert torch.equal(made.generate(labels, latents, ema=ema), expected)
    assert not torch.equal(loaded.generate(labels, latents), loaded.generate(labels, latents, ema=False))
    assert torch.equal(loaded.eval()(latents, labels), loaded.generate(labels, latents))


@pytest.mark.ci
def test_checkpoints_max_steps_and_average_share_a_clock(run: Callable[..., Path]) -> None:
    """A resumed run goes on with the average, and every checkpoint holds that of its own step."""
    options = ("--model.ema_half_life", "500", "--data.batch_size", "32", "--model.discriminator_steps", "2")
    options += FIXED_DECAY
    every_two = ("--checkpoints.every_n_train_steps", "2", "--checkpoints.save_top_k", "-1")
    whole = run(*options, *every_two, "--trainer.max_steps", "6")

    def saved(folder: Path, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(folder / "checkpoints" / name, weights_only=True)
        return loaded

    half = run(*options, "--trainer.max_steps", "4")
    go_on = ("--name", "resumed", "--ckpt_path", str(half / "checkpoints" / "last.ckpt"))
    resumed = run(*options, "--trainer.max_steps", "6", *go_on)
    for step, folder, name in ((4, half, "last.ckpt"), (6, resumed, "last.ckpt"), (6, whole, "last.ckpt")):
        expected, got = saved(whole, f"step_{step:08d}.ckpt"), saved(folder, name)
        assert got["global_step"] == step
        assert got["lightning_cgan"]["images_seen"] == step * 32
        averages = [key for key in expected["state_dict"] if key.startswith("generator_ema.")]
        assert averages
        for key in averages:
            assert torch.equal(expected["state_dict"][key], got["state_dict"][key]), key
    first, last = (saved(whole, f"step_{step:08d}.ckpt")["state_dict"] for step in (2, 6))
    assert not torch.equal(first["generator_ema.project.weight"], last["generator_ema.project.weight"])


class SaveAt(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_average_of_half_precision_is_kept_in_float32(precision: Any, tmp_path: Path) -> None:
    """With a half-life of many steps: in half precision nothing that an update adds would be kept."""
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.01) for role in ("generator", "discriminator")}
    networks = {"generator": MLPGenerator(10, 1, 8, 4, (16,)), "discriminator": MLPDiscriminator(10, 1, 8, (16,))}
    options: dict[str, Any] = {**sgd, "loss": NonSaturating(), "ema_half_life": 5000.0, "ema_ramp_up": None}
    module = ConditionalGAN(**networks, **options)
    start = {name: value.double() for name, value in module.generator.state_dict().items()}  # before it is rounded
    reference = Reference(16, 5000.0, None, start)
    run = quiet_trainer(12, callbacks=[reference], precision=precision)
    run.fit(module, DigitsData(batch_size=16))
    assert module.generator_ema is not None
    assert {value.dtype for value in module.generator.parameters()} != {torch.float32}
    assert {value.dtype for value in module.generator_ema.parameters()} == {torch.float32}
    first = reference.at[1]
    for name, value in module.generator_ema.state_dict().items():
        assert torch.allclose(value.double(), reference.at[12][name], rtol=0, atol=1e-6), name
        assert (value.double() - first[name]).abs().max() > 5e-6, f"{name} stands still"
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ConditionalGAN.load_from_checkpoint(tmp_path / "x.ckpt")
    for key, value in module.generator_ema.state_dict().items():
        assert torch.equal(loaded.generator_ema.state_dict()[key], value)  # type: ignore[union-attr]
    images = module.generate([1, 2], seed=3)
    assert images.dtype == torch.float32
    assert torch.equal(images, loaded.generate([1, 2], seed=3))
    assert module.generate([1, 2], seed=3, ema=False).dtype == next(module.generator.parameters()).dtype
    ends = []
    for options_of_run in ({}, {"ckpt_path": tmp_path / "half.ckpt"}):  # whole, and resumed in the middle
        torch.manual_seed(1)
        again, trainer = ConditionalGAN(**copy.deepcopy(networks), **options), quiet_trainer(6, precision=precision)
        if not options_of_run:
            saver = SaveAt(3, tmp_path / "half.ckpt")
            trainer = quiet_trainer(6, precision=precision, callbacks=[saver])
        trainer.fit(again, DigitsData(batch_size=16), **options_of_run)
        ends.append(again.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    (made,) = run.predict(module, DataLoader(torch.tensor([[1, 0], [2, 0]]), batch_size=2))  # type: ignore[misc,arg-type]
    assert made[0].dtype == torch.float32


@pytest.mark.parametrize("convert", ["half", "bfloat16"])
def test_average_stays_in_float32_when_a_module_is_converted(convert: str) -> None:
    module = gan(ema_half_life=100.0)
    assert module.generator_ema is not None
    before = {name: value.clone() for name, value in module.generator_ema.state_dict().items()}
    getattr(module, convert)()
    assert {value.dtype for value in module.discriminator.parameters()} == {getattr(torch, convert)}
    for name, value in module.generator_ema.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert list(module.state_dict()) == list(gan(ema_half_life=100.0).state_dict())  # the order too
    assert next(module.double().generator_ema.parameters()).dtype == torch.float64  # type: ignore[union-attr]
    assert next(module.to("meta").generator_ema.parameters()).device.type == "meta"  # type: ignore[union-attr]
    with quiet_trainer(1, precision="bf16-true").init_module():
        born = gan(ema_half_life=100.0)
    assert next(born.generator.parameters()).dtype == torch.bfloat16
    assert next(born.generator_ema.parameters()).dtype == torch.float32  # type: ignore[union-attr]
