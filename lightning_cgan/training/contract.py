"""What the parts of training ask of the module that holds them."""

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
    """A `LightningModule` with two networks, such as `ConditionalGAN`.

    Attributes:
        generator: Makes the images.
        discriminator: Judges them.
        objectives: What the two minimise.
        input_sampler: Draws what is random about a step.
        accumulation: The number of parts that the batch of each network's update is cut into.
        seed: Decides all random numbers of a run; known once it begins.
    """

    generator: Generator
    discriminator: Discriminator
    objectives: Objectives
    input_sampler: InputSampler
    accumulation: dict[Role, int]
    seed: int | None

    @property
    def trainer(self) -> Trainer:
        """The Trainer that runs the module."""

    @property
    def attached_trainer(self) -> Trainer | None:
        """The same, or nothing where none runs it."""

    @property
    def is_fitting(self) -> bool:
        """Whether a Trainer fits it now."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def global_step(self) -> int:
        """The number of training steps so far."""

    def optimizers(self) -> Any:
        """Lightning's wrappers of the two optimizers, that of the generator first."""

    @property
    def log_dict(self) -> Callable[..., None]:
        """Logs scalars through Lightning."""
