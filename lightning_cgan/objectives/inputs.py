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
from lightning_cgan.core.rng import TRAINING, rng_at
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import Distribution, sample_latents
from lightning_cgan.objectives.augmentations import Augmentation

LabelSource = Literal["real", "uniform", "empirical"]


class UpdateInputs(NamedTuple):
    """Real images, and all that is random about the generated ones beside them; every row belongs to one image.

    Attributes:
        real: Real images, shape (N, C, H, W), augmented.
        labels: Their labels, shape (N,).
        latents: The latents of the generated images, shape (N, latent_dim).
        fake_labels: The labels of the generated images, shape (N,).
        interpolation: Uniform random numbers in [0, 1) for penalties, shape (N, 1), or (N, 0) if none needs them.
        uniforms: Such numbers for the augmentation of the generated images, shape (N, draws).
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake_labels: Tensor
    interpolation: Tensor
    uniforms: Tensor

    def split(self, parts: int) -> list[UpdateInputs]:
        """Cuts it into equal parts."""
        if parts == 1:
            return [self]
        return [UpdateInputs(*columns) for columns in zip(*(column.chunk(parts) for column in self), strict=True)]


class StepInputs(NamedTuple):
    """What the updates of one training step look at.

    Attributes:
        discriminator: For each update of the discriminator.
        generator: For that of the generator.
        shares_fakes: Whether that works on the images of the discriminator's last update.
    """

    discriminator: list[UpdateInputs]
    generator: UpdateInputs
    shares_fakes: bool


class InputSampler:
    """Deals the rounds of a run.

    Args:
        latent_dim: The number of latents of an image.
        num_classes: The number of classes.
        latents: The distribution of the latents.
        fake_labels: Where the labels of generated images come from; see `ConditionalGAN`.
        augmentations: What real and generated images go through.
        with_interpolation: Whether a penalty needs random numbers.
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
        with_interpolation: bool,
        discriminator_steps: int = 1,
        share_fakes: bool = True,
    ) -> None:
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.latents = latents
        self.fake_labels = fake_labels
        self.augmentations = augmentations
        self.with_interpolation = with_interpolation
        self.discriminator_steps = discriminator_steps
        self.share_fakes = share_fakes
        self.rank, self.world_size = 0, 1

    def set_rank(self, rank: int, world_size: int) -> None:
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

        def sample_part(part: tuple[Tensor, Tensor], number: int) -> UpdateInputs:
            return self.sample_update(rng_at(seed, TRAINING, step, number, device=images.device), *part)

        count = self.discriminator_steps
        parts = list(zip(images.chunk(count), labels.chunk(count), strict=True))
        updates = [sample_part(part, number) for number, part in enumerate(parts)]
        # Else an address of its own: fresh latents, as if one more part of the batch had come.
        last = updates[-1] if self.share_fakes else sample_part(parts[-1], count)
        return StepInputs(updates, last, self.share_fakes)

    def sample_update(self, rng: torch.Generator, real: Tensor, labels: Tensor) -> UpdateInputs:
        """Draws what belongs to these real images, and augments them."""
        latents, fake_labels = self.sample_fakes(rng, labels)
        num_uniforms = sum(augmentation.num_uniforms for augmentation in self.augmentations)
        widths = [int(self.with_interpolation), num_uniforms, num_uniforms]
        shape = (len(labels) * self.world_size, sum(widths))
        uniforms = self._share(torch.rand(shape, generator=rng, device=rng.device))
        interpolation, for_real, for_fake = uniforms.split(widths, dim=1)
        return UpdateInputs(self.augment(real, for_real), labels, latents, fake_labels, interpolation, for_fake)

    def sample_fakes(self, rng: torch.Generator, labels: Tensor, alone: bool = False) -> tuple[Tensor, Tensor]:
        """Draws latents and labels of the generated images that stand beside real ones with these labels.

        Args:
            rng: Draws the numbers, the same in every process.
            labels: The labels of this process's real images, shape (N,).
            alone: Whether shares may differ in size, as those of a last batch do. Labels are not shuffled over the
                processes then: they follow their frequencies as they are.
        """
        latents = self.sample_latents(len(labels), rng)
        if self.fake_labels == "real" or (self.fake_labels == "empirical" and alone):
            return latents, labels
        whole, device = len(labels) * self.world_size, rng.device
        if self.fake_labels == "uniform":
            return latents, self._share(torch.randint(self.num_classes, (whole,), generator=rng, device=device))
        everywhere = gather_rows(labels) if self.world_size > 1 else labels
        return latents, everywhere[self._share(torch.randperm(whole, generator=rng, device=device))]

    def sample_latents(self, count: int, rng: torch.Generator) -> Tensor:
        """Draws latents for so many images of this process, shape (count, latent_dim)."""
        return self._share(sample_latents((count * self.world_size, self.latent_dim), self.latents, rng))

    def generate_fakes(self, generator: Generator, inputs: UpdateInputs) -> Tensor:
        """Generates the images of a round, and augments them."""
        return self.augment(generator(inputs.latents, inputs.fake_labels), inputs.uniforms)

    def augment(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augments images with random numbers of shape (N, draws)."""
        if not self.augmentations:
            return images
        columns = uniforms.split([augmentation.num_uniforms for augmentation in self.augmentations], dim=1)
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
