"""What files describe is built as it was, and what is text stays text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from helpers.own_parts import DarkGAN
from helpers.paths import CONFIGS
from lightning_cgan import (
    R1,
    ArrayData,
    ConditionalGAN,
    GradientPenalty,
    Hinge,
    LeastSquares,
    MLPDiscriminator,
    MLPGenerator,
    UsageError,
)
from lightning_cgan.core.building import build
from lightning_cgan.core.serialization import to_config
from lightning_cgan.training.checkpointing import build_from

SIZES = {"num_classes": 10, "image_channels": 1, "image_size": 8}


def content(module: ConditionalGAN) -> dict[str, Any]:
    """What a Trainer would save of a module, as far as it matters here."""
    saved: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.seed = 0
    module.on_save_checkpoint(saved)
    return saved


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_rebuilt(built: Callable[..., Any], config: Path) -> None:
    """What the command line built and a checkpoint describes, the strict builder builds again, value for value."""
    options = ("--data", "DigitsData", "--data.batch_size", "16", "--data.image_size", "16", "--threads", "1")
    module = built(config.name, *options)["model"]
    again = build_from(ConditionalGAN, content(module))
    assert dict(again.hparams) == dict(module.hparams)
    weights, expected = again.state_dict(), module.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    for one, other in zip(again.configure_optimizers(), module.configure_optimizers(), strict=True):
        assert type(one["optimizer"]) is type(other["optimizer"])
        assert one["optimizer"].defaults == other["optimizer"].defaults  # tuples are tuples again
        assert one.keys() == other.keys()
        if "lr_scheduler" in one:
            states = [of["lr_scheduler"]["scheduler"].state_dict() for of in (one, other)]
            assert states[0] == states[1]


# What `yaml.safe_load` and the loader of jsonargparse read differently, and whatever else could become more than text.
TEXTS = [
    "{class_path:\tr1.Loss}",
    "{class_path: r1.Loss, dict_kwargs: {a: 2020-99-99}}",
    "class_path: !!python/name:os.system",
    '{"class_path": "lightning_cgan.Hinge"}',
    "lightning_cgan.Hinge",
    "Hinge",
    "!!python/object/apply:os.system [x]",
    "--- a\n--- {class_path: lightning_cgan.Hinge}",
    "null",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = content(ConditionalGAN(MLPGenerator(**SIZES), MLPDiscriminator(**SIZES), Hinge()))
    for place in ("generator", "loss", "generator_optimizer", "generator_scheduler", "auxiliary_classifier"):
        changed = {**saved, "hyper_parameters": {**saved["hyper_parameters"], place: text}}
        with pytest.raises(UsageError, match=f"the checkpoint: expected .* for {place}, got "):
            build_from(ConditionalGAN, changed)
    changed = {**saved, "hyper_parameters": {**saved["hyper_parameters"], "penalties": [text]}}
    with pytest.raises(UsageError, match=r"expected a description of GradientPenalty for penalties\.0, got "):
        build_from(ConditionalGAN, changed)
    monkeypatch.setitem(sys.modules, "own_parts", module := ModuleType("own_parts"))
    named = {"class_path": "own_parts.Named", "init_args": {"name": text, "others": {text: [text]}}}
    module.Named = Named  # type: ignore[attr-defined]
    monkeypatch.setattr(Named, "__module__", "own_parts")
    built = build(named, GradientPenalty, "x")
    assert isinstance(built, Named)
    assert (built.name, built.others) == (text, {text: [text]})


class Named(R1):
    """Somebody's own penalty, with text among its arguments."""

    def __init__(self, name: str, others: dict[str, list[str]] | None = None) -> None:
        super().__init__(1.0)
        self.name, self.others = name, others


class Own(MLPGenerator):
    """A network that is handed classes, functions that make something, and parts."""

    def __init__(
        self,
        activation: type[nn.Module] = nn.ReLU,
        norm: Callable[[int], nn.Module] | None = None,
        penalty: GradientPenalty | None = None,
        pair: tuple[int, float] = (1, 0.5),
        widths: Sequence[int] = (8,),
        optimizer: Callable[[Any], Optimizer] | None = None,
        anything: Any = None,
        unsaid=None,  # type: ignore[no-untyped-def]
        **options: Any,
    ) -> None:
        super().__init__(hidden=widths, **options)
        self.given = (activation, norm, penalty, pair, optimizer, anything, unsaid)


def test_own_networks_get_what_they_were_given() -> None:
    layer = partial(nn.LeakyReLU, negative_slope=0.1)
    made = Own(
        nn.Tanh, layer, R1(0.5), (3, 4), [4, 4], partial(SGD, lr=0.5), nn.GELU, Hinge(), **SIZES, batch_norm=True
    )
    again = build(to_config(made), MLPGenerator, "x")
    assert isinstance(again, Own)
    assert again.init_args == made.init_args
    activation, norm, penalty, pair, optimizer, anything, unsaid = again.given
    assert activation is nn.Tanh
    assert (norm.func, norm.keywords) == (nn.LeakyReLU, {"negative_slope": 0.1})  # type: ignore[union-attr]
    assert isinstance(penalty, R1)
    assert (penalty.gamma, pair) == (0.5, (3, 4))
    assert (optimizer.func, optimizer.keywords) == (SGD, {"lr": 0.5})  # type: ignore[union-attr]
    assert anything is nn.GELU
    assert isinstance(unsaid, Hinge)
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in again.modules())


def test_own_modules_and_lightnings_scheduler_load() -> None:
    schedule = partial(ReduceLROnPlateau, monitor="x", factor=0.5)
    module = DarkGAN(generator=Own(**SIZES), discriminator=MLPDiscriminator(**SIZES), loss=Hinge())
    again = build_from(DarkGAN, content(module))
    assert isinstance(again.generator, Own)
    other = ConditionalGAN(Own(**SIZES), MLPDiscriminator(**SIZES), Hinge(), generator_scheduler=schedule)
    read = build_from(ConditionalGAN, content(other)).optimization.scheduler_factories["generator"]
    assert (read.func, read.keywords) == (ReduceLROnPlateau, {"monitor": "x", "factor": 0.5})  # type: ignore[union-attr]
    # Lightning's own entries, and those of old, are nobody's arguments
    saved = content(module)
    saved |= {
        "hparams": {"loss": "x"},
        "module_arguments": {"latents": "x"},
        "hparams_name": "loss",
        "hparams_type": dict,
    }
    saved["hyper_parameters"] |= {"_class_path": "os.system", "_instantiator": "os.system"}
    assert isinstance(build_from(DarkGAN, saved).loss, Hinge)


def test_arguments_in_the_place_of_those_of_the_checkpoint() -> None:
    cycle = partial(OneCycleLR, max_lr=0.1, total_steps=10)
    with pytest.warns(UserWarning, match="cannot record how generator_optimizer was built"):
        module = ConditionalGAN(
            MLPGenerator(**SIZES),
            MLPDiscriminator(**SIZES),
            Hinge(),
            generator_optimizer=lambda weights: SGD(weights, lr=0.5),
            discriminator_scheduler=cycle,
        )
    saved = content(module)
    saved["hyper_parameters"]["loss"] = {"class_path": "nobodys.Loss"}  # not looked at where another is given
    again = build_from(
        ConditionalGAN, saved, given={"loss": LeastSquares(), "generator_optimizer": partial(SGD, lr=0.25)}
    )
    assert isinstance(again.loss, LeastSquares)
    assert again.configure_optimizers()[0]["optimizer"].defaults["lr"] == 0.25  # type: ignore[index,call-overload]
    assert again.optimization.scheduler_factories["discriminator"].keywords == cycle.keywords  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"hparams_file: expected none, .* got x.yaml; give arguments by name"):
        ConditionalGAN.load_from_checkpoint("x.ckpt", hparams_file="x.yaml")


def test_an_option_of_a_newer_pytorch_that_is_off_is_passed_over() -> None:
    described = {"class_path": "torch.optim.adam.Adam", "init_args": {"lr": 0.1, "of_the_future": False, "later": None}}
    made = build(described, Callable[[Any], Optimizer], "x")  # type: ignore[arg-type]
    assert (made.func, made.keywords) == (Adam, {"lr": 0.1})  # type: ignore[attr-defined]
    described["init_args"] = {"of_the_future": True}
    with pytest.raises(UsageError, match="x: expected options of Adam, got of_the_future; it takes lr, betas"):
        build(described, Callable[[Any], Optimizer], "x")  # type: ignore[arg-type]


def test_what_has_no_end_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    doubled: list[Any] = []
    for _ in range(40):
        doubled = [doubled, doubled]
    for value in (ring, doubled, [0] * 200_000):
        with pytest.raises(UsageError, match="x: expected at most 100,000 values, 50 deep, got more"):
            build(value, MLPGenerator, "x")


class _Private(R1):
    pass


def test_classes_that_are_private_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"gamma": 1.0}
    with pytest.raises(UsageError, match=f"got {__name__}._Private; other classes are not built"):
        build({"class_path": f"{__name__}._Private", "init_args": arguments}, GradientPenalty, "x")

    class Local(R1):
        pass

    with pytest.raises(UsageError, match="other classes are not built"):
        build({"class_path": f"{__name__}.{Local.__qualname__}", "init_args": arguments}, GradientPenalty, "x")
    path = {"class_path": f"{__name__}.Named", "init_args": {"name": "a"}}
    assert isinstance(build(path, GradientPenalty, "x"), Named)
    monkeypatch.delattr(sys.modules[__name__], "Named")
    with pytest.raises(UsageError, match="other classes are not built"):
        build(path, GradientPenalty, "x")


def test_a_data_module_of_a_file_is_not_built_from_text() -> None:
    (Path() / "spy.py").write_text("open('ran', 'w').close()\n")
    sys.path.insert(0, str(Path().resolve()))
    try:
        hyper = {"arrays": {"images": {"class_path": "spy.A"}, "labels": [0]}}
        saved = {"datamodule_hyper_parameters": hyper, "pytorch-lightning_version": "2.6.0"}
        hyper["_instantiator"] = "lightning.pytorch.cli.instantiate_module"  # type: ignore[assignment]
        torch.save(saved, "data.ckpt")
        with pytest.raises(UsageError, match="--data.arrays: expected images"):
            ArrayData.load_from_checkpoint("data.ckpt")
    finally:
        sys.path.pop(0)
    assert not Path("ran").exists()
