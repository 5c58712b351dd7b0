"""The inputs of each network update, and how their random part is sampled.

Each process samples for all processes and keeps its share, so that results do not depend on the number of processes;
a batch of latents is small.
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
    """Real images, and everything random about the generated images of the same update; one row per image.

    Examples:
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> inputs = UpdateInputs(images, labels, torch.zeros(4, 100), labels, torch.rand(4, 1), torch.rand(4, 0))
        >>> [part.latents.shape for part in inputs.split(2)]
        [torch.Size([2, 100]), torch.Size([2, 100])]

    Attributes:
        real: Real images, shape (N, C, H, W), augmented.
        labels: Their labels, shape (N,).
        latents: The latents of the generated images, shape (N, latent_dim).
        fake_labels: The labels of the generated images, shape (N,).
        interpolation: Uniform random numbers in [0, 1) for penalties, shape (N, 1), or (N, 0) if none needs them.
        uniforms: Uniform random numbers in [0, 1) for augmenting the generated images, shape (N, num_uniforms).
    """

    real: Tensor
    labels: Tensor
    latents: Tensor
    fake_labels: Tensor
    interpolation: Tensor
    uniforms: Tensor

    def split(self, parts: int) -> list[UpdateInputs]:
        """Splits the rows into equal parts."""
        if parts == 1:
            return [self]
        return [UpdateInputs(*columns) for columns in zip(*(column.chunk(parts) for column in self), strict=True)]


class StepInputs(NamedTuple):
    """The inputs of all updates of one training step: of each discriminator update, and of the generator update."""

    discriminator: list[UpdateInputs]
    generator: UpdateInputs

    @property
    def shares_fakes(self) -> bool:
        """Whether the generator update reuses the images of the last discriminator update."""
        return self.generator is self.discriminator[-1]


class InputSampler:
    """Samples the inputs of each training step; `ConditionalGAN` documents most arguments."""

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        latents: Distribution,
        fake_labels: LabelSource,
        augmentations: Sequence[Augmentation],
        with_interpolation: bool,
    ) -> None:
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.latents = latents
        self.fake_labels = fake_labels
        self.augmentations = augmentations
        self.with_interpolation = with_interpolation
        self.rank, self.world_size = 0, 1

    def set_rank(self, rank: int, world_size: int) -> None:
        """Sets the rank of this process and the number of processes."""
        self.rank, self.world_size = rank, world_size

    def sample(
        self, images: Tensor, labels: Tensor, seed: int, step: int, discriminator_steps: int, share_fakes: bool
    ) -> StepInputs:
        """Splits a batch into the parts of a step, and samples the random inputs of each.

        With `share_fakes`, the generator update reuses the inputs of the last discriminator update.
        """

        def sample_part(part: tuple[Tensor, Tensor], number: int) -> UpdateInputs:
            return self.sample_update(rng_at(seed, TRAINING, step, number, device=images.device), *part)

        parts = [(images, labels)]
        if discriminator_steps > 1:
            parts = list(zip(images.chunk(discriminator_steps), labels.chunk(discriminator_steps), strict=True))
        updates = [sample_part(part, number) for number, part in enumerate(parts)]
        # A separate rng address gives fresh latents, as if the batch had one more part.
        return StepInputs(updates, updates[-1] if share_fakes else sample_part(parts[-1], discriminator_steps))

    def sample_update(self, rng: torch.Generator, real: Tensor, labels: Tensor) -> UpdateInputs:
        """Samples the random inputs that go with these real images, and augments the images."""
        latents, fake_labels = self.sample_fakes(rng, labels)
        num_uniforms = sum(augmentation.num_uniforms for augmentation in self.augmentations)
        widths = [int(self.with_interpolation), num_uniforms, num_uniforms]
        shape = (len(labels) * self.world_size, sum(widths))
        # In all precisions: rounded to half of it, some would be 1.
        uniforms = self._share(torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float32))
        interpolation, for_real, for_fake = uniforms.split(widths, dim=1)
        return UpdateInputs(self.augment(real, for_real), labels, latents, fake_labels, interpolation, for_fake)

    def sample_fakes(self, rng: torch.Generator, labels: Tensor, alone: bool = False) -> tuple[Tensor, Tensor]:
        """Samples latents and labels of the generated images that go with this process's real ones of these labels.

        `alone` means that the processes' shares may differ in size, as in a last batch. `empirical` labels are then
        used as they are, which keeps their frequencies, instead of being shuffled across processes.
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
        """Samples latents for `count` images of this process, shape (count, latent_dim)."""
        return self._share(sample_latents((count * self.world_size, self.latent_dim), self.latents, rng))

    def generate_fakes(self, generator: Generator, inputs: UpdateInputs) -> Tensor:
        """Generates the images of an update, and augments them."""
        return self.augment(generator(inputs.latents, inputs.fake_labels), inputs.uniforms)

    def augment(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augments images with random numbers of shape (N, num_uniforms)."""
        if not self.augmentations:
            return images
        columns = uniforms.split([augmentation.num_uniforms for augmentation in self.augmentations], dim=1)
        for augmentation, numbers in zip(self.augmentations, columns, strict=True):
            images = augmentation(images, numbers)
        return images

    def _share(self, whole: Tensor) -> Tensor:
        return whole[self.rank :: self.world_size]


def check_divides(images: int, **parts: int) -> None:
    """Raises `UsageError` unless a batch can be split, by one option after another, into equal parts.

    Only with equal parts is the mean over the parts the mean over the batch.
    """
    if images % prod(parts.values()):
        options = " times ".join(name for name, count in parts.items() if count > 1)
        raise UsageError(
            f"{options}: expected training batches of a multiple of {prod(parts.values())} images in each process, got "
            f"{images}; choose a batch size that divides evenly (a loader's batch is for all discriminator steps)"
        )
