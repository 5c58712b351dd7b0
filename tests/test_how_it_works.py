"""docs/how_it_works.md: its commands run, and its numbers are those of its formulas and of the package."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import torch

from helpers.pages import blocks
from helpers.paths import ROOT
from helpers.run_files import last_of
from lightning_cgan import NonSaturating, Saturating
from lightning_cgan.cli.main import main

PAGE = ROOT / "docs" / "how_it_works.md"
TEXT = PAGE.read_text()
SYSTEMS = ["mnist_mlp", "mnist_mlp_batchnorm", "mnist_resnet_4_9", "mnist_dcgan", "mnist"]


def test_both_losses_of_the_generator_are_as_steep_as_it_says() -> None:
    for loss, slope in ((Saturating(), "−0.007"), (NonSaturating(), "−0.993")):
        logits = torch.tensor([-5.0], requires_grad=True)
        loss.generator(logits).backward()
        assert f"{logits.grad.item():.3f}".replace("-", "−") == slope
        assert f"= {slope}" in TEXT


def test_other_numbers_of_the_page() -> None:
    assert f"= −{2 * math.log(2):.3f}" in TEXT
    lowest, highest = torch.sigmoid(torch.tensor([0.0, 1.0])).tolist()  # of a sigmoid's own values
    assert lowest == 0.5
    assert f"nor more than {highest:.2f}" in TEXT


@pytest.mark.ci
def test_commands_of_the_page(mnist_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CGAN_DATA", mnist_folder)
    lines = "".join(blocks(PAGE, "bash")).replace("\\\n", " ").splitlines()
    fits = [shlex.split(line)[3:] for line in lines if line.startswith("python -m lightning_cgan fit")]
    names = [words[words.index("--config") + 1] for words in fits]
    assert names == SYSTEMS
    short = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--scores.images", "0"]
    for name, words in zip(names, fits, strict=True):
        main([*words, *short, "--model.compile", "none", "--samples.columns", "1", "--data.batch_size", "16"])
        (folder,) = Path("runs", name).glob("*")
        assert last_of(folder)["global_step"] == 2
    (compare,) = [shlex.split(line) for line in lines if line.startswith("python scripts/compare_systems.py")]
    configs = [word.split("+")[0] for word in compare if word.endswith(".yaml")]
    assert sorted(Path(config).stem for config in configs) == sorted(SYSTEMS)


def test_each_system_has_its_picture_and_its_row() -> None:
    for system in SYSTEMS:
        assert f"](how_it_works/{system}.png)" in TEXT
        assert (ROOT / "docs" / "how_it_works" / f"{system}.png").exists()
        assert f"\n| `{system}`" in TEXT
