"""Changes between steps, and training with graphs and without to compare."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from helpers.pairs import largest_difference, train
from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator

Change = Callable[[ConditionalGAN, int], Any]
NOT = "A step is not run as one graph: "


class Changing(Callback):
    """Makes a change before a step, or before each."""

    def __init__(self, change: Change, at: int | None = 3) -> None:
        self.change = change
        self.at = at

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if self.at in (None, trainer.global_step):
            self.change(module, trainer.global_step)


class Dropping(MLPDiscriminator):
    """Has dropout and batch normalisation."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, hidden=(16,))
        self.drop = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(64)

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return super().forward(self.norm(self.drop(images).flatten(1)).view_as(images), labels)


def networks() -> tuple[MLPGenerator, MLPDiscriminator]:
    torch.manual_seed(0)
    return MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,)), Dropping()


def both(
    change: Change | None,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], dict[str, Any]] = dict,
    at: int | None = 3,
) -> tuple[ConditionalGAN, list[str]]:
    """Trains with graphs and without, compares, and returns the first module with the lines about its graphs."""
    trained = []
    for compile in ("none", "step"):
        caplog.clear()
        options = make()
        pair = options.pop("networks", networks)()
        callbacks = [Changing(change, at)] if change is not None else []
        options = {"compile": compile, "precision": "64-true", "callbacks": callbacks, "steps": 8, **options}
        with caplog.at_level(logging.INFO):
            trained.append(train(pair, **options))
    assert largest_difference(*trained) < 1e-9
    messages = [record.getMessage() for record in caplog.records if "graph" in record.getMessage()]
    return trained[1], [message for message in messages if "not compiled" not in message]


def in_groups(**options: Any) -> Change:
    """Sets options of both optimizers."""

    def change(module: ConditionalGAN, step: int) -> None:
        for optimizer in module.trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(options)

    return change


def in_every_step(**options: Callable[[int], Any]) -> Change:
    return lambda module, step: in_groups(**{name: make(step) for name, make in options.items()})(module, step)
