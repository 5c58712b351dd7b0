"""Measures the speed of a fit of the module of a config, on images that take no time to load."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_cgan import ConditionalGAN
from lightning_cgan.cli.main import CLI
from lightning_cgan.core.building import build_module
from lightning_cgan.training.contract import ROLES

WARMING_UP = 10


class BuildingCLI(CLI):
    """The command line, which builds what a config describes, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def module(self, kind: type[ConditionalGAN] = ConditionalGAN, **sizes: int) -> ConditionalGAN:
        """The module of the config, for data of other sizes."""
        described = copy.deepcopy(self.model.init_args)
        for role in ROLES:
            described[role]["init_args"] |= sizes
        return build_module(kind, described, {}, "the config")

    @property
    def cycle(self) -> int:
        """The number of steps after which the penalties repeat."""
        return math.lcm(*(penalty.interval for penalty in self.model.penalties))


class Batches:
    """The same random images again and again: the share of a process."""

    def __init__(self, share: int, count: int) -> None:
        self.count, self.batch = count, (torch.rand(share, 1, 28, 28) * 2 - 1, torch.arange(share) % 10)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self.batch] * self.count)


def fit_speed(module: ConditionalGAN, share: int, count: int, **options: Any) -> float:
    """Steps per second of one short training on the CPU, after a few to warm up."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    times: list[float] = []
    module.on_train_batch_end = lambda *_: times.append(time.perf_counter())  # type: ignore[method-assign]
    trainer.fit(module, Batches(share, count))  # type: ignore[arg-type]
    return (count - WARMING_UP) / (times[-1] - times[WARMING_UP - 1])
