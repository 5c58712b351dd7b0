"""Names of earlier versions: who types one is told the present one, and files that hold them are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lightning_cgan
from helpers.small_gan import gan
from lightning_cgan import ConditionalGAN, UsageError
from lightning_cgan.cli.renamed import with_new_names

OLD_CONFIG = """\
# as an earlier version wrote it
monitor:
  patience: 4
  largest_logit_gap: 30.0 # monitor: alternation
predictions: {make_up: true, folder: monitor}
model:
  compile: alternation
  loss: NonSaturating
  generator_scheduler: {class_path: ReduceLROnPlateau, init_args: {monitor: make_up}}
"""


def test_a_config_of_an_earlier_version_is_read_with_the_present_names() -> None:
    read = yaml.safe_load(with_new_names(OLD_CONFIG))
    expected = yaml.safe_load(OLD_CONFIG)
    expected["alarms"] = expected.pop("monitor")
    expected["predictions"]["top_up"] = expected["predictions"].pop("make_up")
    expected["model"]["compile"] = "step"
    assert read == expected
    assert "30.0 # monitor: alternation" in with_new_names(OLD_CONFIG)
    for text in ("", "[monitor]", "monitor: [", "alarms: {patience: 2}", "a: alternation\nmodel: alternation"):
        assert with_new_names(text) == text


def test_a_run_takes_up_a_config_of_an_earlier_version(built: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "old.yaml"
    config.write_text("monitor: {patience: 7}\nmodel: {compile: alternation}\n", encoding="utf-8")
    handed = built("digits.yaml", "--config", str(config))
    assert handed["model"].compilation.mode == "step"
    (alarms,) = (one for one in handed["trainer"].callbacks if isinstance(one, lightning_cgan.TrainingAlarms))
    assert alarms.patience == 7


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--monitor.patience 3", "--monitor.patience: no such option; it is now called --alarms.patience"),
        ("--predictions.make_up true", "--predictions.make_up: no such option; it is now called --predictions.top_up"),
        (
            "--model.compile alternation",
            "--model.compile: expected one of 'auto', 'none', 'networks', 'step', got alternation; it is now called step",
        ),
    ],
)
def test_an_old_option_gets_its_new_name(fails: Callable[..., str], typed: str, message: str) -> None:
    command = "predict" if "predictions" in typed else "fit"
    assert fails(command, "--config", "digits", *typed.split()) == f"error: {message}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("judge", "discriminate"),
        ("Judgement", "DiscriminatorOutput"),
        ("Round", "UpdateInputs"),
        ("Monitor", "TrainingAlarms"),
    ],
)
def test_an_old_public_name_gets_its_new_one(old: str, new: str) -> None:
    with pytest.raises(ImportError, match=f"^{old} of 'lightning_cgan' is called {new} now$"):
        exec(f"from lightning_cgan import {old}")
    assert getattr(lightning_cgan, new) is not None
    with pytest.raises(AttributeError, match="no attribute 'Rnd'"):
        _ = lightning_cgan.Rnd


def test_a_checkpoint_of_an_earlier_version_is_built() -> None:
    module = gan(compile="step")
    saved: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.seed = 3
    module.on_save_checkpoint(saved)
    saved["hyper_parameters"]["compile"] = "alternation"
    torch.save(saved, "old.ckpt")
    assert ConditionalGAN.load_from_checkpoint("old.ckpt").compilation.mode == "step"


def test_compile_is_checked_in_python_too() -> None:
    with pytest.raises(UsageError, match="^compile: expected none, networks, step, got alternation; give one of them$"):
        gan(compile="alternation")
