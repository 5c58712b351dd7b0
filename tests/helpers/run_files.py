"""What a run leaves in its folder, and what a checkpoint gives back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from helpers.paths import OLD
from lightning_cgan import ConditionalGAN, DigitsData

FILES = {"config.yaml", "metrics.csv", "samples", "samples.gif", "curves.png", "index.html", "checkpoints"}


def all_rows(folder: Path) -> list[dict[str, str]]:
    """The table of scalars of a run."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def last_row(folder: Path) -> dict[str, str]:
    """The last row of the table of scalars."""
    return all_rows(folder)[-1]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The table of scalars without speeds, which no two runs have in common."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in all_rows(folder)]


def last_of(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    return dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))


def fit_and_save(module: ConditionalGAN, path: Path) -> Path:
    """Makes two steps on digits, and writes a checkpoint."""
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, DigitsData())
    trainer.save_checkpoint(path)
    return path


def assert_same(module: ConditionalGAN, again: ConditionalGAN) -> None:
    """Two modules are of one class, and make the same images."""
    assert type(again) is type(module)
    assert again.state_dict().keys() == module.state_dict().keys()
    labels = torch.arange(10)
    assert torch.equal(again.generate(labels, seed=3), module.generate(labels, seed=3))


def write_scaled(file: str, factor: float) -> None:
    """Writes the checkpoint of an earlier version with other trained weights of the generator, but the same average."""
    checkpoint = torch.load(OLD, weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("generator."):
            value.mul_(factor)
    torch.save(checkpoint, file)
