"""Generated images as a data set, and subsets of data sets.

A Judge is the reference classifier of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import BitDepth, pixels_from_signed
from lightning_cgan.core.rng import rng_at
from lightning_cgan.core.turns import in_turns, numbers_within_classes
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.scores import extract_features

ATTEMPTS = 8  # to generate an image that a Judge is confident of
_BATCH_SIZE = 500


@dataclass(frozen=True)
class Gafi:
    """How to generate a better training set (Lampis, Lomurno & Matteucci 2023, arXiv:2305.10118).

    Each epoch gets new images.

    Attributes:
        latent_scale: The factor that latents are multiplied by.
        min_confidence: The lowest confidence of the Judge in an image's label, from 0 to 1.

    Raises:
        UsageError: A value is out of range.
    """

    latent_scale: float = 1.1
    min_confidence: float = 0.3

    def __post_init__(self) -> None:
        check_selection("--report.gafi", self.latent_scale, self.min_confidence)


class ImageMaker(Protocol):
    """A module that generates images of labels, such as `ConditionalGAN`."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""

    def sample_latents(self, count: int, seed: int | None = None) -> Tensor:
        """Samples latents, shape (count, latent_dim)."""

    def generate(self, labels: Tensor, latents: Tensor | None = None) -> Tensor:
        """Generates images, shape (N, C, H, W), in [-1, 1]."""


def make_fakes(
    maker: ImageMaker,
    labels: Tensor,
    seed: int,
    latent_scale: float = 1.0,
    others: Sequence[ImageMaker] = (),
    numbers: Tensor | None = None,
    bit_depth: BitDepth = 8,
) -> OrderedLoader:
    """Generates an image of each label (N,), rounded as in image files; `seed` determines the latents.

    With `others`, all makers take turns within each class (`core/turns.py`), and each image is the one that its maker
    alone would generate there. `numbers` (N,) are those of the images within their classes; by default, their order.
    """
    labels = labels.cpu()
    numbers = numbers_within_classes(labels) if numbers is None else numbers
    makers = [
        partial(_make, one, labels, one.sample_latents(len(labels), seed) * latent_scale, bit_depth)
        for one in (maker, *others)
    ]
    return OrderedLoader(in_turns(makers, numbers), labels, _BATCH_SIZE)


def _make(maker: ImageMaker, labels: Tensor, latents: Tensor, bit_depth: BitDepth, indices: Tensor) -> Tensor:
    """Generates the images at some indices (n,), as pixels on the CPU."""
    parts = zip(labels[indices].split(_BATCH_SIZE), latents[indices].split(_BATCH_SIZE), strict=True)
    return torch.cat([pixels_from_signed(maker.generate(*part), bit_depth).cpu() for part in parts])


def make_confident_fakes(
    maker: ImageMaker,
    labels: Tensor,
    seed: int,
    judge: Judge,
    gafi: Gafi,
    others: Sequence[ImageMaker] = (),
    bit_depth: BitDepth = 8,
) -> OrderedLoader:
    """Generates images of labels (N,) that a Judge confirms; labels without such an image are omitted.

    With `others`, the makers take turns; an image that is replaced is from the same one.
    """

    def make(indices: Tensor, attempt: int) -> Tensor:
        address = seed * ATTEMPTS + attempt
        fakes = make_fakes(maker, labels[indices], address, gafi.latent_scale, others, numbers[indices], bit_depth)
        return cast(Tensor, fakes.images)

    labels = labels.cpu()
    numbers = numbers_within_classes(labels)
    pixels = make(torch.arange(len(labels)), 0)
    attempts = replace_doubtful(judge, pixels, labels, gafi.min_confidence, make)
    kept = torch.cat([(attempts == attempt).nonzero()[:, 0] for attempt in range(ATTEMPTS)])
    if not len(kept):
        raise UsageError(
            f"--report.gafi.min_confidence: expected a confidence that some images reach, got {gafi.min_confidence}, "
            "which none reaches; give a smaller number"
        )
    order = kept[torch.randperm(len(kept), generator=rng_at(seed))]
    return OrderedLoader(pixels[order], labels[order], _BATCH_SIZE)


def replace_doubtful(
    judge: Judge, pixels: Tensor, labels: Tensor, min_confidence: float, make: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Replaces, in place, images of whose label the Judge is less than `min_confidence` sure; in `ATTEMPTS` attempts.

    The `pixels` of the first attempt have the shape (N, C, H, W), and labels (N,); `make` generates others, given
    indices into them (n,) and the number of the attempt.

    Returns:
        The attempt that produced each image, from 0, shape (N,), on the CPU; -1 where all attempts failed.
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
    """Refuses invalid criteria for the selection of images; `option` is the prefix of their names."""
    if not 0 < latent_scale < math.inf:
        expected = "expected a number above 0"
        raise UsageError(f"{option}.latent_scale: {expected}, got {latent_scale}; 1 is the scale of training")
    if not 0 <= min_confidence < 1:
        expected = "expected a number from 0 to below 1"
        raise UsageError(f"{option}.min_confidence: {expected}, got {min_confidence}; 0 keeps all images")


def choose(images: OrderedLoader, indices: Tensor) -> OrderedLoader:
    """The images at some indices."""
    indices = indices.to(images.labels.device)
    return OrderedLoader(images.images.index_select(0, indices), images.labels[indices], images.batch_size)


def at_most(images: OrderedLoader, count: int) -> OrderedLoader:
    """All images, or a random subset of `count`, the same one every time."""
    if len(images.labels) <= count:
        return images
    return choose(images, torch.randperm(len(images.labels), generator=rng_at(count))[:count].sort().values)
