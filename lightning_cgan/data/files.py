"""Images that stay in their files until they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import center_crop, resize

from lightning_cgan.errors import UsageError

_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}


class ImageFiles(Dataset[Tensor]):
    """Image files as square pixels of one size: the shorter side is resized, the longer one cut at both ends.

    Args:
        paths: The files, in any format that torchvision decodes.
        channels: 1 for gray, 3 for colour; files are turned to it.
        size: Height and width, in pixels.
        workers: The number of processes that decode ahead of time; with none, this one does.
    """

    def __init__(self, paths: Sequence[str | Path] | np.ndarray, channels: int, size: int, workers: int) -> None:
        self.paths = np.asarray(paths, dtype=str)  # one object, which forked workers share
        self.channels = channels
        self.size = size
        self.workers = workers

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        """Decodes one image, shape (C, H, W), uint8.

        Raises:
            UsageError: The file is missing or broken.
        """
        path = str(self.paths[place])
        try:
            pixels = decode_image(path, _MODES[self.channels])
        except Exception as error:  # a broken file fails in many ways
            raise UsageError(
                f"--data.data_dir: expected images, got {path}, which cannot be read; mend it or take it away"
            ) from error
        square: Tensor = center_crop(resize(pixels, [self.size], antialias=True), [self.size, self.size])
        return square

    @property
    def nbytes(self) -> int:
        """The memory that all images would take."""
        return len(self) * self.channels * self.size**2

    def index_select(self, _: int, chosen: Tensor) -> ImageFiles:
        """Some of the files, as a tensor of pixels would be indexed."""
        return ImageFiles(self.paths[chosen.numpy()], self.channels, self.size, self.workers)

    def batches(self, places: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decodes batches of the images at these places, shape (N, C, H, W), ahead of their time."""
        loader = DataLoader(
            self,
            batch_sampler=cast("Iterable[list[int]]", (chosen.tolist() for chosen in places)),
            num_workers=self.workers,
            collate_fn=torch.stack,
            generator=torch.Generator(),  # not the global one, which a run's dropout draws from
        )
        try:
            yield from loader
        except UsageError as error:  # from a worker with the whole of its traceback
            raise UsageError(str(error).strip().splitlines()[-1].partition("UsageError: ")[2] or str(error)) from None

    def load(self) -> Tensor:
        """Decodes all images, shape (N, C, H, W)."""
        pixels = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        places = torch.arange(len(self)).split(256)
        for chosen, batch in zip(places, self.batches(places), strict=True):
            pixels[chosen] = batch
        return pixels
