"""Your own images, in one folder for each class."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from lightning_cgan.data.base import SPLITS, LabelledImages, Split
from lightning_cgan.data.files import ImageFiles
from lightning_cgan.errors import UsageError


class FolderData(LabelledImages):
    """Images in `train/<class>/` and `test/<class>/` below a folder, as torchvision's `ImageFolder` reads them.

    Args:
        data_dir: The folder with `train` and `test`.
        image_size: Height and width that the images are brought to, in pixels: the shorter side is resized, the longer
            one cut at both ends.
        image_channels: 1 for gray, 3 for colour.
        batch_size: The number of real images in one update of the discriminator, over the whole run.
        classes: The classes to keep, by name or by number; all if not given.
        validation_fraction: The part of the training split that is held out for validation.
        predictions_per_class: How many images of each class `predict` makes.
        memory_budget: The memory that the images of a split may take, in GiB. More are decoded as they are needed.
        workers: The number of processes that decode ahead of time.

    Raises:
        UsageError: The folder has no such images.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int,
        image_channels: int = 3,
        batch_size: int = 64,
        classes: list[int | str] | None = None,
        validation_fraction: float = 1 / 12,
        predictions_per_class: int = 100,
        memory_budget: float = 4.0,
        workers: int = 2,
    ) -> None:
        if image_channels not in (1, 3):
            raise UsageError(f"--data.image_channels: expected 1 (gray) or 3 (colour), got {image_channels}; give one")
        if workers < 0:
            raise UsageError(f"--data.workers: expected 0 or more, got {workers}; give a number of processes")
        self.root = Path(data_dir)
        self.image_channels = image_channels  # type: ignore[misc] # of this set, not of all
        self.all_class_names = self._found("train")[0]  # type: ignore[misc]
        self.workers = workers
        self.native_image_size = image_size  # type: ignore[misc]
        super().__init__(
            batch_size, data_dir, classes, image_size, validation_fraction, predictions_per_class, memory_budget
        )

    def prepare_data(self) -> None:
        """Looks whether both splits have the same classes, and images of each.

        Raises:
            UsageError: They have not, or there is no such folder.
        """
        for split in SPLITS:
            self._images(split)

    def read(self, split: Split) -> tuple[ImageFiles, Tensor]:
        """Lists the files of a split."""
        found = self._images(split)
        files = ImageFiles([path for path, _ in found], self.image_channels, self.image_size, self.workers)
        return files, torch.tensor([label for _, label in found])

    def _images(self, split: Split) -> list[tuple[str, int]]:
        """The files of a split, with their classes."""
        numbers = self._classes(split)
        found: list[tuple[str, int]] = make_dataset(str(self.root / split), numbers, IMG_EXTENSIONS, allow_empty=True)
        empty = sorted(numbers.keys() - {self.all_class_names[number] for _, number in found})
        if empty:
            raise UsageError(
                f"--data.data_dir: expected images of each class in {self.root / split}, got none of "
                f"{', '.join(empty)}; put some there ({', '.join(IMG_EXTENSIONS)}), or take the folder away"
            )
        return found

    def _classes(self, split: Split) -> dict[str, int]:
        """The number of each class of a split."""
        names, numbers = self._found(split)
        if names != self.all_class_names:
            differing = sorted(set(names) ^ set(self.all_class_names))
            raise UsageError(
                f"--data.data_dir: expected the same classes in train and {split}, got {', '.join(differing)} in one "
                f"of them only; mend the folders in {self.root}"
            )
        return numbers

    def _found(self, split: Split) -> tuple[tuple[str, ...], dict[str, int]]:
        try:
            names, numbers = find_classes(str(self.root / split))
        except OSError:  # nothing there, or nothing that could be looked into
            raise UsageError(
                f"--data.data_dir: expected {self.root / split} with a folder of images for each class, got none; put "
                "the images there"
            ) from None
        return tuple(names), numbers
