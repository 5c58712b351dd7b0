"""Sets of labelled images, read and ready."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cgan import DigitsData, LabelledImages
from lightning_cgan.data.base import Split


class Numbered(LabelledImages):
    """1,200 training and 60 test images; the number of an image is written into its pixels."""

    all_class_names = ("zero", "one", "two")
    image_channels = 1
    native_image_size = 2

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(1200 if split == "train" else 60)
        pixels = torch.stack([numbers % 256, numbers // 256, numbers * 0, numbers * 0], dim=1)
        return pixels.view(-1, 1, 2, 2).to(torch.uint8), numbers % 3


def numbers(pixels: Tensor) -> list[int]:
    """The numbers that are written into images."""
    flat = pixels.float().round().flatten(1).long()
    return (flat[:, 0] + 256 * flat[:, 1]).tolist()  # type: ignore[no-any-return]


def ready(data: LabelledImages) -> LabelledImages:
    """The set, with all its splits read."""
    data.prepare_data()
    data.setup("test")
    return data


def opened(**options: Any) -> DigitsData:
    """Digits, with all splits read."""
    data = DigitsData(**options)
    data.setup("test")
    return data
