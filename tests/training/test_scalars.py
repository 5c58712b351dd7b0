"""The speed that is logged, by a clock that only moves where the test says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.training import fused_step as capture
from lightning_cgan.training import scalars as reporting
from lightning_cgan.training.compilation import Compilation


class Clock(Callback):
    """Steps take a second each; whatever a run does beside them takes much longer."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def on_train_start(self, *_: Any) -> None:
        self.now += 1000.0  # as for the first picture

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 1.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.now += 1000.0  # as for a loader that is made anew

    def on_train_batch_end(self, *_: Any) -> None:
        self.now += 100.0  # as for a picture

    def on_train_epoch_end(self, *_: Any) -> None:
        self.now += 100.0

    def on_validation_batch_end(self, *_: Any) -> None:
        self.now += 100.0

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.now += 100.0  # as for scores

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.now += 100.0
        trainer.save_checkpoint("x.ckpt")


class Speeds(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step % 2 == 0:
            self.seen.append(pl_module.reported["images_per_second"])


def gan(**options: Any) -> ConditionalGAN:
    networks = MLPGenerator(3, 1, 8, latent_dim=4, hidden=(8,)), MLPDiscriminator(3, 1, 8, hidden=(8,))
    return ConditionalGAN(*networks, NonSaturating(), **options)


def speeds(monkeypatch: pytest.MonkeyPatch, module: ConditionalGAN, **options: Any) -> list[float]:
    clock, seen = Clock(), Speeds()
    monkeypatch.setattr(reporting, "time", clock)
    monkeypatch.setattr(capture, "time", clock)
    images = torch.linspace(-1, 1, 48 * 64).reshape(48, 1, 8, 8)
    loader: DataLoader[Any] = DataLoader(TensorDataset(images, torch.arange(48) % 3), batch_size=8)
    trainer = quiet_trainer(8, callbacks=[clock, seen], log_every_n_steps=2, **options)
    trainer.fit(module, loader, loader)
    return seen.seen


@pytest.mark.parametrize("every", [{"val_check_interval": 3}, {"val_check_interval": 2}, {"num_sanity_val_steps": 2}])
def test_speed_is_that_of_steps_alone(every: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert speeds(monkeypatch, gan(), **every) == [8.0] * 4


def test_speed_of_a_second_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    module = gan()
    speeds(monkeypatch, module)
    assert speeds(monkeypatch, module) == [8.0] * 4


def test_speed_leaves_out_the_making_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    record = capture._GuardedGraphs.record

    def slow(self: capture._GuardedGraphs, *arguments: Any) -> Any:
        reporting.time.now += 500.0  # type: ignore[attr-defined]
        return record(self, *arguments)

    monkeypatch.setattr(capture._GuardedGraphs, "record", slow)
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)
    assert speeds(monkeypatch, gan(compile="step")) == [8.0] * 4


def test_a_clock_that_stands_still_is_no_error() -> None:
    means = reporting.Scalars(gan())
    means.count_images(8)
    means.stopwatch.stop()
    means.stopwatch.subtract(1e9)
    assert torch.isfinite(means.pop()["images_per_second"])
