"""Graphs of batches of several sizes and precisions, in resumed runs, and with what a user compiles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from helpers.graph_changes import Changing, in_every_step, networks
from helpers.marks import ci_but_for
from helpers.pairs import largest_difference, train
from helpers.quiet import quiet_trainer
from lightning_cgan import R1, R2, ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.training.compilation import Compilation


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves graphs uncompiled, which is quick."""
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)


# ---- batches, precision, resumed runs --------------------------------------------------------------------------------


def fit_loader(compile: str, sizes: list[int], **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    images, labels = torch.rand(sum(sizes), 1, 8, 8) * 2 - 1, torch.arange(sum(sizes)) % 10
    places = list(torch.arange(sum(sizes)).split(sizes))
    batches = DataLoader(TensorDataset(images, labels), batch_sampler=[place.tolist() for place in places])
    module = ConditionalGAN(*networks(), NonSaturating(), compile=compile, **options)  # type: ignore[arg-type]
    quiet_trainer(2 * len(sizes), precision="64-true").fit(module, batches)
    return module


@pytest.mark.ci
@pytest.mark.parametrize("sizes", [[16, 16, 8], [8, 16]])
def test_a_short_batch_has_a_graph_of_its_own(sizes: list[int]) -> None:
    module = fit_loader("step", sizes, discriminator_steps=2)
    assert module.compilation.fused_step is not None
    assert len(module.compilation.fused_step.sizes) == 2
    assert largest_difference(module, fit_loader("none", sizes, discriminator_steps=2)) < 1e-9


def test_batches_of_many_sizes_go_without_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [16, 12, 8, 4]
    with caplog.at_level(logging.INFO):
        module = fit_loader("step", sizes)
    told = "Batches of more than 2 sizes: steps of the others are not run as one graph"
    assert caplog.messages.count(told) == 1
    assert largest_difference(module, fit_loader("none", sizes)) < 1e-9


def test_casts_are_done_once() -> None:
    """A graph holds the casts of autocast, and the penalty none: the first steps agree to the last bit."""
    pair = lambda: (MLPGenerator(10, 1, 8, 4, (16,)), MLPDiscriminator(10, 1, 8, (16,)))  # noqa: E731
    moments = []
    for compile in ("none", "step"):
        torch.manual_seed(0)
        module = train(pair(), compile=compile, precision="bf16-mixed", steps=1, penalties=[R1(5.0)])
        moments.append([state["exp_avg"] for state in module.trainer.optimizers[1].state.values()])
    for eager, fused_step in zip(*moments, strict=True):
        assert torch.allclose(eager, fused_step, rtol=1e-6, atol=1e-9)


@pytest.mark.ci
@pytest.mark.parametrize("then", ["step", "none"])
def test_a_run_in_which_things_change_goes_on(then: str, tmp_path: Path) -> None:
    """Killed after the change: graphs go on to the last bit, and PyTorch's own steps to rounding."""

    def change(module: ConditionalGAN, step: int) -> None:
        module.penalties[0].gamma = 0.8**step  # type: ignore[attr-defined]
        module.discriminator.drop.p = 0.3 if step < 2 else 0.6
        in_every_step(betas=lambda step: (0.5, 0.9 + 0.01 * step), eps=lambda step: 1e-8 * step + 1e-8)(module, step)

    options: dict[str, Any] = {"callbacks": [Changing(change, None)]}
    whole = train(networks(), compile="step", **options)
    train(networks(), tmp_path / "half.ckpt", compile="step", steps=3, **options)
    module = ConditionalGAN.load_from_checkpoint(tmp_path / "half.ckpt", compile=then)
    quiet_trainer(6, **options).fit(module, DigitsData(batch_size=16), ckpt_path=tmp_path / "half.ckpt")
    if then == "step":
        assert largest_difference(module, whole) == 0
    else:
        assert largest_difference(module, whole) < 1e-5


# ---- what a user compiles ------------------------------------------------------------------------------------------


def compile_in_place(module: ConditionalGAN) -> Any:
    module.discriminator.compile(backend="aot_eager")
    return module


def compile_around(module: ConditionalGAN) -> Any:
    module.discriminator = torch.compile(module.discriminator, backend="aot_eager")
    return module


def compile_a_layer(module: ConditionalGAN) -> Any:
    module.discriminator.layers.compile(backend="aot_eager")  # type: ignore[union-attr]
    return module


def compile_forward(module: ConditionalGAN) -> Any:
    module.discriminator.forward = torch.compile(module.discriminator.forward, backend="aot_eager")  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize(
    "compiled",
    ci_but_for([compile_in_place, compile_around, compile_a_layer, compile_forward], compile_a_layer, compile_forward),
)
def test_penalties_of_what_a_user_compiled(compiled: Callable[[ConditionalGAN], Any]) -> None:
    """Second derivatives, which nothing compiles."""

    def fit(how: Callable[[ConditionalGAN], Any]) -> list[Tensor]:
        pair = MLPGenerator(10, 1, 8, 4, (16,)), MLPDiscriminator(10, 1, 8, (16,))
        module = ConditionalGAN(*pair, NonSaturating(), penalties=[R1(5.0), R2(1.0)])
        quiet_trainer(3).fit(how(module), DigitsData(batch_size=16))
        return list(module.state_dict().values())

    expected = []
    for how in (lambda module: module, compiled):
        torch.manual_seed(0)
        expected.append(fit(how))
    for one, other in zip(*expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.ci
def test_a_module_that_was_compiled_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    trained = []
    for is_compiled in (False, True):
        module = ConditionalGAN(*networks(), NonSaturating(), penalties=[R1(5.0)], compile="step")
        torch.manual_seed(0)
        with caplog.at_level(logging.INFO):
            whole: Any = torch.compile(module) if is_compiled else module
            quiet_trainer(3).fit(whole, DigitsData(batch_size=16))
        trained.append(module)
    assert largest_difference(*trained) == 0
    told = "ConditionalGAN was compiled as a whole, which breaks at each backward pass: it runs as with "
    assert caplog.messages.count(told + "compile='step' instead") == 1
