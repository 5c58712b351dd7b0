"""Differentiable augmentation for small data sets (Zhao et al. 2020, arXiv:2006.10738).

Real and generated images get the same augmentations before the discriminator sees them, also in the generator's
update. So the discriminator cannot memorise a few images, and the generator does not learn to make augmented ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.serialization import ConfigMixin


class Augmentation(ConfigMixin, ABC):
    """Base class of augmentations: functions of images and random numbers, differentiable in the images.

    The numbers are passed in so that several processes, or a resumed run, augment exactly as one uninterrupted process.

    Examples:
        >>> class Flip(Augmentation):
        ...     num_uniforms = 1
        ...     def __call__(self, images, uniforms):
        ...         return torch.where(uniforms[:, :, None, None] < 0.5, images.flip(3), images)
        >>> Flip()(torch.tensor([[[[-1.0, 1.0]]]]), torch.tensor([[0.2]]))
        tensor([[[[ 1., -1.]]]])

    Attributes:
        num_uniforms: How many random numbers it needs per image.
    """

    num_uniforms: int

    @abstractmethod
    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augments images (N, C, H, W) in [-1, 1] by uniform numbers in [0, 1), shape (N, num_uniforms)."""


class Translation(Augmentation):
    """Shifts each image vertically and horizontally by whole pixels.

    Examples:
        >>> shift = Translation(ratio=0.5, fill=-1.0)  # by -1, 0 or 1 of 2 pixels
        >>> shift(torch.tensor([[[[0.25, 0.75]]]]), torch.tensor([[0.5, 0.9]]))
        tensor([[[[-1.0000, 0.2500]]]])

    Args:
        ratio: The largest shift in each direction, as a fraction of the image's size, rounded down to whole pixels.
        fill: The value of uncovered pixels, in [-1, 1]: 0 in the paper, -1 for a black background.
    """

    num_uniforms = 2

    def __init__(self, ratio: float = 0.125, fill: float = 0.0) -> None:
        _check_fraction("ratio", ratio)
        self.ratio = ratio
        self.fill = fill

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Shifts images; all shifts are equally likely."""
        height, width = images.shape[2:]
        largest = [int(size * self.ratio) for size in (height, width)]
        shifts = [_choose(uniforms[:, axis], 2 * largest[axis] + 1) - largest[axis] for axis in range(2)]
        rows, columns = (_positions(images, axis) - shifts[axis][:, None] for axis in range(2))
        is_inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        samples = torch.arange(len(images), device=images.device)[:, None, None]
        # The index tensors surround the slice of the channels, which therefore come last in the result.
        shifted = images[samples, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
        return shifted.movedim(-1, 1).where(is_inside[:, None], self.fill)


class Cutout(Augmentation):
    """Blanks a square of each image; the part of the square beyond the border is cut off.

    Examples:
        >>> images = Cutout(ratio=0.5)(torch.ones(1, 1, 4, 4), torch.tensor([[0.5, 0.5]]))
        >>> images.sum()  # 16 pixels, 2 x 2 of them blank
        tensor(12.)

    Args:
        ratio: The side of the square, as a fraction of the image's size, rounded down to whole pixels.
        fill: The value of the blank pixels, in [-1, 1]: 0 in the paper.
    """

    num_uniforms = 2

    def __init__(self, ratio: float = 0.5, fill: float = 0.0) -> None:
        _check_fraction("ratio", ratio)
        self.ratio = ratio
        self.fill = fill

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Blanks squares; all positions of the centre are equally likely."""
        is_blank = []
        for axis in range(2):
            size = images.shape[2 + axis]
            side = int(size * self.ratio)
            # The centre of an even side lies between two pixels or on the border, so it has one more position.
            start = _choose(uniforms[:, axis], size + 1 - side % 2)[:, None] - side // 2
            position = _positions(images, axis)
            is_blank.append((position >= start) & (position < start + side))
        return images.masked_fill((is_blank[0][:, :, None] & is_blank[1][:, None])[:, None], self.fill)


class Color(Augmentation):
    """Changes brightness, saturation and contrast of each image; values may leave [-1, 1].

    Examples:
        >>> brighten = Color(brightness=0.5, saturation=0.0, contrast=0.0)
        >>> brighten(torch.zeros(1, 3, 8, 8), torch.tensor([[0.75, 0.5, 0.5]])).unique()
        tensor([0.2500])

    Args:
        brightness: The largest amount added or subtracted.
        saturation: The largest relative change of each pixel's distance from its gray value; has no effect on gray
            images.
        contrast: The largest relative change of each pixel's distance from the mean of the image.
    """

    num_uniforms = 3

    def __init__(self, brightness: float = 0.5, saturation: float = 1.0, contrast: float = 0.5) -> None:
        for name, value in (("brightness", brightness), ("saturation", saturation), ("contrast", contrast)):
            _check_fraction(name, value)
        self.amounts = (brightness, saturation, contrast)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Changes brightness first, then saturation, then contrast."""
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
    """Returns the indices of rows (axis 0) or columns (axis 1) of images, shape (1, H) or (1, W)."""
    return torch.arange(images.shape[2 + axis], device=images.device)[None]


def _choose(uniforms: Tensor, count: int) -> Tensor:
    """Returns integers from 0 to count - 1, all equally likely."""
    return (uniforms * count).long()


def _check_fraction(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{option}: expected a number from 0 to 1, got {value}; 0 does not change images")
