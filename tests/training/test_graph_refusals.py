"""What ends graphs, and what no graph can hold: one line says why, and the run is that without graphs."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

from helpers.graph_changes import NOT, Change, both, in_groups, networks
from helpers.marks import ci_but_for
from helpers.quiet import quiet_trainer
from lightning_cgan import R1, ConditionalGAN, DigitsData, MLPGenerator, NonSaturating
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.optimization import Optimization


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves graphs uncompiled, which is quick."""
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)


# ---- what ends graphs ----------------------------------------------------------------------------------------------


def first_weight(module: ConditionalGAN) -> nn.Parameter:
    return module.discriminator.layers[0].weight  # type: ignore[no-any-return,union-attr,index]


def shrink(optimizer: Optimizer, *_: Any) -> None:
    for weight in optimizer.param_groups[0]["params"]:
        weight.data.mul_(0.9)


def shrink_gradient(weight: Tensor) -> None:
    assert weight.grad is not None
    weight.grad.mul_(0.1)


def halve(module: nn.Module, gradients: Any, *_: Any) -> Any:
    return tuple(gradient if gradient is None else gradient * 0.5 for gradient in gradients)


def replace_discriminator(module: ConditionalGAN, step: int) -> None:
    module.discriminator = networks()[1].double()


ENDS: dict[str, tuple[Change, str]] = {
    "forward hook": (
        lambda module, step: module.generator.layers.register_forward_hook(lambda *args: args[2] * 0.5),
        "a forward hook of generator.layers would not be called",
    ),
    "forward pre-hook": (
        lambda module, step: module.generator.layers.register_forward_pre_hook(lambda _, args: (args[0] * 0.5,)),
        "a forward pre hook of generator.layers would not be called",
    ),
    "backward hook": (
        lambda module, step: module.generator.layers.register_full_backward_hook(halve),
        "a backward hook of generator.layers would not be called",
    ),
    "backward pre-hook": (
        lambda module, step: module.generator.layers.register_full_backward_pre_hook(halve),
        "a backward pre hook of generator.layers would not be called",
    ),
    "hook of a weight": (
        lambda module, step: first_weight(module).register_hook(lambda gradient: gradient * 0.1),
        "a hook of discriminator.layers.0.weight would not be called",
    ),
    "hook of a gradient": (
        lambda module, step: first_weight(module).register_post_accumulate_grad_hook(shrink_gradient),
        "a hook of discriminator.layers.0.weight would not be called",
    ),
    "hook before a step": (
        lambda module, step: module.trainer.optimizers[0].register_step_pre_hook(shrink),
        "a hook of Adam would not be called",
    ),
    "hook after a step": (
        lambda module, step: module.trainer.optimizers[1].register_step_post_hook(shrink),
        "a hook of Adam would not be called",
    ),
    "maximize": (in_groups(maximize=True), "only Adam and AdamW without amsgrad, maximize and differentiable can be"),
    "clipping": (
        lambda module, step: module.optimization.clip_norms.update(generator=0.001),
        "clip_norm checks gradients before each step",
    ),
    "accumulation": (lambda module, step: module.accumulation.update(generator=2), "an update is accumulated"),
    "a method": (
        lambda module, step: setattr(module, "manual_backward", partial(ConditionalGAN.manual_backward, module)),
        "ConditionalGAN has a custom method for a part of it",
    ),
    "a method of a part": (
        lambda module, step: setattr(module.optimization, "step", partial(Optimization.step, module.optimization)),
        "Optimization has a custom method for a part of it",
    ),
    "a compiled layer": (
        lambda module, step: module.discriminator.layers.compile(backend="eager"),
        "discriminator.layers is compiled on its own",
    ),
}


@pytest.mark.parametrize("name", ci_but_for(ENDS, "forward hook", "clipping"))
def test_what_ends_graphs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    change, reason = ENDS[name]
    module, lines = both(change, caplog)
    assert module.compilation.fused_step is None
    assert lines == [NOT + reason]


def test_a_replaced_network_is_not_moved_by_the_optimizer_of_another(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(replace_discriminator, caplog)
    assert module.compilation.fused_step is None
    assert lines[-1] == NOT + "the discriminator's optimizer trains none of the weights that are there"


def test_a_callback_that_comes_later_is_not_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    class Late(Callback):
        seen = 0

        def on_after_backward(self, *_: Any) -> None:
            self.seen += 1

    late = Late()
    change: Change = lambda module, step: module.trainer.callbacks.append(late)  # type: ignore[attr-defined] # noqa: E731
    module, lines = both(change, caplog)
    assert module.compilation.fused_step is None
    assert late.seen == 2 * 2 * 5  # with graphs and without, in both backward passes of five steps
    assert lines == [NOT + "Late.on_after_backward would not be called"]


# ---- what is refused when the first graph is made --------------------------------------------------------------------


class Counting(NonSaturating):
    """Counts its calls, and goes by the count."""

    def __init__(self) -> None:
        self.calls = 0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        self.calls += 1
        return super().discriminator(real_logits, fake_logits) * self.calls


class Fading(R1):
    """Lowers its weight, which enters as a tensor, in each call."""

    def __call__(self, *args: Any) -> Tensor:
        self.gamma *= 0.9
        return super().__call__(*args)


class Rolling(NonSaturating):
    """Rolls dice of Python's."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return super().discriminator(real_logits, fake_logits) * (1 + random.random())


class Remembering(MLPGenerator):
    """Puts a new tensor in the place of a buffer in each pass."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, 4, (16,))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = super().forward(latents, labels)
        self.mean = self.mean / 2 + images.detach().mean() / 2
        return images * (1 - self.mean / 10)


class Knowing(NonSaturating):
    """Knows the module."""

    module: Any = None

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return super().discriminator(real_logits, fake_logits) * (1 + self.module.global_step)


def tell(module: ConditionalGAN, step: int) -> None:
    module.objectives.loss.module = module


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "count": (lambda: {"loss": Counting()}, "loss.calls changes in each pass"),
    "weight": (lambda: {"penalties": [Fading(0.5)]}, "penalties[0].gamma changes in each pass"),
    "buffer": (
        lambda: {"networks": lambda: (networks()[1], Remembering())[::-1]},
        "generator.mean is replaced in each pass",
    ),
}


@pytest.mark.parametrize("name", ci_but_for(REFUSED, "weight"))
def test_what_changes_while_it_computes_is_no_graph(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, reason = REFUSED[name]
    module, lines = both(None, caplog, make)
    assert module.compilation.fused_step is None
    assert lines == [NOT + reason]


def test_dice_of_python_are_no_part_of_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> dict[str, Any]:
        random.seed(0)
        return {"loss": Rolling()}

    module, lines = both(None, caplog, make)
    assert module.compilation.fused_step is None
    assert lines == [NOT + "the state of Python's or NumPy's random numbers changes in each pass"]


def test_a_part_that_knows_the_trainer_is_no_graph(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(tell, caplog, lambda: {"loss": Knowing()}, at=0)
    assert module.compilation.fused_step is None
    assert lines == [NOT + "loss.module is a ConditionalGAN, whose changes a graph would not see"]


@pytest.mark.parametrize("method", ["update_discriminator", "update_generator", "manual_backward", "backward"])
def test_methods_of_a_subclass_are_called(method: str, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def counted(self: ConditionalGAN, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return getattr(ConditionalGAN, method)(self, *args, **kwargs)

    subclass = type("Mine", (ConditionalGAN,), {method: counted})
    torch.manual_seed(0)
    module = subclass(*networks(), NonSaturating(), compile="step")
    with caplog.at_level(logging.INFO):
        quiet_trainer(2).fit(module, DigitsData(batch_size=16))
    assert calls
    assert NOT + f"Mine.{method} would not be called" in caplog.messages


class OwnPrecision(DoublePrecision):
    """A plugin of somebody's."""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"detect_anomaly": True}, "detect_anomaly checks each operation"),
        ({"plugins": [OwnPrecision()]}, "OwnPrecision may change steps"),
    ],
)
def test_watchers_of_the_trainer(options: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    module = ConditionalGAN(*networks(), NonSaturating(), compile="step")
    with caplog.at_level(logging.INFO):
        quiet_trainer(2, **options).fit(module, DigitsData(batch_size=16))
    assert module.compilation.fused_step is None
    assert NOT + reason in caplog.messages


def test_hooks_and_modes_of_the_whole_process(caplog: pytest.LogCaptureFixture) -> None:
    def fit() -> list[str]:
        caplog.clear()
        module = ConditionalGAN(*networks(), NonSaturating(), compile="step")
        with caplog.at_level(logging.INFO):
            quiet_trainer(2).fit(module, DigitsData(batch_size=16))
        assert module.compilation.fused_step is None
        return [message for message in caplog.messages if message.startswith(NOT)]

    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert fit() == [NOT + "a hook of all modules would not be called"]
    hook.remove()
    hook = register_optimizer_step_post_hook(lambda *_: None)
    assert fit() == [NOT + "a hook of Adam would not be called"]
    hook.remove()
    with FlopCounterMode(display=False):
        assert fit() == [NOT + "_FlopCounterMode intercepts each operation"]
