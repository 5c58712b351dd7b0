"""Steps as graphs while something changes between them, against the module's own way with PyTorch's optimizers."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from helpers.marks import ci_but_for
from helpers.pairs import largest_difference, train
from helpers.quiet import quiet_trainer
from lightning_cgan import (
    R1,
    R2,
    AuxiliaryClassifier,
    ConditionalGAN,
    Cutout,
    DigitsData,
    Hinge,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    WassersteinGradientPenalty,
)
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.optimization import Optimization

Change = Callable[[ConditionalGAN, int], Any]
AGAIN = " has changed: steps are recorded again as graphs"
NOT = "A step is not run as one graph: "


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves graphs uncompiled, which is quick."""
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)


class Changing(Callback):
    """Makes a change before a step, or before each."""

    def __init__(self, change: Change, at: int | None = 3) -> None:
        self.change = change
        self.at = at

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if self.at in (None, trainer.global_step):
            self.change(module, trainer.global_step)


class Dropping(MLPDiscriminator):
    """Has dropout and batch normalisation."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, hidden=(16,))
        self.drop = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(64)

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return super().forward(self.norm(self.drop(images).flatten(1)).view_as(images), labels)


def networks() -> tuple[MLPGenerator, MLPDiscriminator]:
    torch.manual_seed(0)
    return MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,)), Dropping()


def both(
    change: Change | None,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], dict[str, Any]] = dict,
    at: int | None = 3,
) -> tuple[ConditionalGAN, list[str]]:
    """Trains with graphs and without, compares, and returns the first module with the lines about its graphs."""
    trained = []
    for compile in ("none", "step"):
        caplog.clear()
        options = make()
        pair = options.pop("networks", networks)()
        callbacks = [Changing(change, at)] if change is not None else []
        options = {"compile": compile, "precision": "64-true", "callbacks": callbacks, "steps": 8, **options}
        with caplog.at_level(logging.INFO):
            trained.append(train(pair, **options))
    assert largest_difference(*trained) < 1e-9
    messages = [record.getMessage() for record in caplog.records if "graph" in record.getMessage()]
    return trained[1], [message for message in messages if "not compiled" not in message]


def in_groups(**options: Any) -> Change:
    """Sets options of both optimizers."""

    def change(module: ConditionalGAN, step: int) -> None:
        for optimizer in module.trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(options)

    return change


def in_every_step(**options: Callable[[int], Any]) -> Change:
    return lambda module, step: in_groups(**{name: make(step) for name, make in options.items()})(module, step)


# ---- what enters a graph as a tensor -----------------------------------------------------------------------------------


def replace_data(module: ConditionalGAN, step: int) -> None:
    for weight in module.discriminator.parameters():
        weight.data = weight.data.clamp(-0.1, 0.1)


def load_state(module: ConditionalGAN, step: int) -> None:
    for optimizer in module.trainer.optimizers:
        state = optimizer.state_dict()
        for moments in state["state"].values():
            moments["exp_avg"] = -moments["exp_avg"]
        optimizer.load_state_dict(state)


def forget_moments(module: ConditionalGAN, step: int) -> None:
    for optimizer in module.trainer.optimizers:
        optimizer.state.clear()


def replace_a_moment(module: ConditionalGAN, step: int) -> None:
    for moments in module.trainer.optimizers[1].state.values():
        moments["exp_avg_sq"] = moments["exp_avg_sq"] * 4


SCHEDULES: dict[str, Any] = {
    "OneCycleLR": partial(OneCycleLR, max_lr=0.01, total_steps=8),
    "CyclicLR": partial(CyclicLR, base_lr=1e-3, max_lr=0.01, step_size_up=3, base_momentum=0.5, max_momentum=0.9),
}

ENTERS: dict[str, Change] = {
    "betas": in_every_step(betas=lambda step: (0.1 * step, 1 - 0.1 / (1 + step))),
    "eps": in_every_step(eps=lambda step: 0.01 * (step + 1)),
    "weight decay": in_every_step(weight_decay=lambda step: 0.01 * (step + 1)),
    "rate as a tensor": in_every_step(lr=lambda step: torch.tensor(0.01 * step, dtype=torch.float64)),
    "gamma": lambda module, step: setattr(module.penalties[0], "gamma", 0.8**step),
    "weight of another penalty": lambda module, step: setattr(module.penalties[1], "weight", 0.8**step),
    "replaced data": replace_data,
    "loaded state": load_state,
    "forgotten moments": forget_moments,
    "a replaced moment": replace_a_moment,
    "statistics": lambda module, step: module.discriminator.norm.running_mean.fill_(step),
    "weights": lambda module, step: nn.init.constant_(next(module.generator.parameters()), 0.01 * step),
}


def with_two_penalties() -> dict[str, Any]:
    return {"penalties": [R1(0.5), WassersteinGradientPenalty(1.0)]}


@pytest.mark.parametrize("name", ci_but_for(SCHEDULES, "OneCycleLR"))
def test_schedules_of_betas_are_followed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    schedules = {f"{role}_scheduler": SCHEDULES[name] for role in ("generator", "discriminator")}
    module, lines = both(None, caplog, lambda: dict(schedules))
    assert module.compilation.fused_step is not None
    assert lines == []


@pytest.mark.parametrize("name", ci_but_for(ENTERS, "betas", "gamma", "loaded state"))
def test_what_enters_may_change_in_every_step(name: str, caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(ENTERS[name], caplog, with_two_penalties, at=None)
    assert module.compilation.fused_step is not None
    assert lines == []


def test_the_weight_of_class_terms_may_change_in_every_step(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        pair = MLPGenerator(10, 1, 8, 4, (16,)), MLPDiscriminator(10, 1, 8, (16,), conditioning="classifier")
        return {"networks": lambda: pair, "auxiliary_classifier": AuxiliaryClassifier(1.0)}

    module, lines = both(
        lambda module, step: setattr(module.auxiliary_classifier, "weight", 0.1 * step), caplog, make, at=None
    )
    assert module.compilation.fused_step is not None
    assert lines == []


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_both_kinds_of_weight_decay(optimizer: type[Adam], caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"weight_decay": 0.3, "lr": 0.01}
    if optimizer is Adam:
        try:
            Adam([torch.ones(1)], decoupled_weight_decay=True)
        except TypeError:
            pytest.skip("an option of newer releases of PyTorch")
        options["decoupled_weight_decay"] = True
    optimizers = {f"{role}_optimizer": partial(optimizer, **options) for role in ("generator", "discriminator")}
    module, _ = both(None, caplog, lambda: dict(optimizers))
    assert module.compilation.fused_step is not None
    # Decoupled, both optimizers are the same one.
    twin = {f"{role}_optimizer": partial(AdamW, lr=0.01, weight_decay=0.3) for role in ("generator", "discriminator")}
    assert largest_difference(module, train(networks(), precision="64-true", steps=8, **twin)) < 1e-9


# ---- what takes a new graph ----------------------------------------------------------------------------------------


FACTOR = 1.0


class Scaled(R1):
    """Multiplies by a variable of this file, and by one of its class."""

    scale = 1.0

    def __call__(self, *args: Any) -> Tensor:
        return FACTOR * self.scale * super().__call__(*args)


class Sure(MLPGenerator):
    """Multiplies by a tensor that is no buffer, as a number."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, 4, (16,))
        self.factor = torch.tensor(1.0)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return super().forward(latents, labels) * float(self.factor)


@pytest.fixture
def _as_before() -> Iterator[None]:
    yield
    globals()["FACTOR"], Scaled.scale = 1.0, 1.0


def scaled() -> dict[str, Any]:
    globals()["FACTOR"], Scaled.scale = 1.0, 1.0
    return {"penalties": [Scaled(0.5)]}


def sure() -> dict[str, Any]:
    return {"networks": lambda: (networks()[1], Sure())[::-1]}


def add_group(module: ConditionalGAN, step: int) -> None:
    optimizer = module.trainer.optimizers[1]
    optimizer.add_param_group({"params": [optimizer.param_groups[0]["params"].pop()], "lr": 0.1})


def replace_a_parameter(module: ConditionalGAN, step: int) -> None:
    layer = module.generator.layers[0]
    layer.weight = nn.Parameter(layer.weight.detach() * 1.1)


def double_a_weight(module: ConditionalGAN, step: int) -> None:
    module.objectives.penalties.append(R2(0.5))


def set_factor(module: ConditionalGAN, step: int) -> None:
    globals()["FACTOR"] = 3.0


RECORDED_AGAIN: dict[str, tuple[Change, Callable[[], dict[str, Any]]]] = {
    "requires_grad of discriminator.layers.0.weight": (
        lambda module, step: module.discriminator.layers[0].weight.requires_grad_(False),
        dict,
    ),
    "discriminator.drop.p": (lambda module, step: setattr(module.discriminator.drop, "p", 0.6), dict),
    "discriminator.norm.training": (lambda module, step: module.discriminator.norm.eval(), dict),
    "discriminator.norm.eps": (lambda module, step: setattr(module.discriminator.norm, "eps", 0.1), dict),
    "generator.layers.0.weight": (replace_a_parameter, dict),
    "penalties[0].interval": (lambda module, step: setattr(module.penalties[0], "interval", 3), dict),
    "penalties": (double_a_weight, dict),
    "loss": (lambda module, step: setattr(module.objectives, "loss", Hinge()), dict),
    "augmentations[0].fill": (
        lambda module, step: setattr(module.input_sampler.augmentations[0], "fill", 0.7),
        lambda: {"augmentations": [Cutout()]},
    ),
    "a group of an optimizer": (add_group, dict),
    "a tensor that is neither a parameter nor a buffer": (
        lambda module, step: module.generator.factor.fill_(0.5),
        sure,
    ),
    "FACTOR": (set_factor, scaled),
    "Scaled.scale": (lambda module, step: setattr(Scaled, "scale", 2.0), scaled),
}


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("name", ci_but_for(RECORDED_AGAIN, "discriminator.drop.p", "penalties[0].interval", "FACTOR"))
def test_what_makes_graphs_be_recorded_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    change, make = RECORDED_AGAIN[name]
    module, lines = both(change, caplog, make)
    assert module.compilation.fused_step is not None
    assert lines == [name + AGAIN]


def test_what_comes_back_finds_its_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def change(module: ConditionalGAN, step: int) -> None:
        module.discriminator.drop.p = 0.3 if step % 2 else 0.5
        module.discriminator.layers[0].weight.requires_grad_(step % 2 == 0)

    module, lines = both(change, caplog, at=None)
    assert module.compilation.fused_step is not None
    assert lines == ["discriminator.drop.p" + AGAIN]


def test_what_changes_again_and_again_ends_graphs(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(lambda module, step: setattr(module.discriminator.drop, "p", 0.1 * step), caplog, at=None)
    assert module.compilation.fused_step is None
    ended = NOT + "discriminator.drop.p has changed 4 times: graphs are not recorded again"
    assert lines == ["discriminator.drop.p" + AGAIN] * 3 + [ended]


class Decides(R1):
    """Looks at its weight in Python, which a tensor does not allow."""

    def __call__(self, *args: Any) -> Tensor:
        penalty: Tensor = super().__call__(*args)
        return penalty if self.gamma > 0.5 else penalty.square()


def test_a_number_that_cannot_be_a_tensor_is_recorded_again(caplog: pytest.LogCaptureFixture) -> None:
    module, lines = both(
        lambda module, step: setattr(module.penalties[0], "gamma", 0.2), caplog, lambda: {"penalties": [Decides(1.0)]}
    )
    assert module.compilation.fused_step is not None
    assert lines == ["penalties[0].gamma" + AGAIN]


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


@pytest.mark.parametrize("name", ci_but_for(ENDS, "forward hook", "hook of a weight", "hook before a step", "clipping"))
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


@pytest.mark.parametrize("name", ci_but_for(REFUSED, "count", "weight"))
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


# ---- batches, precision, resumed runs --------------------------------------------------------------------------------


def fit_loader(compile: str, sizes: list[int], **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    images, labels = torch.rand(sum(sizes), 1, 8, 8) * 2 - 1, torch.arange(sum(sizes)) % 10
    places = list(torch.arange(sum(sizes)).split(sizes))
    batches = DataLoader(TensorDataset(images, labels), batch_sampler=[place.tolist() for place in places])
    module = ConditionalGAN(*networks(), NonSaturating(), compile=compile, **options)  # type: ignore[arg-type]
    quiet_trainer(2 * len(sizes), precision="64-true").fit(module, batches)
    return module


@pytest.mark.parametrize("sizes", [pytest.param([16, 16, 8], marks=pytest.mark.ci), [8, 16]])
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
    "compiled", [pytest.param(compile_in_place, marks=pytest.mark.ci), compile_around, compile_a_layer, compile_forward]
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
