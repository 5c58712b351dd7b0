"""Networks compiled in place, and steps that run as one graph."""

from __future__ import annotations

import copy
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, TensorDataset

from helpers.marks import ci_but_for
from helpers.pairs import PAIRS, built, largest_difference, mlp, train
from helpers.quiet import quiet_trainer
from helpers.small_gan import fit, gan
from lightning_cgan import (
    R1,
    AuxiliaryClassifier,
    ConditionalGAN,
    DigitsData,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    RelativisticPairing,
    Translation,
    UsageError,
    WassersteinGradientPenalty,
)
from lightning_cgan.training.compilation import Compilation, has_compiler_for_cpu

compiler = pytest.mark.skipif(not has_compiler_for_cpu(), reason="torch.compile needs a C++ compiler on a CPU")


@pytest.mark.ci
@compiler
def test_compiled_networks_train_alike(tmp_path: Path) -> None:
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.1) for role in ("generator", "discriminator")}
    compiled = train(built(mlp), tmp_path / "compiled.ckpt", compile="networks", **sgd)
    eager = train(built(mlp), **sgd)
    assert compiled.generator._compiled_call_impl is not None
    assert compiled.discriminator._compiled_call_impl is not None
    assert largest_difference(compiled, eager) < 1e-5
    loaded = ConditionalGAN.load_from_checkpoint(tmp_path / "compiled.ckpt")
    latents = loaded.sample_latents(3, seed=0)
    assert torch.allclose(loaded.generate([1, 2, 3], latents), eager.generate([1, 2, 3], latents), atol=1e-5)


def test_missing_compiler_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"Python.h for a CPU, .*; install g\+\+ and python3-dev, or"):
        train(built(mlp), compile="networks")


# ---- steps as one graph, whose reference is the module's own way of several optimizer steps ---------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fresh fakes": {"share_fakes": False},
    "three discriminator steps": {"discriminator_steps": 3},
    "no penalty": {"penalties": []},
    "points between": {"penalties": [R1(0.5), WassersteinGradientPenalty(1.0, interval=3)]},
    "relativistic": {"loss": RelativisticPairing(), "fake_labels": "uniform"},
    "augmented": {"augmentations": [Translation()]},
    "fused AdamW": {
        f"{role}_optimizer": partial(AdamW, lr=1e-3, weight_decay=0.1, betas=(0.5, 0.9), fused=True)
        for role in ("generator", "discriminator")
    },
    "weight decay": {"generator_optimizer": partial(Adam, lr=1e-3, weight_decay=0.1)},
    "schedules": {"generator_scheduler": partial(torch.optim.lr_scheduler.PolynomialLR, total_iters=6)},
}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves graphs uncompiled, which is quick."""
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)


def check_alike(make: Any, **options: Any) -> None:
    fused_step = train(built(make), compile="step", precision="64-true", **options)
    assert fused_step.compilation.fused_step is not None
    assert fused_step.compilation.fused_step.seconds > 0
    assert largest_difference(fused_step, train(built(make), precision="64-true", **options)) < 1e-9


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("pair", ci_but_for(PAIRS, "mlp with batch norm"))
def test_graphs_of_every_pair_train_alike(pair: str) -> None:
    check_alike(PAIRS[pair])


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("options", ci_but_for(OPTIONS, "points between"))
def test_graphs_with_every_option_train_alike(options: str) -> None:
    check_alike(PAIRS["mlp"], **OPTIONS[options])


@pytest.mark.usefixtures("no_compiler")
def test_graph_of_a_classifier_trains_alike() -> None:
    def pair() -> tuple[Generator, Discriminator]:
        return MLPGenerator(10, 1, 8, 4, (16,)), MLPDiscriminator(10, 1, 8, (16,), conditioning="classifier")

    check_alike(pair, auxiliary_classifier=AuxiliaryClassifier(1.0))


@pytest.mark.ci
@compiler
def test_compiled_steps_train_alike() -> None:
    compiled = train(built(mlp), compile="step")
    assert compiled.compilation.fused_step is not None
    assert compiled.compilation.fused_step.compiles
    assert largest_difference(compiled, train(built(mlp))) < 1e-5  # float32, and Adam at the start


@pytest.mark.ci
@pytest.mark.usefixtures("no_compiler")
def test_the_state_of_the_optimizers_goes_on_either_way(tmp_path: Path) -> None:
    """Half of a run as graphs, half not, from a checkpoint."""
    whole = train(built(mlp), precision="64-true")
    half = {"precision": "64-true", "steps": 3}
    train(built(mlp), tmp_path / "half.ckpt", compile="step", **half)
    states = torch.load(tmp_path / "half.ckpt", weights_only=True)["optimizer_states"]
    assert [int(state["state"][0]["step"]) for state in states] == [3, 3]
    for compile in ("none", "step"):
        module = ConditionalGAN.load_from_checkpoint(tmp_path / "half.ckpt", compile=compile)
        quiet_trainer(6, precision="64-true").fit(module, DigitsData(batch_size=16), ckpt_path=tmp_path / "half.ckpt")
        assert largest_difference(module, whole) < 1e-6  # loaded as float32


class PeekingGenerator(MLPGenerator):
    """Looks at a number, which no graph can."""

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = super().forward(latents, labels)
        return images if images.mean().item() < 2 else -images


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"generator_clip_norm": 1.0}, "clip_norm checks gradients before each step"),
        ({"generator_accumulation": 2}, "an update is accumulated"),
        (
            {"generator_optimizer": partial(SGD, lr=0.1)},
            "only Adam and AdamW without amsgrad, maximize and differentiable can be",
        ),
        (
            {"generator_optimizer": partial(Adam, amsgrad=True)},
            "only Adam and AdamW without amsgrad, maximize and differentiable can be",
        ),
        ({}, "It appears that you're trying to get value out of a tracing tensor"),
    ],
)
def test_what_no_graph_can_hold_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], reason: str
) -> None:
    networks = built(mlp)
    if not options:
        networks = PeekingGenerator(10, 1, 8, latent_dim=4, hidden=(16,)), networks[1]
    with caplog.at_level(logging.INFO):
        module = train(networks, compile="step", **options)
    assert module.compilation.fused_step is None
    (message,) = [record.getMessage() for record in caplog.records if "not run as one graph" in record.getMessage()]
    assert message.startswith(f"A step is not run as one graph: {reason}")
    assert "\n" not in message


@pytest.mark.usefixtures("no_compiler")
def test_batches_of_another_size_go_without_a_graph() -> None:
    images, labels = torch.rand(40, 1, 8, 8) * 2 - 1, torch.arange(40) % 10
    batches = DataLoader(TensorDataset(images, labels), batch_size=16)  # 16, 16, 8

    def fit(compile: str) -> ConditionalGAN:
        torch.manual_seed(0)
        module = ConditionalGAN(*built(mlp), NonSaturating(), compile=compile)  # type: ignore[arg-type]
        quiet_trainer(6, precision="64-true").fit(module, batches)
        return module

    assert largest_difference(fit("step"), fit("none")) < 1e-9


def test_frozen_weights_stay_as_they_are(no_compiler: None) -> None:
    networks = built(mlp)
    first = networks[1].layers[0]
    assert isinstance(first, nn.Linear)
    first.requires_grad_(False)
    before = first.weight.clone()
    module = train(networks, compile="step")
    assert module.compilation.fused_step is not None
    assert torch.equal(first.weight, before)


def test_callbacks_that_look_within_are_not_passed_over(no_compiler: None) -> None:
    class Norms(Callback):
        seen = 0

        def on_before_optimizer_step(self, *_: Any) -> None:
            self.seen += 1

    norms = Norms()
    module = train(built(mlp), compile="step", callbacks=[norms])
    assert module.compilation.fused_step is None
    assert norms.seen == 12  # two in each of six steps


@pytest.mark.ci
def test_a_trained_module_can_be_copied(no_compiler: None) -> None:
    module = train(built(mlp), compile="step")
    twin = copy.deepcopy(module)
    assert largest_difference(twin, module) == 0
    assert twin.compilation.fused_step is None
    assert module.compilation.fused_step is not None


class Peeking(Callback):
    def on_after_backward(self, *_: Any) -> None:
        pass


OBSTACLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options of the module, and of the Trainer
    "processes average their gradients": ({}, {"devices": 2, "strategy": "ddp"}),
    "float16 checks": ({}, {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}),
    "clip_norm checks": ({"discriminator_clip_norm": 1.0}, {}),
    "an update is accumulated": ({"discriminator_accumulation": 2}, {}),
    "only Adam and AdamW": ({"discriminator_optimizer": partial(SGD, lr=0.1)}, {}),
    "Peeking.on_after_backward": ({}, {"callbacks": [Peeking()]}),
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_obstacles_are_known_before_a_fit(reason: str) -> None:
    options, of_trainer = OBSTACLES[reason]
    module = gan(**options)
    assert str(module.compilation.obstacle(quiet_trainer(1, **of_trainer))).startswith(reason)
    assert gan().compilation.obstacle(quiet_trainer(1)) is None


def test_a_mode_that_nobody_gave_leaves_the_networks_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """If the graph cannot be compiled, then networks may not compile either, and that would end the run."""
    module = gan(generator=PeekingGenerator(10, 1, 8, latent_dim=4, hidden=(16,)))
    module.compilation.choose("step")
    with caplog.at_level(logging.INFO):
        fit(module)
    assert "A step is not run as one graph: It appears" in caplog.text
    assert module.compilation.in_use() == "none"
    assert module.hparams["compile"] == module.init_args["compile"] == "step"
