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
from lightning_cgan.cli.main import main
from lightning_cgan.export.pretrained import PretrainedGenerator

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
        "--init_from: classes begin: 3 as they are there, 5, 9 as the mean of 0, 1, 2, 3, 4",
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
        "--init_from: classes begin: 9, 1 as they are there",
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init_from", "digit"), "error: --init_from: expected a file, a folder or a shipped generator (digits,"),
        (("--init_from", "runs/a.ckpt"), "error: --init_from: no such file: runs/a.ckpt"),
        (("--init_from", "own.onnx"), "error: --init_from: expected a checkpoint, a folder that export wrote or a"),
        (("--init_from", "broken.ckpt"), "error: --init_from: "),
        (
            ("--init_from", "empty"),
            "error: --init_from: expected a folder that export wrote, got empty (FileNotFoundError: no config.json)",
        ),
        (
            ("--model.discriminator_frozen_layers", "4"),
            "error: discriminator_frozen_layers: expected 0 to 3, of the 4 layers of DCGANDiscriminator, got 4; give a",
        ),
        (
            ("--init_from", "digits", "--model.generator", "MLPGenerator", "--model.generator.label_embedding", "3"),
            NOTHING,
        ),
    ],
)
def test_what_cannot_be_begun_with(fails: Callable[..., str], options: tuple[str, ...], message: str) -> None:
    for name in ("own.onnx", "broken.ckpt"):
        Path(name).touch()
    Path("empty").mkdir()
    assert fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *options).startswith(message)
    assert not list(Path().glob("runs/*/*"))


def test_other_commands_do_not_begin(fails: Callable[..., str], short_run: Path) -> None:
    checkpoint = str(short_run / "checkpoints" / "last.ckpt")
    assert fails("test", "--config", DIGITS, "--ckpt_path", checkpoint, "--init_from", "digits") == (
        "error: --init_from: expected none to test, got digits; name a trained model with --ckpt_path"
    )
