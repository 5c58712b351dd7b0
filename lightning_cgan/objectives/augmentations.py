"""Differentiable augmentation, for small data sets (Zhao et al. 2020, arXiv:2006.10738).

Real and generated images go through the same changes before the discriminator sees them, also when the generator
learns. So the discriminator cannot learn a few images by heart, and the generator does not learn to make changed ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.serialization import ConfigMixin


class Augmentation(ConfigMixin, ABC):
    """The contract of an augmentation: a function of images and random numbers, with gradients to the images.

    The numbers are handed in so that several processes, or a resumed run, augment as one undisturbed process does.

    Attributes:
        num_uniforms: How many random numbers it needs for an image.
    """

    num_uniforms: int

    @abstractmethod
    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Changes images, shape (N, C, H, W), in [-1, 1], by uniform numbers in [0, 1), shape (N, draws)."""


class Translation(Augmentation):
    """Shifts each image by whole pixels, up and down, left and right.

    Args:
        ratio: The largest shift each way, as a part of the image's size, rounded down to whole pixels.
        fill: The value of the pixels that are laid bare, in [-1, 1]: 0 in the paper, -1 for a black background.
    """

    num_uniforms = 2

    def __init__(self, ratio: float = 0.125, fill: float = 0.0) -> None:
        _check_fraction("ratio", ratio)
        self.ratio = ratio
        self.fill = fill

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Shifts images; every shift is equally likely."""
        height, width = images.shape[2:]
        largest = [int(size * self.ratio) for size in (height, width)]
        shifts = [_choose(uniforms[:, axis], 2 * largest[axis] + 1) - largest[axis] for axis in range(2)]
        rows, columns = (_positions(images, axis) - shifts[axis][:, None] for axis in range(2))
        is_inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        samples = torch.arange(len(images), device=images.device)[:, None, None]
        # The indices stand around the channels, which therefore come last.
        shifted = images[samples, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
        return shifted.movedim(-1, 1).where(is_inside[:, None], self.fill)


class Cutout(Augmentation):
    """Blanks a square of each image; the part of it beyond the border is lost.

    Args:
        ratio: The side of the square, as a part of the image's size, rounded down to whole pixels.
        fill: The value of the blank pixels, in [-1, 1]: 0 in the paper.
    """

    num_uniforms = 2

    def __init__(self, ratio: float = 0.5, fill: float = 0.0) -> None:
        _check_fraction("ratio", ratio)
        self.ratio = ratio
        self.fill = fill

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Blanks squares; every place of the centre is equally likely."""
        is_blank = []
        for axis in range(2):
            size = images.shape[2 + axis]
            side = int(size * self.ratio)
            # The middle of an even side lies between two pixels, or on a border: one place more.
            start = _choose(uniforms[:, axis], size + 1 - side % 2)[:, None] - side // 2
            position = _positions(images, axis)
            is_blank.append((position >= start) & (position < start + side))
        return images.masked_fill((is_blank[0][:, :, None] & is_blank[1][:, None])[:, None], self.fill)


class Color(Augmentation):
    """Changes brightness, saturation and contrast of each image; values may leave [-1, 1].

    Args:
        brightness: The largest amount that is added or taken away.
        saturation: By how much the distance of each pixel from its own gray is stretched or shrunk, at most; has no
            effect on gray images.
        contrast: By how much the distance of each pixel from the mean of the image is stretched or shrunk, at most.
    """

    num_uniforms = 3

    def __init__(self, brightness: float = 0.5, saturation: float = 1.0, contrast: float = 0.5) -> None:
        for name, value in (("brightness", brightness), ("saturation", saturation), ("contrast", contrast)):
            _check_fraction(name, value)
        self.amounts = (brightness, saturation, contrast)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Changes images: brightness first, then saturation, then contrast."""
        amounts = uniforms.new_tensor(self.amounts)
        brighter, saturated, contrasted = ((2 * uniforms - 1) * amounts).to(images.dtype).T[:, :, None, None, None]
        images = images + brighter
        if images.shape[1] > 1:
            gray = images.mean(1, keepdim=True)
            images = gray + (images - gray) * (1 + saturated)
        mean = images.mean((1, 2, 3), keepdim=True)
        changed: Tensor = mean + (images - mean) * (1 + contrasted)
        return changed


def _positions(images: Tensor, axis: int) -> Tensor:
    """The numbers of the rows (axis 0) or columns (axis 1) of images, shape (1, H) or (1, W)."""
    return torch.arange(images.shape[2 + axis], device=images.device)[None]


def _choose(uniforms: Tensor, count: int) -> Tensor:
    """Whole numbers from 0 to count - 1, all equally likely."""
    return (uniforms * count).long()


def _check_fraction(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{option}: expected a number from 0 to 1, got {value}; 0 leaves images as they are")
