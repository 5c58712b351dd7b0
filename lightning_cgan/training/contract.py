"""The interface that training components require of the module that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Trainer

from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.objectives.inputs import InputSampler
from lightning_cgan.objectives.objectives import Objectives

Role = Literal["generator", "discriminator"]
ROLES: tuple[Role, Role] = ("generator", "discriminator")


class TrainedModule(Protocol):
    """A `LightningModule` with two networks, such as `ConditionalGAN`."""

    generator: Generator
    discriminator: Discriminator
    objectives: Objectives
    input_sampler: InputSampler
    class_names: tuple[str, ...]
    seed: int | None  # of a run; set when it begins

    @property
    def accumulates(self) -> bool:
        """Whether the batch of an update is split."""

    @property
    def trainer(self) -> Trainer:
        """The Trainer that runs the module."""

    @property
    def attached_trainer(self) -> Trainer | None:
        """The Trainer that runs the module, if any."""

    @property
    def is_fitting(self) -> bool:
        """Whether a Trainer is fitting it now."""

    @property
    def device(self) -> torch.device:
        """The device of its weights."""

    @property
    def global_step(self) -> int:
        """The number of training steps so far."""

    def optimizers(self) -> Any:
        """Returns Lightning's wrappers of the two optimizers, the generator's first."""

    @property
    def log_dict(self) -> Callable[..., None]:
        """Logs scalars through Lightning."""
