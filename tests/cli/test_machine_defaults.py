"""What a run takes by itself is told, kept and overridden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from helpers.paths import DIGITS
from lightning_cgan.cli.main import CLI, main

Run = Callable[..., Path]
SMALL = ("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator", "--data.image_size", "8")


def test_the_choice_is_printed_kept_and_overridden(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()
    try:
        folder = run("--trainer.max_steps", "1", *SMALL)
        shown = caplog.text
        caplog.clear()
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert f"Precision {kept['trainer']['precision']}, since this CPU" in shown
        assert f"CPU threads: {kept['threads']}; --threads chooses another number" in shown
        assert kept["threads"] >= 1
        folder = run("--trainer.max_steps", "1", *SMALL, "--trainer.precision", "32-true", "--threads", "1")
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert (kept["trainer"]["precision"], kept["threads"], torch.get_num_threads()) == ("32-true", 1, 1)
        assert "chooses another" not in caplog.text
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_other_commands(monkeypatch: pytest.MonkeyPatch, short_run: Path) -> None:
    seen = []
    monkeypatch.setattr(CLI, "_run_subcommand", lambda *_: seen.append(torch.get_num_threads()))
    last = ["--config", str(short_run / "config.yaml"), "--ckpt_path", str(short_run / "checkpoints" / "last.ckpt")]
    for number in (2, 1):
        main(["validate", *last, "--threads", str(number)])
    assert seen == [2, 1]


def test_threads_must_be_positive(fails: Callable[..., str]) -> None:
    message = fails("fit", "--config", DIGITS, "--threads", "0")
    assert message.startswith("error: --threads: expected 1 or more, got 0; give a positive number")
