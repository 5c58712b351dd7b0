"""Inversion of a generator: the latents whose image is nearest to a given one (Zhu et al. 2016, arXiv:1609.03552)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.rng import INVERSION, rng_at
from lightning_cgan.networks.base import Generator, at_least_float32
from lightning_cgan.networks.latents import Distribution, sample_latents

_SAMPLES = 256  # per class, of which the nearest are where the search starts
_SAMPLES_IN_ALL = 4096  # of all classes, where there are many, but no fewer per class than
_FEWEST_SAMPLES = 16
_CLASSES = 3  # with the nearest samples, that are searched where the label is not known
_LEARNING_RATE = 0.1
_MOST_ROWS, _MOST_VALUES = 256, 2**20  # that are optimised at once
_ALMOST = 0.9999  # of the largest norm: rounding may leave latents just inside
_QUANTILE = 3.09  # of the standard normal distribution: 99.9 % are below


@dataclass(frozen=True)
class Inversion:
    """What inversion has found for each image.

    Examples:
        >>> generator = PretrainedGenerator.from_pretrained("digits")
        >>> images = generator.generate([3, 8], seed=0)
        >>> found = generator.invert(images, labels=[3, 8], steps=20)
        >>> found.latents.shape, found.labels.tolist(), bool((found.errors < 0.5).all())
        (torch.Size([2, 32]), [3, 8], True)
        >>> as_another_class = generator.generate([5, 5], found.latents)

    Attributes:
        latents: Shape (N, latent_dim), float32, on the CPU.
        labels: The class of each image, given or found, shape (N,), int64, on the CPU.
        images: The images that the generator makes of these, shape (N, C, H, W), in [-1, 1], float32, on the CPU.
        errors: The root mean square of the differences between the pixels of the given image and of the found one,
            with pixels in [-1, 1], shape (N,).
    """

    latents: Tensor
    labels: Tensor
    images: Tensor
    errors: Tensor


@dataclass(frozen=True)
class LatentSearch:
    """Searches latents by gradient descent, from the nearest of many samples.

    Images are searched independently of one another. Latents stay where samples are: uniform ones in [-1, 1], by
    clipping (Lipton & Tripathi 2017, arXiv:1702.04782), and normal ones in the ball with 99.9 % of all samples.

    Attributes:
        network: In evaluation mode; its parameters are not changed, and neither are their gradients.
        distribution: That of the latents in training.
        steps: The number of steps of Adam, whose learning rate falls to 0 along a cosine.
        restarts: The number of samples from which an image is searched, in each class.
        seed: Of the samples.
    """

    network: Generator
    distribution: Distribution
    steps: int
    restarts: int
    seed: int

    def find(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Finds latents (N, latent_dim) and labels (N,) of images (N, C, H, W); without labels it tries all classes."""
        starts, classes = self._starts(images, labels)
        of_image = torch.arange(len(images), device=images.device).repeat_interleave(starts.shape[1])
        parts = zip(of_image.split(self._rows), starts.flatten(0, 1).split(self._rows), strict=True)
        of_rows = classes.flatten().split(self._rows)
        found = [
            self._descend(images[chosen], label, start) for (chosen, start), label in zip(parts, of_rows, strict=True)
        ]
        latents, errors = (torch.cat(part).unflatten(0, starts.shape[:2]) for part in zip(*found, strict=True))
        best = errors.argmin(1, keepdim=True)
        return latents.take_along_dim(best[..., None], 1)[:, 0], classes.take_along_dim(best, 1)[:, 0]

    @property
    def _rows(self) -> int:
        return max(1, min(_MOST_ROWS, _MOST_VALUES // math.prod(self.network.image_shape)))

    def _starts(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The nearest samples to each image, shape (N, starts, latent_dim), and their classes, (N, starts)."""
        tried = self.network.num_classes if labels is None else 1
        count = max(self.restarts, min(_SAMPLES, max(_FEWEST_SAMPLES, _SAMPLES_IN_ALL // tried)))
        shape = (count, self.network.latent_dim)
        samples = sample_latents(shape, self.distribution, rng_at(self.seed, INVERSION), torch.float32)
        samples = samples.to(images.device)
        distances = images.new_empty(len(images), tried, count)
        for label, which in self._classes(labels):
            chosen = slice(None) if labels is None else labels == label
            distances[chosen, which] = self._distances(images[chosen], label, samples)
        nearest = distances.amin(2).topk(min(_CLASSES, tried), largest=False, sorted=True).indices  # (N, classes)
        of_nearest = distances.take_along_dim(nearest[..., None], 1)
        starts = samples[of_nearest.topk(self.restarts, largest=False, sorted=True).indices].flatten(1, 2)
        classes = nearest if labels is None else labels[:, None]
        return starts, classes.repeat_interleave(self.restarts, 1)

    def _classes(self, labels: Tensor | None) -> Iterator[tuple[int, int]]:
        """The classes to try, and the place of each among those that an image is tried as."""
        if labels is None:
            yield from ((label, label) for label in range(self.network.num_classes))
        else:
            yield from ((label, 0) for label in labels.unique().tolist())

    @torch.no_grad()
    def _distances(self, images: Tensor, label: int, samples: Tensor) -> Tensor:
        """The distance from each image to that of each sample as one class, shape (N, samples)."""
        labels = torch.full((len(samples),), label, device=samples.device)
        made = [self._make(*part) for part in zip(samples.split(self._rows), labels.split(self._rows), strict=True)]
        # Its faster form rounds in another way where there are more images.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(images.flatten(1), torch.cat(made).flatten(1), compute_mode=exact)

    def _make(self, latents: Tensor, labels: Tensor) -> Tensor:
        weight = next(self.network.parameters(), latents)
        return at_least_float32(self.network(latents.to(weight.dtype), labels))

    def _descend(self, images: Tensor, labels: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The best latents on the way from each start, (rows, latent_dim), and their squared errors, (rows,)."""
        latents = starts.clone().requires_grad_()
        best, least = starts.clone(), images.new_full((len(images),), math.inf)
        optimizer = torch.optim.Adam([latents], lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        for step in range(self.steps + 1):
            errors = (self._make(latents, labels) - images).square().flatten(1).sum(1)
            with torch.no_grad():
                is_better = errors < least
                best, least = torch.where(is_better[:, None], latents, best), torch.where(is_better, errors, least)
            if step < self.steps:
                # Of the latents alone: the gradients of the parameters are another's.
                latents.grad = self._along_the_boundary(latents.detach(), self._gradient(errors, latents))
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    latents.copy_(self._inside(latents))
        return best, least

    def _gradient(self, errors: Tensor, latents: Tensor) -> Tensor:
        try:
            return torch.autograd.grad(errors.sum(), latents)[0]
        except RuntimeError as error:
            expected = "expected a generator through which gradients reach its latents"
            name = type(self.network).__name__
            raise UsageError(f"generator: {expected}, got {name} ({error}); take another") from error

    def _along_the_boundary(self, latents: Tensor, gradient: Tensor) -> Tensor:
        """Removes what would only push normal latents out of their ball.

        Adam scales each latent by itself, so what stays of such a push within the ball would not lead to less error.
        """
        if self.distribution == "uniform":
            return gradient
        norms = latents.norm(dim=1, keepdim=True)
        outwards = latents / norms
        push = (-gradient * outwards).sum(1, keepdim=True).clamp(min=0)
        is_at_boundary = norms > largest_norm(latents.shape[1]) * _ALMOST
        return gradient + torch.where(is_at_boundary, push * outwards, 0)

    def _inside(self, latents: Tensor) -> Tensor:
        """The nearest latents that are where samples are."""
        if self.distribution == "uniform":
            return latents.clamp(-1, 1)
        norms = latents.norm(dim=1, keepdim=True)
        inside: Tensor = latents * (largest_norm(latents.shape[1]) / norms).clamp(max=1)
        return inside


def pixel_errors(made: Tensor, given: Tensor) -> Tensor:
    """The root mean square of the differences of pixels of images (N, C, H, W), shape (N,)."""
    return (made - given).square().flatten(1).mean(1).sqrt()


def largest_norm(latent_dim: int) -> float:
    """The norm that 99.9 % of standard normal latents do not exceed (Wilson & Hilferty 1931, for chi-squared)."""
    variance = 2 / (9 * latent_dim)
    return math.sqrt(latent_dim * (1 - variance + _QUANTILE * math.sqrt(variance)) ** 3)
