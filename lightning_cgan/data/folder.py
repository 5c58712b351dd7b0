"""Your own images, in one folder for each class."""

from __future__ import annotations

import os
from os.path import expanduser
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_cgan.data.base import SPLITS, LabelledImages, Split
from lightning_cgan.data.classes import class_numbers
from lightning_cgan.data.files import ImageFiles, common_format
from lightning_cgan.data.held_out import check_test_fraction, hold_out
from lightning_cgan.errors import UsageError

_NAMED = 5  # how many broken files a warning names


class ImageFolderData(LabelledImages):
    """Images in a folder for each class, as torchvision's `ImageFolder` reads them.

    The folders lie in `train/<class>/` and `test/<class>/`, if there is nothing else beside `train` and `test`, or in
    `<class>/`: then a test split is held out. What begins with a dot is passed over, and what several links lead to is
    taken once in each class.

    Args:
        data_dir: The folder with `train` and `test`, or with a folder for each class.
        image_size: Height and width that the images are brought to, in pixels: the shorter side is resized, the longer
            one cut at both ends. If not given, that of the images, which must be square and of one size.
        image_channels: 1 for gray, 3 for colour; what is transparent shows the colour under it. If not given, gray
            where the headers of all files say so.
        test_fraction: The part of each class that is held out for testing, where there is no test split: at least one
            image, the same ones in every run.
        corrupt: Whether files that cannot be read are refused, or named in a warning and left out; for that, all files
            are decoded once.
        batch_size: The number of real images in one update of the discriminator, over the whole run.
        classes: The classes to keep, by name or by number; all if not given. Files of others are only counted.
        validation_fraction: The part of the training split that is held out for validation.
        predictions_per_class: How many images of each class `predict` makes.
        memory_budget: The memory that the images of a split may take, in GiB. More are decoded as they are needed.
        balance: Whether training images of smaller classes are repeated, so that each class is met as often as the
            largest.
        workers: The number of processes that decode ahead of time.

    Raises:
        UsageError: The folder has no such images.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int | None = None,
        image_channels: int | None = None,
        test_fraction: float = 1 / 7,
        corrupt: Literal["refuse", "skip"] = "refuse",
        batch_size: int = 64,
        classes: list[int | str] | None = None,
        validation_fraction: float = 1 / 12,
        predictions_per_class: int = 100,
        memory_budget: float = 4.0,
        balance: bool = False,
        workers: int = 2,
    ) -> None:
        if image_channels not in (None, 1, 3):
            raise UsageError(f"--data.image_channels: expected 1 (gray) or 3 (colour), got {image_channels}; give one")
        if workers < 0:
            raise UsageError(f"--data.workers: expected 0 or more, got {workers}; give a number of processes")
        check_test_fraction(test_fraction)
        self.test_fraction = test_fraction
        self.corrupt = corrupt
        self.workers = workers
        self.folders = _folders_of_splits(Path(expanduser(data_dir)))
        self.all_class_names = _class_names(self.folders)
        self.kept = class_numbers(classes, self.all_class_names)  # the others need not be in order
        self._check_folders()
        self._sound: dict[Path, tuple[np.ndarray, Tensor]] = {}
        self.native_image_size, self.image_channels = self._format(image_size, image_channels)
        super().__init__(
            batch_size,
            data_dir,
            classes,
            image_size,
            validation_fraction,
            predictions_per_class,
            memory_budget,
            balance,
        )

    def _format(self, size: int | None, channels: int | None) -> tuple[int, int]:
        """The size and the channels, from the headers of all files that are kept unless both are given."""
        if size is not None and channels is not None:
            return size, channels
        paths: list[str] = []
        for folder in dict.fromkeys(self.folders.values()):
            of_folder, labels = self._listed(folder)
            paths += of_folder[self._is_kept(labels)].tolist()
        return common_format(paths, size, channels, skip_broken=self.corrupt == "skip")

    def prepare_data(self) -> None:
        """Looks whether there are images of each class in both splits.

        Raises:
            UsageError: There are none of a class.
        """
        for folder in self.folders.values():
            self._listed(folder)

    def read(self, split: Split) -> tuple[ImageFiles, Tensor]:
        """Lists the files of a split."""
        folder = self.folders[split]
        if folder not in self._sound:
            self._sound[folder] = self._without_broken(folder, *self._listed(folder))
        paths, labels = self._sound[folder]
        if len(set(self.folders.values())) == 1:
            parts = hold_out(labels, self.test_fraction, self.all_class_names, self.kept)
            chosen = parts[SPLITS.index(split)]
            paths, labels = paths[chosen.numpy()], labels[chosen]
        return ImageFiles(paths, self.image_channels, self.image_size, self.workers), labels

    def _listed(self, folder: Path) -> tuple[np.ndarray, Tensor]:
        """The files in a folder of classes, with their labels.

        Those of classes that are not kept are among them: which images are held out for validation depends on all.
        """
        found = [_images(folder / name) for name in self.all_class_names]
        labels = torch.arange(len(found)).repeat_interleave(torch.tensor([len(paths) for paths in found]))
        self._check_classes(folder, labels, f"put some there ({', '.join(IMG_EXTENSIONS)})")
        return np.array([path for paths in found for path in paths]), labels

    def _is_kept(self, labels: Tensor) -> np.ndarray:
        return torch.isin(labels, torch.tensor(self.kept)).numpy()

    def _without_broken(self, folder: Path, paths: np.ndarray, labels: Tensor) -> tuple[np.ndarray, Tensor]:
        """Leaves out what cannot be decoded of the classes that are kept, if that is wanted."""
        if self.corrupt == "refuse":
            return paths, labels
        kept, is_sound = self._is_kept(labels), np.ones(len(paths), dtype=bool)
        files = ImageFiles(paths[kept], self.image_channels, self.image_size, self.workers)
        is_sound[kept] = files.are_readable().numpy()
        broken = paths[~is_sound]
        if len(broken):
            more = f", … ({len(broken):,} files)" if len(broken) > _NAMED else ""
            rank_zero_warn(f"--data.corrupt: cannot be read, and left out: {', '.join(broken[:_NAMED])}{more}")
        labels = labels[torch.from_numpy(is_sound)]
        self._check_classes(folder, labels, "those there cannot be read: mend them")
        return paths[is_sound], labels

    def _check_classes(self, folder: Path, labels: Tensor, remedy: str) -> None:
        there = set(labels.tolist())
        empty = [self.all_class_names[number] for number in sorted(self.kept) if number not in there]
        if empty:
            raise UsageError(
                f"--data.data_dir: expected images of each class in {folder}, got none of {', '.join(empty)}; "
                f"{remedy}, take the folder away, or name the other classes in --data.classes"
            )

    def _check_folders(self) -> None:
        """Refuses a class that is kept and lies in one of the splits only."""
        differing = set(_folders(self.folders["train"])) ^ set(_folders(self.folders["test"]))
        lacking = sorted(differing & {self.all_class_names[number] for number in self.kept})
        if lacking:
            raise UsageError(
                "--data.data_dir: expected the same classes in train and test, got "
                f"{', '.join(lacking)} in one of them only; mend the folders in {self.folders['train'].parent}, or "
                "name the other classes in --data.classes"
            )


def _folders_of_splits(root: Path) -> dict[Split, Path]:
    """Where the classes of each split lie: in folders of their own, or all in one."""
    names = _folders(root)
    if set(names) == set(SPLITS):
        return {split: root / split for split in SPLITS}
    if {name.lower() for name in names} == set(SPLITS):
        raise UsageError(
            f"--data.data_dir: expected train and test in {root}, or a folder for each class, got {', '.join(names)}; "
            "rename the folders of the splits to train and test, in small letters"
        )
    nested = [name for split in SPLITS for name in names if name.lower() == split and _folders(root / name)]
    if nested:
        raise UsageError(
            f"--data.data_dir: expected a folder for each class in {root}, or train and test and nothing else, got "
            f"{', '.join(names)}, with folders in {nested[0]}; take the others away, or give {root / nested[0]} to "
            "hold a test split out of it"
        )
    if not names:
        raise UsageError(
            f"--data.data_dir: expected {root} with a folder of images for each class, or with such folders in train "
            "and test, got none; put the images there"
        )
    return dict.fromkeys(SPLITS, root)


def _class_names(folders: dict[Split, Path]) -> tuple[str, ...]:
    """The names of the classes of both splits."""
    found = [_folders(folders[split]) for split in SPLITS]
    for split, names in zip(SPLITS, found, strict=True):
        if not names:
            raise UsageError(
                f"--data.data_dir: expected {folders[split]} with a folder of images for each class, got none; put "
                "the images there"
            )
    return tuple(sorted({name for names in found for name in names}))


def _folders(place: Path) -> list[str]:
    """The names of the folders in a folder, in order; none if it cannot be looked into."""
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _images(place: Path) -> list[str]:
    """The images in the folder of a class and in those within it, each once, in the order of torchvision."""
    found: dict[str, str] = {}
    seen = {str(above) for above in place.resolve().parents}
    for folder, inner, names in os.walk(place, followlinks=True):
        actual = os.path.realpath(folder)
        if actual in seen:  # by a link, maybe one that leads back
            inner.clear()
            continue
        seen.add(actual)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("."):
                path = os.path.join(folder, name)
                found.setdefault(os.path.realpath(path) if os.path.islink(path) else os.path.join(actual, name), path)
    return sorted(found.values(), key=os.path.split)
