"""MNIST and data sets in its format, through torchvision."""

from __future__ import annotations

import gzip
import math
import struct
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity

from lightning_cgan.core.errors import UsageError
from lightning_cgan.data.base import SPLITS, LabelledImages, Split

_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3", "labels-idx1")


class _TorchvisionImages(LabelledImages):
    """70,000 gray images of 28 x 28 pixels in ten classes: 60,000 for training, 10,000 for testing.

    torchvision downloads the files and verifies their checksums. The files may also be in `data_dir` itself, in its
    subfolder `raw`, or in the folder named after the set; have the names that Kaggle gives them; and be compressed
    (`.gz`).
    """

    dataset: ClassVar[type[MNIST]]
    image_channels = 1
    native_image_size = 28

    def prepare_data(self) -> None:
        """Downloads missing files, and reads the training split to find damaged files before a run begins."""
        if not all(file.exists() for split in SPLITS for file in self._files(split)):
            folders = [folder for folder in (self.raw_folder, *self.raw_folder.parents) if not folder.exists()]
            try:
                self.dataset(str(self.data_dir), download=True)
            except Exception as error:  # a download can raise any exception
                for folder in folders:
                    with suppress(OSError):  # made by torchvision; rmdir keeps folders with content
                        folder.rmdir()
                raise self._unavailable(error) from error
        self.read("train")

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Reads the files of a split."""
        images_file, labels_file = self._files(split)
        images, labels = _read_idx(images_file, dimensions=3), _read_idx(labels_file, dimensions=1)
        if len(images) != len(labels):
            raise UsageError(
                f"{labels_file}: expected as many labels as {images_file.name} has images ({len(images)}), got "
                f"{len(labels)}; delete both files, and they will be unpacked or downloaded again"
            )
        return images.unsqueeze(1), labels.long()

    @property
    def raw_folder(self) -> Path:
        """The folder with the archives and the extracted files."""
        return self.data_dir / self.dataset.__name__ / "raw"

    def _unavailable(self, error: Exception) -> UsageError:
        """The error for missing data: a damaged archive if there is one, else the reason from torchvision."""
        for url, md5 in self.dataset.resources:
            archive = self.raw_folder / Path(url).name
            if archive.exists() and not check_integrity(str(archive), md5):
                return UsageError(
                    f"{archive}: expected the archive with md5 {md5}, got another file of {_size(archive)}; delete it, "
                    "and it will be downloaded again"
                )
        if isinstance(error, OSError) and error.filename and not hasattr(error, "reason"):
            return UsageError(
                f"{error.filename}: {error.strerror}; give a folder that can be written to with --data.data_dir, and "
                "copy the archives there if you have them"
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return UsageError(
            f"{self.dataset.__name__} is not in {self.raw_folder} and cannot be downloaded ({reason}); give the folder "
            "that holds it with --data.data_dir, or train on configs/digits.yaml, which needs no download"
        )

    def _files(self, split: Split) -> list[Path]:
        """The image and the label file of a split, in the first folder that has both splits."""
        folders = (self.raw_folder, self.raw_folder.parent, self.data_dir / "raw", self.data_dir)
        found = next((files for folder in folders if (files := _idx_files(folder))), None)
        prefix = _PREFIXES[split]
        if found is None:
            return [self.raw_folder / f"{prefix}-{kind}-ubyte" for kind in _KINDS]
        return [found[prefix, kind] for kind in _KINDS]


def _idx_files(path: Path) -> dict[tuple[str, str], Path] | None:
    """The files of both splits in a folder, compressed or not, with the original names or those of Kaggle."""
    found: dict[tuple[str, str], Path] = {}
    for prefix, kind in product(_PREFIXES.values(), _KINDS):
        names = (f"{prefix}-{name}-ubyte{packed}" for packed in ("", ".gz") for name in (kind, kind.replace("-", ".")))
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is None:
            return None
        found[prefix, kind] = file
    return found


def _read_idx(file: Path, dimensions: int) -> Tensor:
    """The numbers of an IDX file (http://yann.lecun.com/exdb/mnist), uint8."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if len(content) < 4 + 4 * dimensions or content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it does not begin with the header of {dimensions} dimensions")
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if len(numbers) != math.prod(shape):
            raise ValueError(f"its header announces {math.prod(shape):,} bytes of data, but it has {len(numbers):,}")
        return torch.from_numpy(numbers.reshape(shape).copy())
    except Exception as error:  # a damaged file can raise any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "delete it, and it will be unpacked or downloaded again"
        raise UsageError(f"{file}: expected a complete IDX file, got {_size(file)} ({reason}); {remedy}") from error


def _size(file: Path) -> str:
    return f"{file.stat().st_size:,} bytes" if file.exists() else "no file"


class MNISTData(_TorchvisionImages):
    """MNIST: handwritten digits (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist).

    Examples:
        >>> data = MNISTData(classes=[4, 9])
        >>> data.num_classes, data.class_names
        (2, ('4', '9'))
    """

    dataset = MNIST
    all_class_names = tuple("0123456789")


class FashionMNISTData(_TorchvisionImages):
    """Fashion-MNIST: articles of clothing (Xiao et al. 2017, arXiv:1708.07747; MIT licence).

    Examples:
        >>> data = FashionMNISTData(classes="Trouser-Coat")
        >>> data.class_names
        ('Trouser', 'Pullover', 'Dress', 'Coat')
    """

    dataset = FashionMNIST
    all_class_names = tuple(FashionMNIST.classes)


class KMNISTData(_TorchvisionImages):
    """Kuzushiji-MNIST: cursive Japanese characters (Clanuwat et al. 2018, arXiv:1812.01718; CC BY-SA 4.0).

    Examples:
        >>> data = KMNISTData(classes=["ki", "na"], image_size=32)
        >>> data.class_names, data.image_size
        (('ki', 'na'), 32)
    """

    dataset = KMNIST
    all_class_names = tuple(KMNIST.classes)
