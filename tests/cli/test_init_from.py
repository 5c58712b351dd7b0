"""`fit --init_from`: which weights a run begins with, and what becomes of that when it is resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.paths import DIGITS
from helpers.small_gan import fit, gan
from lightning_cgan import (
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    Discriminator,
    MLPDiscriminator,
    NonSaturating,
    R3GANDiscriminator,
    ResNetDiscriminator,
    UsageError,
    initialize_from,
)
from lightning_cgan.cli.main import main
from lightning_cgan.export.pretrained import PretrainedGenerator
from lightning_cgan.networks.base import _layers_in_order, freeze_layers
from lightning_cgan.training.compilation import Compilation

SMALL = ("--data.image_size", "8", "--scores.images", "0", "--page.every_n_seconds", "0")
# Weights stay as they are, but for batch statistics.
STANDS = tuple(
    part
    for role in ("generator", "discriminator")
    for part in (f"--model.{role}_optimizer.lr", "0", f"--model.{role}_scheduler", "null")
)
LOW = ("--data.classes", "[0, 1, 2, 3, 4]")
HIGH = ("--data.classes", "[5, 3, 9]")
Run = Callable[..., Path]


def weights_of(folder: Path) -> dict[str, Tensor]:
    saved: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return dict(saved["state_dict"])


@pytest.fixture
def low(run: Run) -> Path:
    """A run on the digits from 0 to 4."""
    return run(*SMALL, *LOW, "--trainer.max_steps", "4", "--name", "low")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [line for line in caplog.messages if line.startswith("--init_from")]


def test_a_run_begins_with_the_weights_of_a_checkpoint(run: Run, low: Path, told: Callable[[], list[str]]) -> None:
    checkpoint = str(low / "checkpoints" / "last.ckpt")
    high = run(*SMALL, *HIGH, *STANDS, "--trainer.max_steps", "1", "--init_from", checkpoint, "--name", "high")
    assert told() == [
        "--init_from: generator: 16 of 16 tensors",
        "--init_from: generator_ema: 16 of 16 tensors",
        "--init_from: discriminator: 7 of 7 tensors",
        "--init_from: classes begin: '3' as there; '5', '9' as the mean of '0', '1', '2', '3', '4'",
    ]
    before, after = weights_of(low), weights_of(high)
    mean = before["generator.norms.0.scale.weight"].mean(0)
    for row, expected in enumerate((mean, before["generator.norms.0.scale.weight"][3], mean)):
        assert torch.allclose(after["generator.norms.0.scale.weight"][row], expected)
    for name in ("generator.convolutions.0.weight", "discriminator.convolutions.2.weight"):
        assert torch.equal(after[name], before[name])
    assert torch.load(high / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_a_run_begins_with_a_shipped_generator(run: Run, told: Callable[[], list[str]]) -> None:
    small = ("--scores.images", "0", "--page.every_n_seconds", "0", "--trainer.max_steps", "1")
    folder = run(*small, *STANDS, "--init_from", "digits", "--data.classes", "[9, 1]")
    assert told()[1:] == [
        "--init_from: generator_ema: 16 of 16 tensors",
        "--init_from: discriminator: there is none; it begins with new weights",
        "--init_from: classes begin: '9', '1' as there",
    ]
    shipped, after = PretrainedGenerator.from_pretrained("digits").generator.state_dict(), weights_of(folder)
    for name in ("generator", "generator_ema"):
        assert torch.equal(after[f"{name}.norms.1.shift.weight"], shipped["norms.1.shift.weight"][[9, 1]])
        assert torch.equal(after[f"{name}.convolutions.1.weight"], shipped["convolutions.1.weight"])


def test_frozen_layers_keep_their_weights(run: Run, low: Path) -> None:
    frozen = ("--model.discriminator_frozen_layers", "2", "--init_from", str(low / "checkpoints" / "last.ckpt"))
    before, after = weights_of(low), weights_of(run(*SMALL, *HIGH, *frozen, "--trainer.max_steps", "3"))
    same = {name for name, weight in before.items() if name in after and torch.equal(after[name], weight)}
    first = {f"discriminator.convolutions.{place}.{part}" for place in (0, 2) for part in ("weight", "bias")}
    assert {name for name in same if name.startswith("discriminator")} == first
    assert "generator.convolutions.0.weight" not in same


def test_a_run_is_resumed_without_the_weights_that_it_began_with(run: Run, low: Path, tmp_path: Path) -> None:
    fixed = ("--model.generator_scheduler", "null", "--model.discriminator_scheduler", "null")
    options = (*SMALL, *HIGH, *fixed, "--model.discriminator_frozen_layers", "1", "--trainer.log_every_n_steps", "1")
    source = shutil.copy(low / "checkpoints" / "last.ckpt", "source.ckpt")
    whole = run(*options, "--init_from", source, "--trainer.max_steps", "6", "--name", "whole")
    half = run(*options, "--init_from", source, "--trainer.max_steps", "3", "--name", "half")
    Path(source).unlink()
    resumed = ("--config", str(half / "config.yaml"), "--ckpt_path", str(half / "checkpoints" / "last.ckpt"))
    main(["fit", *resumed, "--trainer.max_steps", "6"])
    for name, weight in weights_of(whole).items():
        assert torch.equal(weights_of(half)[name], weight), name


NOTHING = (
    "error: --init_from: expected weights that fit these networks, got none in digits (generator: 0 of 5 tensors; not "
    "label_input.embedding.weight (not there), layers.0.weight (not there), layers.0.bias (not there)"
)
OTHER_WIDTHS = ("--model.generator.channels", "[48, 24]", "--model.generator.latent_dim", "8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init_from", "digit"), "error: --init_from: expected a file, a folder or a shipped generator (digits,"),
        (
            ("--init_from", ""),
            "error: --init_from: expected a file, a folder or the name of a shipped generator, got an",
        ),
        (("--init_from", "runs/a.ckpt"), "error: --init_from: no such file: runs/a.ckpt"),
        (("--init_from", "own.onnx"), "error: --init_from: expected a checkpoint, a folder that export wrote or a"),
        (("--init_from", "broken.ckpt"), "error: --init_from: expected a complete checkpoint, got broken.ckpt"),
        (
            ("--init_from", "empty"),
            "error: --init_from: expected a folder that export wrote, got empty (FileNotFoundError: no config.json)",
        ),
        (
            ("--model.discriminator_frozen_layers", "4"),
            "error: discriminator_frozen_layers: expected a whole number from 0 to 2, since DCGANDiscriminator has 3 "
            "layers, got 4; give one",
        ),
        (
            ("--model.discriminator_frozen_layers", "-1"),
            "error: discriminator_frozen_layers: expected a whole number from 0 to 2, since DCGANDiscriminator has 3",
        ),
        (
            ("--model.discriminator_frozen_layers", "1"),
            "error: --model.discriminator_frozen_layers: expected 0 for a run that begins with random weights, got 1; "
            "name a trained model with --init_from",
        ),
        (
            ("--init_from", "digits", "--model.discriminator_frozen_layers", "1"),
            "error: --model.discriminator_frozen_layers: expected weights for each frozen layer, got none for "
            "convolutions.0.bias in digits; freeze fewer layers, or begin with a checkpoint",
        ),
        (
            ("--init_from", "digits", "--model.generator", "MLPGenerator", "--model.generator.label_embedding", "3"),
            NOTHING,
        ),
        # One bias of one value would fit.
        (("--init_from", "digits", *OTHER_WIDTHS), "error: --init_from: expected weights that fit these networks, got"),
    ],
)
def test_what_cannot_be_begun_with(fails: Callable[..., str], options: tuple[str, ...], message: str) -> None:
    for name in ("own.onnx", "broken.ckpt"):
        Path(name).touch()
    Path("empty").mkdir()
    assert fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *options).startswith(message)
    assert not list(Path().glob("runs/*/*"))


def test_other_commands_take_the_config_of_such_a_run(run: Run, low: Path) -> None:
    source = shutil.copy(low / "checkpoints" / "last.ckpt", "source.ckpt")
    high = run(*SMALL, *HIGH, "--init_from", source, "--trainer.max_steps", "2", "--name", "high")
    Path(source).unlink()
    checkpoint = ("--ckpt_path", str(high / "checkpoints" / "last.ckpt"))
    main(["predict", "--config", str(high / "config.yaml"), *checkpoint, "--data.predictions_per_class", "1"])
    assert len(list(Path("predictions").glob("*/*.png"))) == 3


def test_new_classes_need_a_layer_that_learns_them(run: Run, fails: Callable[..., str]) -> None:
    concatenates = ("--model.discriminator.conditioning", "concatenation")
    low = run(*SMALL, *LOW, *concatenates, "--trainer.max_steps", "1")
    frozen = ("--init_from", str(low / "checkpoints" / "last.ckpt"), "--model.discriminator_frozen_layers", "1")
    told = fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *SMALL, *HIGH, *concatenates, *frozen)
    assert told == (
        "error: --model.discriminator_frozen_layers: expected layers that the labels do not enter, since there are new "
        "classes, got 1 with convolutions.0.weight; give 0, or another --model.discriminator.conditioning, such as "
        "projection"
    )
    run(*SMALL, "--data.classes", "[1, 3]", *concatenates, *frozen, "--trainer.max_steps", "1")


# ---- in Python -------------------------------------------------------------------------------------------------------


def of_digits(**options: Any) -> ConditionalGAN:
    generator = DCGANGenerator(2, 1, 16, latent_dim=32, channels=(64, 32), conditional_batch_norm=True)
    return ConditionalGAN(generator, DCGANDiscriminator(2, 1, 16), NonSaturating(), **options)


@pytest.mark.parametrize("names", [["7"], ["7", "8", "9"], "79", [7, 9], []])
def test_each_class_needs_a_name(names: Any) -> None:
    with pytest.raises(UsageError, match="class_names: expected 2 names, one for each class, got .*; name each class"):
        initialize_from(of_digits(), "digits", names)


def test_other_latents_are_told() -> None:
    assert initialize_from(of_digits(latents="uniform"), "digits")[-1] == "latents: normal there, uniform here"


@pytest.mark.parametrize("kind", ["digits", "checkpoint"])
def test_random_numbers_stay_the_same(kind: str, short_run: Path) -> None:
    module, source = of_digits(), "digits"
    if kind == "checkpoint":
        source = str(short_run / "checkpoints" / "last.ckpt")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialize_from(module, source)
    assert torch.equal(torch.rand(3), expected)


def test_a_generator_whose_classes_are_not_known(tmp_path: Path, low: Path) -> None:
    """A class within a function cannot be built again, so its rows keep their order, and a line says so."""

    class Own(DCGANGenerator):
        pass

    module = ConditionalGAN(
        Own(5, 1, 8, latent_dim=32, channels=(64, 32), conditional_batch_norm=True),
        DCGANDiscriminator(5, 1, 8, channels=(32, 64)),
        NonSaturating(),
    )
    source = str(low / "checkpoints" / "last.ckpt")
    line = "generator: not known which weights belong to classes; these keep their order"
    assert line in initialize_from(module, source, ["4", "3", "2", "1", "0"])
    assert line not in initialize_from(module, source, ["0", "1", "2", "3", "4"])


def test_nothing_is_said_of_classes_whose_weights_do_not_fit(low: Path) -> None:
    generator = DCGANGenerator(5, 1, 8, latent_dim=16, channels=(48, 24), conditional_batch_norm=True)
    module = ConditionalGAN(generator, DCGANDiscriminator(5, 1, 8, channels=(32, 48)), NonSaturating())
    lines = initialize_from(module, str(low / "checkpoints" / "last.ckpt"))
    assert not [line for line in lines if line.startswith("classes")]
    assert lines[1].startswith("discriminator: 3 of 7 tensors; not ")


# ---- frozen layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discriminator", "first"),
    [
        (MLPDiscriminator(3, 1, 8, (16, 8)), ["layers.0", "layers.2"]),
        (DCGANDiscriminator(3, 1, 8, channels=(4, 8), spectral_norm=True), ["convolutions.0", "convolutions.2"]),
        (ResNetDiscriminator(3, 1, 8, channels=(4, 8)), ["blocks.0.shortcut", "blocks.0.conv1", "blocks.0.conv2"]),
        (R3GANDiscriminator(3, 1, 8, channels=(4, 8)), ["from_image"]),
        (
            DCGANDiscriminator(3, 1, 8, channels=(4, 8), conditioning="concatenation", label_embedding=2),
            ["convolutions.0", "convolutions.2"],
        ),
    ],
)
def test_first_layers_are_those_that_images_pass_first(discriminator: Discriminator, first: list[str]) -> None:
    freeze_layers("x", discriminator, len(first))
    frozen = {name for name, weight in discriminator.named_parameters() if not weight.requires_grad}
    assert frozen == {name for name, _ in discriminator.named_parameters() if name.startswith(tuple(first))}


def test_stages_and_transitions_alternate() -> None:
    """In an R3GAN they are defined one kind after the other."""
    discriminator = R3GANDiscriminator(3, 1, 8, channels=(4, 8))
    whole = len(_layers_in_order(discriminator))
    for count in range(1, whole):
        freeze_layers("x", discriminator, count)
        is_frozen = [not next(iter(layer.parameters())).requires_grad for layer in _layers_in_order(discriminator)]
        assert is_frozen == [True] * count + [False] * (whole - count)
    assert any(not weight.requires_grad for weight in discriminator.transitions.parameters())


def test_graphs_keep_frozen_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)
    trained = []
    for compile in ("none", "step"):
        torch.manual_seed(0)
        module = gan(compile=compile, discriminator_frozen_layers=1)
        before = {name: weight.clone() for name, weight in module.named_parameters()}
        trained.append(fit(module, 4).state_dict())
        changed = {name for name, weight in before.items() if not torch.equal(trained[-1][name], weight)}
        assert changed == before.keys() - {"discriminator.layers.0.weight", "discriminator.layers.0.bias"}
    for name, weight in trained[0].items():
        assert torch.allclose(trained[1][name], weight, atol=1e-6), name
