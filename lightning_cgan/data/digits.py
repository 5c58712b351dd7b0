"""The handwritten digits that are part of scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cgan.data.base import LabelledImages, Split


class DigitsData(LabelledImages):
    """1,797 handwritten digits of 8 x 8 pixels, which are part of scikit-learn: no download.

    The test split is the last fifth of the set, in the order of the file (Alpaydin & Kaynak 1998, UCI repository,
    https://doi.org/10.24432/C50P49; CC BY 4.0).

    Examples:
        >>> data = DigitsData(batch_size=32)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([32, 1, 8, 8]), torch.Size([32]))
    """

    all_class_names = tuple("0123456789")
    image_channels = 1
    native_image_size = 8

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Reads a split from scikit-learn's own files."""
        from sklearn.datasets import load_digits  # takes a second: not at the top, for other data sets

        bunch = load_digits()
        pixels = torch.as_tensor(bunch.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)  # 17 shades of gray
        labels = torch.as_tensor(bunch.target, dtype=torch.int64)
        begin = len(labels) * 4 // 5
        chosen = slice(None, begin) if split == "train" else slice(begin, None)
        return pixels[chosen], labels[chosen]
