"""One step is one step, everywhere."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.marks import ci_but_for

Run = Callable[..., Path]


@pytest.mark.parametrize("discriminator_steps", ci_but_for([1, 5], 5))
def test_every_clock_counts_steps(run: Run, discriminator_steps: int) -> None:
    folder = run(
        *("--trainer.max_steps", "20", "--trainer.log_every_n_steps", "5", "--samples.every_n_steps", "10"),
        *("--model.discriminator_steps", str(discriminator_steps), "--data.batch_size", "32"),
        *("--checkpoints.every_n_train_steps", "5", "--checkpoints.save_top_k", "-1"),
        *("--trainer.check_val_every_n_epoch", "1", "--data.image_size", "8", "--scores.images", "50"),
    )
    checkpoints = {file.name: torch.load(file, weights_only=True) for file in (folder / "checkpoints").glob("*.ckpt")}
    best = checkpoints.pop("best.ckpt", None)  # of a validation: see below
    assert sorted(checkpoints) == ["last.ckpt", *(f"step_{step:08d}.ckpt" for step in (5, 10, 15, 20))]
    for name, checkpoint in checkpoints.items():
        step = 20 if name == "last.ckpt" else int(name[5:13])
        assert checkpoint["global_step"] == step
        generator, discriminator = (optimizer["state"][0]["step"] for optimizer in checkpoint["optimizer_states"])
        assert (generator, discriminator) == (step, step * discriminator_steps)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["generator_loss"]] == [5, 10, 15, 20]
    # 1,317 images in batches of 32: an epoch is 41 steps of one discriminator step, or 8 of five
    validations = [int(row["step"]) for row in rows if row.get("val_generator_loss")]
    assert validations == {1: [], 5: [8, 16]}[discriminator_steps]
    assert (best["global_step"] if best else None) in (validations or [None])
    assert sorted(file.name for file in (folder / "samples").iterdir()) == [f"{step:08d}.png" for step in (0, 10, 20)]


def test_schedules_count_steps(run: Run) -> None:
    folder = run(
        *("--trainer.max_steps", "8", "--model.discriminator_steps", "3", "--data.batch_size", "16"),
        *("--model.generator_optimizer", "Adam", "--model.generator_optimizer.lr", "0.8"),
        *("--model.generator_scheduler", "torch.optim.lr_scheduler.PolynomialLR"),
        *("--model.generator_scheduler.total_iters", "16"),
    )
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    generator, _ = checkpoint["optimizer_states"]
    assert generator["param_groups"][0]["lr"] == pytest.approx(0.4)  # half-way to zero after 8 of 16
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 8
