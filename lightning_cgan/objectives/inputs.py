"""What one update of a network looks at, and how the random part of it is drawn.

Each process draws for all of them and keeps its share, so that the number of processes changes nothing; a batch of
latents is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_cgan.core.distributed import gather_rows
from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.rng import TRAINING, generator_at
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import Distribution, draw_latents
from lightning_cgan.objectives.augmentations import Augmentation

LabelSource = Literal["real", "uniform", "empirical"]


class Round(NamedTuple):
    """Real images, and all that is random about the generated ones beside them; every row belongs to one image.

    Attributes:
        real: Real images, shape (N, C, H, W), augmented.
        labels: Their labels, shape (N,).
        latents: The latents of the generated images, shape (N, latent_dim).
        fake_labels: The labels of the generated images, shape (N,).
        places: Uniform random numbers in [0, 1) for penalties, shape (N, 1), or (N, 0) if none needs them.
        chance: Such numbers for the augmentation of the generated images, shape (N, draws).
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake_labels: Tensor
    places: Tensor
    chance: Tensor

    def split(self, parts: int) -> list[Round]:
        """Cuts it into equal parts."""
        if parts == 1:
            return [self]
        return [Round(*columns) for columns in zip(*(column.chunk(parts) for column in self), strict=True)]


class StepInputs(NamedTuple):
    """What the updates of one training step look at.

    Attributes:
        discriminator: For each update of the discriminator.
        generator: For that of the generator.
        shares_fakes: Whether that works on the images of the discriminator's last update.
    """

    discriminator: list[Round]
    generator: Round
    shares_fakes: bool


class Dealer:
    """Deals the rounds of a run.

    Args:
        latent_dim: The number of latents of an image.
        num_classes: The number of classes.
        latents: The distribution of the latents.
        fake_labels: Where the labels of generated images come from; see `ConditionalGAN`.
        augmentations: What real and generated images go through.
        with_places: Whether a penalty needs random numbers.
        discriminator_steps: The number of the discriminator's updates in a step.
        share_fakes: Whether the generator's update works on the images of the last of them.
    """

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        latents: Distribution,
        fake_labels: LabelSource,
        augmentations: Sequence[Augmentation],
        with_places: bool,
        discriminator_steps: int = 1,
        share_fakes: bool = True,
    ) -> None:
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.latents = latents
        self.fake_labels = fake_labels
        self.augmentations = augmentations
        self.with_places = with_places
        self.discriminator_steps = discriminator_steps
        self.share_fakes = share_fakes
        self.rank, self.world_size = 0, 1

    def join(self, rank: int, world_size: int) -> None:
        """Tells which of how many processes this one is."""
        self.rank, self.world_size = rank, world_size

    def sample(self, images: Tensor, labels: Tensor, seed: int, step: int) -> StepInputs:
        """Cuts a batch into the parts of a step, and draws what belongs to each.

        Args:
            images: Real images, shape (N, C, H, W).
            labels: Their labels, shape (N,).
            seed: The seed of the run.
            step: The number of the step.
        """

        def inputs(part: tuple[Tensor, Tensor], number: int) -> Round:
            return self.deal(generator_at(seed, TRAINING, step, number, device=images.device), *part)

        count = self.discriminator_steps
        parts = list(zip(images.chunk(count), labels.chunk(count), strict=True))
        rounds = [inputs(part, number) for number, part in enumerate(parts)]
        # Else an address of its own: fresh latents, as if one more part of the batch had come.
        last = rounds[-1] if self.share_fakes else inputs(parts[-1], count)
        return StepInputs(rounds, last, self.share_fakes)

    def deal(self, generator: torch.Generator, real: Tensor, labels: Tensor) -> Round:
        """Draws what belongs to these real images, and augments them."""
        latents, fake_labels = self.draw_fakes(generator, labels)
        draws = sum(augmentation.draws for augmentation in self.augmentations)
        widths = [int(self.with_places), draws, draws]
        shape = (len(labels) * self.world_size, sum(widths))
        chance = self._share(torch.rand(shape, generator=generator, device=generator.device))
        places, for_real, for_fake = chance.split(widths, dim=1)
        return Round(self.augment(real, for_real), labels, latents, fake_labels, places, for_fake)

    def draw_fakes(self, generator: torch.Generator, labels: Tensor, alone: bool = False) -> tuple[Tensor, Tensor]:
        """Draws latents and labels of the generated images that stand beside real ones with these labels.

        Args:
            generator: Draws the numbers, the same in every process.
            labels: The labels of this process's real images, shape (N,).
            alone: Whether shares may differ in size, as those of a last batch do. Labels are not shuffled over the
                processes then: they follow their frequencies as they are.
        """
        latents = self.draw_latents(len(labels), generator)
        if self.fake_labels == "real" or (self.fake_labels == "empirical" and alone):
            return latents, labels
        whole, device = len(labels) * self.world_size, generator.device
        if self.fake_labels == "uniform":
            return latents, self._share(torch.randint(self.num_classes, (whole,), generator=generator, device=device))
        everywhere = gather_rows(labels) if self.world_size > 1 else labels
        return latents, everywhere[self._share(torch.randperm(whole, generator=generator, device=device))]

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws latents for so many images of this process, shape (count, latent_dim)."""
        return self._share(draw_latents((count * self.world_size, self.latent_dim), self.latents, generator))

    def make(self, generator: Generator, dealt: Round) -> Tensor:
        """Generates the images of a round, and augments them."""
        return self.augment(generator(dealt.latents, dealt.fake_labels), dealt.chance)

    def augment(self, images: Tensor, chance: Tensor) -> Tensor:
        """Augments images with random numbers of shape (N, draws)."""
        if not self.augmentations:
            return images
        columns = chance.split([augmentation.draws for augmentation in self.augmentations], dim=1)
        for augmentation, drawn in zip(self.augmentations, columns, strict=True):
            images = augmentation(images, drawn)
        return images

    def _share(self, whole: Tensor) -> Tensor:
        return whole[self.rank :: self.world_size]


def check_divides(images: int, **parts: int) -> None:
    """Refuses a batch that cannot be cut into equal parts: their means would not average to that of the batch.

    Args:
        images: The number of images of the batch, in this process.
        parts: The numbers of parts that it is cut into, one after the other, by the names of their options.

    Raises:
        UsageError: There are images left over.
    """
    if images % prod(parts.values()):
        options = " times ".join(name for name, count in parts.items() if count > 1)
        raise UsageError(
            f"{options}: expected training batches of a multiple of {prod(parts.values())} images in each process, got "
            f"{images}; choose a batch size that can be cut so (a loader's batch is that of all discriminator steps)"
        )
