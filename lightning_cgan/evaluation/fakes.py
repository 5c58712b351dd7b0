"""Generated images as a data set, and parts of data sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import bytes_from_signed
from lightning_cgan.core.rng import rng_at
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.scores import extract_features

ATTEMPTS = 8  # at an image that a judge is sure of
_BATCH_SIZE = 500


@dataclass(frozen=True)
class Gafi:
    """How a better training set is made of a generator (Lampis, Lomurno & Matteucci 2023, arXiv:2305.10118).

    Every epoch has images of its own.

    Attributes:
        latent_scale: What latents are multiplied by.
        min_confidence: The least confidence of the judge in an image's label, from 0 to 1.

    Raises:
        UsageError: One of them is out of range.
    """

    latent_scale: float = 1.1
    min_confidence: float = 0.3

    def __post_init__(self) -> None:
        check_selection("--report.gafi", self.latent_scale, self.min_confidence)


class ImageMaker(Protocol):
    """A module that makes images of labels, such as `ConditionalGAN`."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        ...

    def sample_latents(self, count: int, seed: int | None = None) -> Tensor:
        """Draws latents, shape (count, latent_dim)."""
        ...

    def generate(self, labels: Tensor, latents: Tensor | None = None) -> Tensor:
        """Makes images, shape (N, C, H, W), in [-1, 1]."""
        ...


def make_fakes(maker: ImageMaker, labels: Tensor, seed: int, latent_scale: float = 1.0) -> OrderedLoader:
    """Makes an image of each label, rounded to 256 shades as those of a file are.

    Args:
        maker: Makes the images.
        labels: Shape (N,).
        seed: Determines the latents.
        latent_scale: What the latents are multiplied by.
    """
    labels = labels.cpu()
    latents = maker.sample_latents(len(labels), seed) * latent_scale
    parts = zip(labels.split(_BATCH_SIZE), latents.split(_BATCH_SIZE), strict=True)
    pixels = torch.cat([bytes_from_signed(maker.generate(*part)).cpu() for part in parts])
    return OrderedLoader(pixels, labels, _BATCH_SIZE)


def make_confident_fakes(maker: ImageMaker, labels: Tensor, seed: int, judge: Judge, gafi: Gafi) -> OrderedLoader:
    """Makes an image of each label that a judge of the training split is sure of; what stays doubtful is left out.

    Args:
        maker: Makes the images.
        labels: Shape (N,).
        seed: Determines the latents.
        judge: Says how sure it is that an image is what its label says.
        gafi: How the images are chosen.

    Raises:
        UsageError: The judge is sure of none.
    """

    def make(indices: Tensor, attempt: int) -> Tensor:
        return cast(Tensor, make_fakes(maker, labels[indices], seed * ATTEMPTS + attempt, gafi.latent_scale).images)

    labels = labels.cpu()
    pixels = make(torch.arange(len(labels)), 0)
    attempts = replace_doubtful(judge, pixels, labels, gafi.min_confidence, make)
    kept = torch.cat([(attempts == attempt).nonzero()[:, 0] for attempt in range(ATTEMPTS)])
    if not len(kept):
        raise UsageError(
            f"--report.gafi.min_confidence: expected some images of which the judge is so sure, got none at "
            f"{gafi.min_confidence}; give a smaller number"
        )
    order = kept[torch.randperm(len(kept), generator=rng_at(seed))]
    return OrderedLoader(pixels[order], labels[order], _BATCH_SIZE)


def replace_doubtful(
    judge: Judge, pixels: Tensor, labels: Tensor, min_confidence: float, make: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Replaces images that a judge is not sure of by others, in place; there are `ATTEMPTS`, the first one included.

    Args:
        judge: Says how sure it is that an image is what its label says.
        pixels: The images of the first attempt, uint8, shape (N, C, H, W).
        labels: Shape (N,).
        min_confidence: The least confidence that an image is kept with, from 0 to 1.
        make: Makes other images, uint8, of the labels at some indices (n,), given the number of the attempt.

    Returns:
        The attempt that made each image, from 0, shape (N,), on the CPU; -1 where all of them were doubtful.
    """
    attempts = torch.full((len(labels),), -1)
    left = torch.arange(len(labels))
    for attempt in range(ATTEMPTS):
        images = OrderedLoader(pixels[left.to(pixels.device)], labels[left.to(labels.device)], _BATCH_SIZE)
        is_sure = extract_features(judge, images).confidence.cpu() >= min_confidence
        attempts[left[is_sure]] = attempt
        left = left[~is_sure]
        if not len(left):
            break
        if attempt < ATTEMPTS - 1:
            pixels[left.to(pixels.device)] = make(left, attempt + 1).to(pixels.device)
    return attempts


def check_selection(option: str, latent_scale: float, min_confidence: float) -> None:
    """Refuses what no images can be chosen by.

    Args:
        option: The beginning of the options' names.
        latent_scale: What latents are multiplied by.
        min_confidence: The least confidence of a judge in an image's label.

    Raises:
        UsageError: One of them is out of range.
    """
    if not 0 < latent_scale < math.inf:
        raise UsageError(f"{option}.latent_scale: expected a number above 0, got {latent_scale}; 1 is as trained")
    if not 0 <= min_confidence < 1:
        raise UsageError(
            f"{option}.min_confidence: expected a number from 0 to below 1, got {min_confidence}; 0 keeps all"
        )


def choose(images: OrderedLoader, indices: Tensor) -> OrderedLoader:
    """The images at some places."""
    indices = indices.to(images.labels.device)
    return OrderedLoader(images.images.index_select(0, indices), images.labels[indices], images.batch_size)


def at_most(images: OrderedLoader, count: int) -> OrderedLoader:
    """All images, or so many of them, the same ones every time."""
    if len(images.labels) <= count:
        return images
    return choose(images, torch.randperm(len(images.labels), generator=rng_at(count))[:count].sort().values)
