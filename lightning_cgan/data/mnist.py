"""MNIST and the sets that were made in its image, through torchvision."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from lightning_cgan.data.base import SPLITS, LabelledImages, Split
from lightning_cgan.errors import UsageError


class _TorchvisionImages(LabelledImages):
    """70,000 gray images of 28 x 28 pixels in ten classes: 60,000 to train, 10,000 to test.

    Download, checksums and unpacking are torchvision's.
    """

    dataset: ClassVar[type[MNIST]]
    image_channels = 1
    native_image_size = 28

    def prepare_data(self) -> None:
        """Downloads what is missing, and reads what is trained on, so that broken files are found before a run begins.

        Raises:
            UsageError: Files are missing and cannot be downloaded, or are broken.
        """
        if not all(file.exists() for split in SPLITS for file in self._files(split)):
            folders = [folder for folder in (self.raw_folder, *self.raw_folder.parents) if not folder.exists()]
            try:
                self.dataset(str(self.data_dir), download=True)
            except Exception as error:  # a network fails in many ways
                for folder in folders:
                    with suppress(OSError):  # torchvision made it; what is not empty stays
                        folder.rmdir()
                raise self._unavailable(error) from error
        self.read("train")

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Reads the unpacked files of a split."""
        try:
            data = self.dataset(str(self.data_dir), train=split == "train")
        except Exception as error:  # a broken file fails in many ways
            raise self._broken(split, error) from error
        if len(data.data) != len(data.targets):
            raise self._broken(split, f"{len(data.data)} images but {len(data.targets)} labels")
        return data.data.unsqueeze(1), data.targets.long()

    @property
    def raw_folder(self) -> Path:
        """The folder with the archives and the unpacked files."""
        return self.data_dir / self.dataset.__name__ / "raw"

    def _unavailable(self, error: Exception) -> UsageError:
        """Why there is no data: a broken archive if there is one, else what torchvision says."""
        for url, md5 in self.dataset.resources:
            archive = self.raw_folder / Path(url).name
            if archive.exists() and not check_integrity(str(archive), md5):
                return UsageError(
                    f"{archive}: expected the archive with md5 {md5}, got {_size(archive)} of "
                    "something else: it is truncated or foreign; delete it to download it anew"
                )
        if isinstance(error, OSError) and error.filename and not hasattr(error, "reason"):
            return UsageError(
                f"{error.filename}: {error.strerror}; give --data.data_dir a folder that may be written, and copy the "
                "archives there if you have them"
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return UsageError(
            f"{self.dataset.__name__} is not in {self.raw_folder} and cannot be downloaded ({reason}); give the folder "
            "that holds it with --data.data_dir, or train on configs/digits.yaml, which needs no download"
        )

    def _broken(self, split: Split, error: Exception | str) -> UsageError:
        """Which file of a split is broken, and how."""
        remedy = "delete it, and it will be unpacked or downloaded anew"
        for file, read in zip(self._files(split), (read_image_file, read_label_file), strict=True):
            try:
                read(str(file))
            except Exception as reason:
                said = " ".join(str(reason).split()) or "what its header says and its size do not fit together"
                return UsageError(f"{file}: expected a complete IDX file, got {_size(file)} ({said}); {remedy}")
        return UsageError(f"{self._files(split)[0]} and its labels do not fit together ({error}); delete both")

    def _files(self, split: Split) -> list[Path]:
        prefix = "train" if split == "train" else "t10k"
        return [self.raw_folder / f"{prefix}-{kind}" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def _size(file: Path) -> str:
    return f"{file.stat().st_size:,} bytes" if file.exists() else "no file"


class MNISTData(_TorchvisionImages):
    """MNIST: handwritten digits (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist)."""

    dataset = MNIST
    all_class_names = tuple("0123456789")


class FashionMNISTData(_TorchvisionImages):
    """Fashion-MNIST: articles of clothing (Xiao et al. 2017, arXiv:1708.07747; MIT licence)."""

    dataset = FashionMNIST
    all_class_names = tuple(FashionMNIST.classes)


class KMNISTData(_TorchvisionImages):
    """Kuzushiji-MNIST: cursive Japanese characters (Clanuwat et al. 2018, arXiv:1812.01718; CC BY-SA 4.0)."""

    dataset = KMNIST
    all_class_names = tuple(KMNIST.classes)
