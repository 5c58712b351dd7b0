"""Networks and modules as a user of the package writes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cgan import (
    ConditionalGAN,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    Objectives,
    UpdateInputs,
)


class OwnGenerator(Generator):
    """A user's own network, with an argument of its own."""

    def __init__(self, num_classes: int, image_channels: int, image_size: int, brightness: float) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim=2)
        self.brightness = torch.nn.Parameter(torch.tensor(brightness))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        size = self.image_size
        return torch.tanh(latents.sum(1) + self.brightness)[:, None, None, None].expand(-1, 1, size, size)


class OwnGAN(ConditionalGAN):
    """A user's own module that builds its networks itself."""

    def __init__(self, width: int) -> None:
        super().__init__(MLPGenerator(10, 1, 8, hidden=[width]), MLPDiscriminator(10, 1, 8), NonSaturating())


class OwnObjectives(Objectives):
    """The brightness of the generated images is a term of the generator's objective."""

    weight = 3.0

    def of_generator(
        self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        objective, means = super().of_generator(discriminator, inputs, fake)
        brightness = fake.mean()
        return objective + self.weight * brightness, {**means, "brightness": brightness}


class DarkGAN(ConditionalGAN):
    """A user's own module that adds a term."""

    objectives_class = OwnObjectives

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
