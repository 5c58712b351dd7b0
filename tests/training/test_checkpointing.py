"""Checkpoints: safe to load, sufficient by themselves, and good to go on from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import MultiStepLR, PolynomialLR
from torch.utils.data import DataLoader

from helpers.marks import ci_but_for
from helpers.own_parts import OwnGAN, OwnGenerator
from helpers.paths import DIGITS, FIXED_DECAY, OLD
from helpers.run_files import assert_same, fit_and_save, last_row
from lightning_cgan import (
    R1,
    Checkpoints,
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    DigitsData,
    LeastSquares,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    UsageError,
)
from lightning_cgan.core.schema import check_schema

Run = Callable[..., Path]


def test_module_built_in_python_loads_from_its_path_alone(tmp_path: Path) -> None:
    module = ConditionalGAN(
        DCGANGenerator(10, 1, 8, channels=(8, 4), latent_dim=7),
        DCGANDiscriminator(10, 1, 8, channels=(4,), conditioning="concatenation"),
        LeastSquares(),
        [R1(gamma=0.3, interval=4)],
        generator_optimizer=partial(SGD, lr=0.25),
        generator_scheduler=partial(PolynomialLR, total_iters=7),
        discriminator_steps=2,
        latents="uniform",
    )
    path = fit_and_save(module, tmp_path / "a.ckpt")
    torch.load(path, weights_only=True)
    again = ConditionalGAN.load_from_checkpoint(path)
    assert_same(module, again)
    assert isinstance(again.loss, LeastSquares)
    assert (again.penalties[0].gamma, again.penalties[0].interval) == (0.3, 4)  # type: ignore[attr-defined]
    assert (again.discriminator_steps, again.latents, again.discriminator.conditioning) == (
        2,
        "uniform",
        "concatenation",
    )
    generator, discriminator = again.configure_optimizers()  # type: ignore[misc,union-attr]
    assert isinstance(generator["optimizer"], SGD)  # type: ignore[index,call-overload]
    assert generator["optimizer"].defaults["lr"] == 0.25  # type: ignore[index,call-overload]
    assert generator["lr_scheduler"]["scheduler"].total_iters == 7  # type: ignore[index,call-overload]
    assert isinstance(discriminator["optimizer"], Adam)  # type: ignore[index,call-overload]


def test_module_built_by_the_command_line_loads_from_its_path_alone(run: Run) -> None:
    folder = run(
        *("--trainer.max_steps", "2", "--model.generator.latent_dim", "5", "--model.loss", "Hinge"),
        *("--model.generator_optimizer", "SGD", "--model.generator_optimizer.lr", "0.125"),
    )
    again = ConditionalGAN.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert again.generator.latent_dim == 5
    assert again.generator.image_size == 16  # what the data decided is in the checkpoint too
    assert type(again.loss).__name__ == "Hinge"
    optimizer = again.configure_optimizers()[0]["optimizer"]  # type: ignore[index,call-overload]
    assert optimizer.defaults["lr"] == 0.125
    assert again.generate([1, 2]).shape == (2, 1, 16, 16)


def test_own_network_and_own_module_load(tmp_path: Path) -> None:
    module = ConditionalGAN(OwnGenerator(10, 1, 8, brightness=0.5), MLPDiscriminator(10, 1, 8), NonSaturating())
    assert_same(module, ConditionalGAN.load_from_checkpoint(fit_and_save(module, tmp_path / "a.ckpt")))
    own = OwnGAN(width=24)
    path = fit_and_save(own, tmp_path / "b.ckpt")
    assert_same(own, OwnGAN.load_from_checkpoint(path))


def test_a_lambda_is_named_and_must_be_given_again(tmp_path: Path) -> None:
    networks = MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8)
    with pytest.warns(UserWarning, match="cannot record how generator_optimizer was built"):
        module = ConditionalGAN(*networks, NonSaturating(), generator_optimizer=lambda p: SGD(p, lr=0.5))
    path = fit_and_save(module, tmp_path / "a.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = ConditionalGAN.load_from_checkpoint(path, generator_optimizer=lambda p: SGD(p, lr=0.5))
    assert_same(module, again)
    assert isinstance(again.configure_optimizers()[0]["optimizer"], SGD)  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    "at", ci_but_for([1, 7, 20, 23], 23)
)  # the first step, in and at the end of the first epoch, beyond
def test_resumed_run_ends_where_an_uninterrupted_one_ends(run: Run, at: int) -> None:
    options = ("--trainer.log_every_n_steps", "10", "--model.fake_labels", "uniform", "--data.image_size", "8")
    options += FIXED_DECAY
    whole = run("--trainer.max_steps", "30", *options, "--name", "whole")
    part = run("--trainer.max_steps", str(at), *options, "--name", "part")
    checkpoint = str(part / "checkpoints" / "last.ckpt")
    rest = run("--trainer.max_steps", "30", *options, "--name", "rest", "--ckpt_path", checkpoint)
    expected, got = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, rest))
    assert got["global_step"] == expected["global_step"] == 30
    for name, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][name], value), name
    assert str(got["optimizer_states"]) == str(expected["optimizer_states"])
    assert (whole / "samples" / "00000030.png").read_bytes() == (rest / "samples" / "00000030.png").read_bytes()
    for name, value in last_row(rest).items():
        assert value == last_row(whole)[name] or name == "images_per_second"
    assert last_row(rest)["step"] == "30"
    assert expected["epoch"] == got["epoch"] == 1


EVERY_PART = """
model:
  loss: RelativisticPairing
  penalties:
    - {class_path: WassersteinGradientPenalty, init_args: {weight: 1.0, interval: 2}}
  augmentations: [Translation, Cutout, Color]
  auxiliary_classifier: {weight: 0.5}
  discriminator: {class_path: DCGANDiscriminator, init_args: {channels: [4, 8], conditioning: classifier, spectral_norm: true}}
  discriminator_steps: 2
  generator_accumulation: 2
  discriminator_accumulation: 4
  ema_half_life: 300
"""


@pytest.mark.ci
def test_resumed_run_with_every_part_ends_where_an_uninterrupted_one_ends(run: Run, tmp_path: Path) -> None:
    (tmp_path / "every.yaml").write_text(EVERY_PART)
    options = ("--config", "every.yaml", "--data.batch_size", "32", "--trainer.log_every_n_steps", "5")
    options += ("--data.image_size", "8", *FIXED_DECAY)
    whole = run("--trainer.max_steps", "10", *options, "--name", "whole")
    part = run("--trainer.max_steps", "7", *options, "--name", "part")
    checkpoint = str(part / "checkpoints" / "last.ckpt")
    rest = run("--trainer.max_steps", "10", *options, "--name", "rest", "--ckpt_path", checkpoint)
    expected, got = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, rest))
    assert any(name.startswith("generator_ema.") for name in got["state_dict"])
    for name, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][name], value), name
    for name, value in last_row(rest).items():
        assert value == last_row(whole)[name] or name == "images_per_second"
    again = ConditionalGAN.load_from_checkpoint(rest / "checkpoints" / "last.ckpt")
    assert [type(augmentation).__name__ for augmentation in again.input_sampler.augmentations] == [
        "Translation",
        "Cutout",
        "Color",
    ]


def test_last_checkpoint_of_a_run_that_a_score_stopped(tmp_path: Path) -> None:
    stop = EarlyStopping("val_generator_loss", divergence_threshold=-1.0)  # at the first validation
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    trainer = Trainer(accelerator="cpu", max_epochs=5, callbacks=[stop, Checkpoints()], **options)
    trainer.fit(ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), NonSaturating()), DigitsData())
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == trainer.global_step == 20


def test_checkpoint_of_another_model_says_what_differs(run: Run, fails: Callable[..., str]) -> None:
    folder = run("--trainer.max_steps", "1")
    config, checkpoint = str(folder / "config.yaml"), str(folder / "checkpoints" / "last.ckpt")
    other = ["--ckpt_path", checkpoint, "--data.classes", "[4,9]", "--trainer.accelerator", "cpu"]
    message = fails("fit", "--config", config, *other)
    assert "expected discriminator.head.embedding.weight of shape (2, " in message
    assert "got (10, " in message
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, "foreign.ckpt")
    message = fails("validate", "--config", config, "--ckpt_path", "foreign.ckpt", "--trainer.accelerator", "cpu")
    assert "expected one that a ConditionalGAN wrote, got another" in message


def test_loading_another_model_in_python() -> None:
    module = ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), NonSaturating())
    state: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(state)
    smaller = ConditionalGAN(MLPGenerator(9, 1, 8), MLPDiscriminator(9, 1, 8), NonSaturating())
    with pytest.raises(UsageError, match=r"discriminator.layers.0.weight of shape \(128, 73\).* got \(128, 74\)"):
        smaller.on_load_checkpoint(state)
    state["lightning_cgan"]["format"] = 1
    with pytest.raises(UsageError, match="the checkpoint: expected format 3, got 1; use the version of lightning_cgan"):
        module.on_load_checkpoint(state)


def test_an_older_checkpoint_makes_the_same_images() -> None:
    module = ConditionalGAN.load_from_checkpoint(OLD, map_location="cpu")
    images = module.generate(torch.arange(10), torch.linspace(-2, 2, 40).reshape(10, 4))
    assert torch.allclose(images, torch.load(OLD, weights_only=True)["images"], atol=1e-6)


def test_an_older_checkpoint_goes_on(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    small = (
        "--model.generator",
        "MLPGenerator",
        "--model.generator.latent_dim",
        "4",
        "--model.generator.hidden",
        "[8]",
    )
    small += ("--model.discriminator", "MLPDiscriminator", "--model.discriminator.hidden", "[8]")
    folder = run(*small, "--data.image_size", "8", "--trainer.max_steps", "5", "--ckpt_path", OLD)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kept = "The checkpoint does not record options of optimizers and schedulers: those of its run are kept from step 3"
    assert kept in caplog.messages
    assert checkpoint["lr_schedulers"][0]["total_iters"] == 3000
    assert checkpoint["lightning_cgan"]["images_seen"] == 5 * 64
    assert [int(state["state"][0]["step"]) for state in checkpoint["optimizer_states"]] == [5, 5]


def test_a_fit_with_a_loader_of_ones_own_is_loaded_and_goes_on(tmp_path: Path) -> None:
    images = torch.rand(8, 1, 8, 8) * 2 - 1
    batches = DataLoader([(images, torch.arange(8) % 2)] * 3, batch_size=None)
    sizes = {"num_classes": 2, "image_channels": 1, "image_size": 8}

    def fit(steps: int, last: Path | None = None) -> Trainer:
        trainer = Trainer(accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False)
        trainer.fit(
            ConditionalGAN(MLPGenerator(**sizes), MLPDiscriminator(**sizes), NonSaturating()), batches, ckpt_path=last
        )
        return trainer

    fit(2).save_checkpoint(tmp_path / "a.ckpt")
    assert ConditionalGAN.load_from_checkpoint(tmp_path / "a.ckpt").ema.images_seen == 16
    assert fit(3, tmp_path / "a.ckpt").global_step == 3


def test_another_optimizer_is_named(run: Run, fails: Callable[..., str]) -> None:
    run("--trainer.max_steps", "2")
    digits = ("fit", "--config", DIGITS)
    go_on = (*digits, "--trainer.accelerator", "cpu", "--ckpt_path", "last")
    message = fails(*go_on, "--model.generator_optimizer", "SGD", "--model.generator_optimizer.lr", "0.1")
    begins, ends = "error: --model.generator_", "; give the former, or start a new run"
    assert message == f"{begins}optimizer: expected Adam, as the run had it, got SGD{ends}"
    message = fails(*go_on, "--model.generator_scheduler", "null", "--model.discriminator_scheduler", "null")
    assert message == f"{begins}scheduler: expected LinearDecay, as the run had it, got none{ends}"


def test_milestones_may_change() -> None:
    old = MultiStepLR(SGD([torch.zeros(1)], 0.1), [100, 200]).state_dict()
    check_schema(MultiStepLR(SGD([torch.zeros(1)], 0.1), [300]).state_dict(), old, "scheduler", exact=False)
