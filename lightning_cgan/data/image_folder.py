"""Labelled images from one folder per class."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from os.path import expanduser
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cgan.core.class_names import check_names
from lightning_cgan.core.classes import Classes, class_numbers
from lightning_cgan.core.errors import UsageError, no_such_file, printable
from lightning_cgan.core.images import MOST_CHANNELS, BitDepth, ImageSize
from lightning_cgan.data.base import SPLITS, LabelledImages, Split
from lightning_cgan.data.bit_depth import bits_for, brightest
from lightning_cgan.data.image_files import ImageFiles, common_format
from lightning_cgan.data.label_table import TABLE, LabelTable, find_table
from lightning_cgan.data.listing import ENDINGS, counted, files_in, folders_in, images_in
from lightning_cgan.data.splits import check_fraction, hold_out

_NAMED = 5  # the most damaged files that a warning lists


class ImageFolderData(LabelledImages):
    """Images in one folder per class, as torchvision's `ImageFolder` reads them.

    If the folder contains `train` and `test` and no other folder, the classes are in `train/<class>/` and
    `test/<class>/`; else in `<class>/`, and a test split is held out. Names that begin with a dot are skipped. A file
    that several links point to is used once per class. `LabelledImages` documents the other options.

    If it contains a table `labels.csv` with the columns `file` and `label`, the labels are in the table instead, and
    the files anywhere in the folder. A column `split` may say `train` or `test` of each.

    Examples:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cats", "dogs"):
        ...         os.mkdir(f"{folder}/{name}")  # the place for images of this class
        ...     print(ImageFolderData(folder, image_size=64, image_channels=3).class_names)
        ('cats', 'dogs')

    Args:
        data_dir: The folder with `train` and `test`, with one folder per class, or with `labels.csv`.
        image_size: The size to resize to, in pixels: the side of squares, or height and width, `[H, W]`. What is left
            over in one direction is cut off at both ends. If not given, the size of the images, which must be the same
            for all.
        image_channels: 1 for gray, 3 for colour, where transparent pixels show the colour stored for them; 2 and 4 keep
            transparency. TIFF files with that many gray pages, up to 16, have a channel on each. If not given, what the
            headers of the files say: 1 if all are gray, the number of gray pages, else 3.
        test_fraction: The share of each class held out for testing if there is no test split: at least one image, the
            same ones in every run.
        bit_depth: How many bits of a pixel are kept. If not given, 16 where all training images are gray and use more
            than 8, else 8.
        corrupt: Whether to refuse files that cannot be read, or to skip them with a warning; to skip them, all files
            are decoded once.
        workers: The number of processes that decode ahead of time.

    Raises:
        UsageError: The folder does not hold such images.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: ImageSize | None = None,
        image_channels: int | None = None,
        test_fraction: float = 1 / 7,
        corrupt: Literal["refuse", "skip"] = "refuse",
        batch_size: int = 64,
        classes: Classes | None = None,
        validation_fraction: float = 1 / 12,
        predictions_per_class: int = 100,
        memory_budget: float = 4.0,
        balance: bool = False,
        workers: int = 2,
        bit_depth: BitDepth | None = None,
    ) -> None:
        if image_channels is not None and not 1 <= image_channels <= MOST_CHANNELS:
            raise UsageError(
                f"--data.image_channels: expected 1 (gray), 3 (colour) or up to {MOST_CHANNELS}, got {image_channels}; "
                "give one of these"
            )
        if workers < 0:
            raise UsageError(f"--data.workers: expected 0 or more, got {workers}; give a number of processes")
        check_fraction("--data.test_fraction", test_fraction)
        self.test_fraction = test_fraction
        self.corrupt = corrupt
        self.workers = workers
        self.bit_depth = bit_depth
        root = Path(expanduser(data_dir))
        self._table = find_table(root)
        self.folders = _folders_of_splits(root) if self._table is None else _splits_of_table(self._table)
        if self._table is None:
            self._names = {folder: _class_names(folder) for folder in self.folders.values()}
            self.all_class_names = tuple(sorted({name for names in self._names.values() for name in names}))
        else:
            self._names, self.all_class_names = {}, self._table.class_names
        self.kept = class_numbers(classes, self.all_class_names)  # other classes may be faulty
        if self._table is None:
            self._check_folders()
        if classes is None:
            for folder, names in self._names.items():
                _check_depth(folder, list(names.values()))
        self._listings: dict[Path, tuple[np.ndarray, Tensor]] = {}
        self._readable: dict[Path, tuple[np.ndarray, Tensor]] = {}
        self.native_image_size, self.image_channels = self._format(image_size, image_channels)
        others = (validation_fraction, predictions_per_class, memory_budget, balance)
        super().__init__(batch_size, data_dir, classes, image_size, *others)

    def _format(self, size: ImageSize | None, channels: int | None) -> tuple[ImageSize, int]:
        """The size and the channels, from the headers of all files of kept classes unless both are given."""
        if size is not None and channels is not None:
            return size, channels
        paths: list[str] = []
        for folder in dict.fromkeys(self.folders.values()):
            of_folder, labels = self._listed(folder)
            paths += of_folder[self._is_kept(labels)].tolist()
        return common_format(paths, size, channels, skip_broken=self.corrupt == "skip")

    def prepare_data(self) -> None:
        """Raises `UsageError` if a class has no images in one of the splits."""
        for folder in self.folders.values():
            self._listed(folder)

    def read(self, split: Split) -> tuple[ImageFiles, Tensor]:
        """Lists the files of a split."""
        paths, labels = self._files_of(split)
        return ImageFiles(paths, self.image_channels, self.image_size, self.workers, *self._bits), labels

    def _files_of(self, split: Split) -> tuple[np.ndarray, Tensor]:
        folder = self.folders[split]
        if folder not in self._readable:
            self._readable[folder] = self._without_broken(folder, *self._listed(folder))
        paths, labels = self._readable[folder]
        if len(set(self.folders.values())) > 1:
            return paths, labels
        parts = hold_out(labels, self.test_fraction, self.all_class_names, self.kept)
        chosen = parts[SPLITS.index(split)]
        return paths[chosen.numpy()], labels[chosen]

    @cached_property
    def _bits(self) -> tuple[int, BitDepth]:
        """The bits, of 16, that the brightest training image needs, and how many are kept; the same in all splits."""
        paths, labels = self._files_of("train")
        highest, are_all_deep = brightest(paths[self._is_kept(labels)].tolist(), self.image_channels, self.workers)
        bits = bits_for(highest) if highest >= 0 else 16
        if bits < 16:
            rank_zero_info(f"--data.data_dir: images of 16 bits have values up to {highest:,}: {bits} bits are in use")
        return bits, self.bit_depth or (16 if are_all_deep and bits > 8 else 8)

    def _listed(self, folder: Path) -> tuple[np.ndarray, Tensor]:
        """The files in a folder of classes, with their labels.

        Files of classes that are not kept are included: the choice of validation images depends on all files.
        """
        if folder not in self._listings:
            if self._table is None:
                found, remedy = self._in_folders(folder), f"add some ({', '.join(ENDINGS)}), remove the folder"
            else:
                found = [self._table.images_of(name, folder.name) for name in self.all_class_names]
                remedy = "add rows with images of them"
            labels = torch.arange(len(found)).repeat_interleave(torch.tensor([len(paths) for paths in found]))
            self._check_classes(folder, labels, remedy)
            self._listings[folder] = np.array([path for paths in found for path in paths]), labels
        return self._listings[folder]

    def _in_folders(self, folder: Path) -> list[list[str]]:
        """The files of each class in its folder."""
        found, skipped = [], Counter[str]()
        for label, name in enumerate(self.all_class_names):
            path, is_kept = folder / self._names[folder].get(name, name), label in self.kept
            try:
                found.append(images_in(path, skipped if is_kept else Counter()))
            except UsageError:
                if is_kept:
                    raise
                found.append([])
        _warn_of_skipped(folder, skipped)
        return found

    def _is_kept(self, labels: Tensor) -> np.ndarray:
        return torch.isin(labels, torch.tensor(self.kept)).numpy()

    def _without_broken(self, folder: Path, paths: np.ndarray, labels: Tensor) -> tuple[np.ndarray, Tensor]:
        """Drops files of kept classes that cannot be decoded, if `corrupt` asks for it."""
        if self.corrupt == "refuse":
            return paths, labels
        kept, is_readable = self._is_kept(labels), np.ones(len(paths), dtype=bool)
        files = ImageFiles(paths[kept], self.image_channels, self.image_size, self.workers)
        is_readable[kept] = files.are_readable().numpy()
        broken = paths[~is_readable]
        if len(broken):
            more = f", … ({len(broken):,} files)" if len(broken) > _NAMED else ""
            named = printable(", ".join(broken[:_NAMED]))
            rank_zero_warn(f"--data.corrupt: skipped files that cannot be read: {named}{more}")
        labels = labels[torch.from_numpy(is_readable)]
        remedy = "fix its files, which cannot be read" + ("" if self._table else ", remove the folder")
        self._check_classes(folder, labels, remedy)
        return paths[is_readable], labels

    def _check_classes(self, folder: Path, labels: Tensor, remedy: str) -> None:
        present = set(labels.tolist())
        empty = [self.all_class_names[number] for number in sorted(self.kept) if number not in present]
        if empty:
            raise UsageError(
                f"--data.data_dir: expected images of each class in {folder}, got none of {', '.join(empty)}; "
                f"{remedy}, or list only the other classes in --data.classes"
            )

    def _check_folders(self) -> None:
        """Refuses a kept class that is in only one of the splits."""
        differing = set(self._names[self.folders["train"]]) ^ set(self._names[self.folders["test"]])
        lacking = sorted(differing & {self.all_class_names[number] for number in self.kept})
        if lacking:
            raise UsageError(
                "--data.data_dir: expected the same classes in train and test, got "
                f"{', '.join(lacking)} in one of them only; fix the folders in {self.folders['train'].parent}, or "
                "list only the other classes in --data.classes"
            )


def _splits_of_table(table: LabelTable) -> dict[Split, Path]:
    """Stands for the folders of the splits: the table itself, or a name below it for each."""
    return {split: table.path / split if table.has_splits else table.path for split in SPLITS}


def _warn_of_skipped(folder: Path, skipped: Counter[str]) -> None:
    if skipped:
        rank_zero_warn(
            f"--data.data_dir: skipped {skipped.total():,} files in {folder}: {counted(skipped)}; convert images among "
            f"them to one of {', '.join(ENDINGS)}"
        )
    if outside := files_in(folder):
        rank_zero_warn(
            f"--data.data_dir: skipped {len(outside):,} images in {folder} outside the folders of classes, such as "
            f"{outside[0]!r}; move each into the folder of its class"
        )


def _folders_of_splits(root: Path) -> dict[Split, Path]:
    """The folder that holds the classes of each split; one folder may hold those of both."""
    if not root.is_dir():
        if root.exists():
            raise UsageError(f"--data.data_dir: expected a folder, got {root}, which is a file; unpack archives first")
        raise UsageError(no_such_file("--data.data_dir", str(root)).replace("no such file", "no such folder"))
    names = folders_in(root)
    if set(names) == set(SPLITS):
        return {split: root / split for split in SPLITS}
    if {name.lower() for name in names} == set(SPLITS):
        raise UsageError(
            f"--data.data_dir: expected train and test in {root}, or a folder for each class, got {', '.join(names)}; "
            "rename the folders of the splits to train and test, in lower case"
        )
    nested = [name for split in SPLITS for name in names if name.lower() == split and folders_in(root / name)]
    if nested:
        raise UsageError(
            f"--data.data_dir: expected a folder for each class in {root}, or train and test and nothing else, got "
            f"{', '.join(names)}, with folders in {nested[0]}; remove the others, or give {root / nested[0]} to hold "
            "out a test split of it"
        )
    return dict.fromkeys(SPLITS, root)


def _class_names(folder: Path) -> dict[str, str]:
    """Maps class names in Unicode normal form C (macOS uses another) to the names of their folders in a split."""
    found = folders_in(folder)
    if not found:
        raise UsageError(
            f"--data.data_dir: expected a folder of images for each class in {folder}, got none; add them, or write "
            f"the labels into {TABLE} there"
        )
    check_names("--data.data_dir", found)
    names: dict[str, str] = {}
    for name in found:
        normalized = normalize("NFC", name)
        if names.setdefault(normalized, name) != name:
            raise UsageError(
                f"--data.data_dir: expected a name for each class in {folder}, got {normalized} twice, in two Unicode "
                "forms; put the images into one folder"
            )
    return names


def _check_depth(root: Path, names: list[str]) -> None:
    """Detects a superfluous folder level above the classes, as archives often have."""
    inner = folders_in(root / names[0])
    if not inner or files_in(root / names[0]):
        return
    shown = ", ".join(inner[:_NAMED]) + (", …" if len(inner) > _NAMED else "")
    if len(names) == 1:
        raise UsageError(
            f"--data.data_dir: expected a folder for each class in {root}, got {names[0]} alone, with the folders "
            f"{shown}; give {root / names[0]}, or, if that is the one class, name it in --data.classes"
        )
    if len(inner) > 1 and all(folders_in(root / name) == inner for name in names[1:]):
        rank_zero_warn(
            f"--data.data_dir: the classes in {root} are {', '.join(names[:_NAMED])}, and each has the same folders, "
            f"{shown}; if those are the classes, give {root / names[0]}"
        )
