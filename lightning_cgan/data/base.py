"""The base class of all data modules of labelled images."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Container
from math import lcm, prod
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Self

from lightning_cgan.core.classes import Classes, class_numbers
from lightning_cgan.core.compat import INSTANTIATOR_KEY
from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.images import ImageSize, height_and_width, image_shape_of, image_size_of
from lightning_cgan.core.rng import seed_of_process
from lightning_cgan.data.image_files import ImageFiles, to_size
from lightning_cgan.data.loader import OrderedLoader, RepeatingLoader, ShufflingLoader
from lightning_cgan.data.splits import check_fraction, hold_out_for_validation

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class LabelledImages(LightningDataModule, ABC):
    """Base class of labelled images, held in GPU or CPU memory if they fit, else decoded on demand.

    Loaders yield images (N, C, H, W) in [-1, 1] and labels (N,). The training, validation and test splits never
    overlap: validation images are held out of the training split, the same ones in every run, whichever classes are
    kept.

    A custom data set defines `all_class_names`, `image_channels`, `native_image_size` and `read`, and `prepare_data` if
    there is something to download. Nothing has to be registered: `--data my_module.MyData` finds it.

    Examples:
        >>> class Noise(LabelledImages):
        ...     all_class_names, image_channels, native_image_size = ("a", "b"), 1, 8
        ...     def read(self, split):
        ...         return torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 2
        >>> Noise(classes=["b"]).class_names
        ('b',)

    Args:
        batch_size: The number of real images per discriminator update, over all processes: each takes an equal share.
        data_dir: The folder with the files. If not given, the environment variable LIGHTNING_CGAN_DATA, else `data`.
        classes: The classes to keep, by name, number or range; all if not given. Names are kept; labels are renumbered
            from 0 in the order given.
        image_size: The size to resize to, in pixels: the side of squares, or height and width, `[H, W]`. What is left
            over in one direction is cut off at both ends.
        validation_fraction: The share of the training split held out for validation.
        predictions_per_class: The number of images of each class that `predict` generates.
        memory_budget: The memory that the images of one split may take, in GiB, in RAM and on a GPU. In RAM, only data
            sets that read files one by one can keep to it.
        balance: Whether to repeat training images of smaller classes, so that each class is seen as often as the
            largest. Scores, Judges (reference classifiers) and the validation split still use every image once.

    Attributes:
        image_channels: 1 for gray, 3 for colour, or any other number.
        class_names: The name of each label.
        tops_up: Whether real images, except those of the test split, count towards `predictions_per_class`.
        already_made: Pairs of label and index within the class that `predict` skips.

    Raises:
        UsageError: A class is unknown or named twice.
    """

    all_class_names: tuple[str, ...]
    image_channels: int
    native_image_size: ImageSize

    def __init__(
        self,
        batch_size: int = 64,
        data_dir: str | None = None,
        classes: Classes | None = None,
        image_size: ImageSize | None = None,
        validation_fraction: float = 1 / 12,
        predictions_per_class: int = 100,
        memory_budget: float = 4.0,
        balance: bool = False,
    ) -> None:
        super().__init__()
        check_positive("--data.batch_size", batch_size)
        for side in image_size if isinstance(image_size, (tuple, list)) else [image_size]:
            check_positive("--data.image_size", side if isinstance(side, int) else None)
        check_positive("--data.predictions_per_class", predictions_per_class)
        check_fraction("--data.validation_fraction", validation_fraction)
        if memory_budget < 0:
            raise UsageError(f"--data.memory_budget: expected 0 or more GiB, got {memory_budget}; 0 keeps no images")
        self.memory_budget = memory_budget
        self.balance = balance
        self.splits: dict[str, tuple[Tensor | ImageFiles, Tensor]] = {}
        self.batch_size = batch_size
        self.data_dir = Path(os.path.expanduser(data_dir or os.environ.get("LIGHTNING_CGAN_DATA") or "data"))
        size = self.native_image_size if image_size is None else image_size
        self.image_size: ImageSize = image_size_of(*height_and_width(size, "--data.image_size"))
        self.validation_fraction = validation_fraction
        self.predictions_per_class = predictions_per_class
        self.tops_up = False
        self.already_made: Container[tuple[int, int]] = ()
        self.kept = class_numbers(classes, self.all_class_names)
        self.num_classes = len(self.kept)
        self.class_names = tuple(self.all_class_names[number] for number in self.kept)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Builds a data module from the plain values of a checkpoint; classes that the file names are not built."""
        # An instantiator would parse text as descriptions of objects; without one, Lightning passes values unchanged.
        plain: dict[str, Any] = {"weights_only": True, INSTANTIATOR_KEY: None}
        try:
            return super().load_from_checkpoint(checkpoint_path, *args[:2], **{**kwargs, **plain})
        except (FileNotFoundError, UsageError):
            raise
        except Exception as error:  # unexpected values can raise any exception
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the checkpoint: expected valid arguments of {cls.__name__}, got others ({reason}); use another file"
            ) from error

    @property
    def batch_size(self) -> int:
        """The number of real images per update; once the training split is read, capped at what it can fill."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:  # Lightning's `BatchSizeFinder` tries ever larger sizes
        most = self._largest_batch() if "train" in self.splits else size
        if size > most > 0:
            rank_zero_info(f"--data.batch_size: reduced from {size:,} to {most:,}, the most that one epoch can fill")
        self._batch_size = min(size, most or size)

    def _largest_batch(self) -> int:
        """The largest batch that one epoch can fill and that divides evenly among processes and accumulated parts."""
        counts = self.splits["train"][1].bincount()
        images = int((counts > 0).sum() * counts.max() if self.balance else counts.sum())
        unit = lcm(self._rank_and_world_size()[1], *self._of_module("accumulation", {}).values())
        return int(images // self._of_module("discriminator_steps", 1) // unit * unit)

    def _of_module(self, attribute: str, default: Any) -> Any:
        return getattr(self.trainer.lightning_module if self.trainer else None, attribute, default)

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor | ImageFiles, Tensor]:
        """Reads one split, or lists its files.

        Returns:
            Images, shape (N, C, H, W), uint8, or int16 for 16 bits (a value less 32,768), or the files that decode to
            their final size; and labels, shape (N,), int64, which are indices into `all_class_names`.

        Raises:
            UsageError: Files are missing or damaged.
        """

    def setup(self, stage: str) -> None:
        """Reads and splits the data that a stage needs; only the stage `test` reads the test split."""
        if stage != "predict" and "train" not in self.splits:
            images, labels = self._read_checked("train")
            train, validation = hold_out_for_validation(labels, self.validation_fraction)
            self.splits["train"] = self._prepared("train", images, labels, train)
            self.splits["validation"] = self._prepared("validation", images, labels, validation)
            self._check_balance()
        if stage == "test" and "test" not in self.splits:
            images, labels = self._read_checked("test")
            self.splits["test"] = self._prepared("test", images, labels, torch.arange(len(labels)))

    def _read_checked(self, split: Split) -> tuple[Tensor | ImageFiles, Tensor]:
        images, labels = self.read(split)
        highest = len(self.all_class_names) - 1
        outside = labels[(labels < 0) | (labels > highest)]
        if len(outside):
            raise UsageError(
                f"{type(self).__name__}: expected labels from 0 to {highest}, got {sorted(set(outside.tolist()))} in "
                f"{len(outside)} images; fix {self._source}"
            )
        return images, labels

    @property
    def _source(self) -> str:
        """A description of where the images come from, for messages."""
        return f"the files in {self.data_dir}, given by --data.data_dir"

    def _check_balance(self) -> None:
        present = set(self.splits["train"][1].tolist())
        missing = [name for label, name in enumerate(self.class_names) if label not in present]
        if self.balance and missing:
            raise UsageError(
                f"--data.balance: expected training images of each class, got none of {', '.join(missing)}; add some, "
                "or list only the other classes in --data.classes"
            )

    def _prepared(
        self, split: str, images: Tensor | ImageFiles, labels: Tensor, chosen: Tensor
    ) -> tuple[Tensor | ImageFiles, Tensor]:
        """Selects the chosen images of kept classes, renumbers their labels, and loads or resizes the images."""
        renumbered = torch.full((len(self.all_class_names),), -1)
        renumbered[torch.tensor(self.kept)] = torch.arange(self.num_classes)
        chosen = chosen[renumbered[labels[chosen]] >= 0]
        if not len(chosen):
            raise self._none_in(split, labels)
        images, labels = images.index_select(0, chosen), renumbered[labels[chosen]]
        if isinstance(images, ImageFiles):
            return (images.load() if self._fits(images) else images), labels
        if tuple(images.shape[-2:]) != height_and_width(self.image_size):
            images = torch.cat([to_size(part, self.image_size) for part in images.split(4096)])
        return images, labels

    def _none_in(self, split: str, labels: Tensor) -> UsageError:
        """The error for a split without images of kept classes; `labels` are those that it was selected from."""
        kept, names = labels[torch.isin(labels, torch.tensor(self.kept))], ", ".join(self.class_names)
        start, remedy = f"{type(self).__name__}: expected images of {names} in the {split} split", ""
        if split == "validation" and len(kept):
            start = f"--data.validation_fraction: expected images of {names} besides one per class to train on"
            remedy = "give a larger one, or " if len(kept) > len(kept.unique()) else ""
        return UsageError(f"{start}, got none; {remedy}add images to {self._source}")

    def _fits(self, images: Tensor | ImageFiles) -> bool:
        return images.nbytes <= self.memory_budget * 2**30

    def _on_device(self, split: str) -> tuple[Tensor | ImageFiles, Tensor]:
        """A split, moved to the GPU of this process if there is one and the images fit the budget."""
        images, labels = self.splits[split]
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if isinstance(images, Tensor) and device.type == "cuda" and self._fits(images):
            self.splits[split] = images, labels = images.to(device), labels.to(device)
        return images, labels

    def train_dataloader(self) -> ShufflingLoader:
        """Shuffled batches with the images of one step each; see `discriminator_steps` of `ConditionalGAN`."""
        seed = self._of_module("seed", None)  # the run's seed; PyTorch's changes with each step
        seed = seed_of_process() if seed is None else seed
        seed = self.trainer.strategy.broadcast(seed) if self.trainer else seed
        images, labels = self._on_device("train")
        batch_size = self.batch_size * self._of_module("discriminator_steps", 1)
        options = (images, labels, batch_size, *self._rank_and_world_size(), seed, self.balance)
        repeated = getattr(self.trainer, "overfit_batches", 0)
        loader = RepeatingLoader(repeated, *options) if repeated else ShufflingLoader(*options)
        loader.dataset = range(self._largest_batch())
        return loader

    def val_dataloader(self) -> OrderedLoader:
        """The validation images in a fixed order."""
        return self._evaluation_loader("validation", getattr(self.trainer, "limit_val_batches", 1.0))

    def test_dataloader(self) -> OrderedLoader:
        """The test images in their original order."""
        return self._evaluation_loader("test", getattr(self.trainer, "limit_test_batches", 1.0))

    def _evaluation_loader(self, split: str, share: float) -> OrderedLoader:
        """A loader of one split; a `share` between 0 and 1 is the fraction of its batches that Lightning will use."""
        images, labels = self._on_device(split)
        rank, world_size = self._rank_and_world_size()
        size = self._large_batch_size()
        if isinstance(share, float) and 0 < share < 1:
            # Small batches: a fraction of them is the same fraction of the images.
            size = min(self.batch_size, max(1, int(len(labels) * share)))
            size = world_size * max(1, size // world_size)
        return OrderedLoader(images, labels, size, rank, world_size)

    def in_order(self, split: str) -> OrderedLoader:
        """All images of a split that `setup` has read (`train`, `validation` or `test`), for one process."""
        return OrderedLoader(*self._on_device(split), self._large_batch_size())

    def about_training(self) -> dict[str, Any]:
        """What the content and order of the training images depend on, apart from the seed."""
        return {
            "data set": type(self).__name__,
            "classes": list(self.class_names),
            "training images": len(self.splits["train"][1]),
            "batch size": self.batch_size,
            "balance": self.balance,
        }

    def _large_batch_size(self) -> int:
        """The batch size without gradients, where a large batch of small images costs little more than a small one."""
        many = 2**20 // prod(image_shape_of(self.image_channels, self.image_size))
        return self.batch_size * max(1, many // self.batch_size)

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Batches of pairs of label and index within the class, shape (N, 2), of the images to generate."""
        present = torch.zeros(self.num_classes, dtype=torch.int64)
        if self.tops_up:
            self.setup("validate")
            labels = torch.cat([self.splits[split][1].cpu() for split in ("train", "validation")])
            present = torch.bincount(labels, minlength=self.num_classes)
        missing = (self.predictions_per_class - present).clamp(min=0).tolist()
        wanted = [(label, number) for label, count in enumerate(missing) for number in range(count)]
        left = [image for image in wanted if image not in self.already_made]
        left += left[:1] * (self._rank_and_world_size()[1] - len(left))  # Lightning needs an item for every process
        images = torch.tensor(left, dtype=torch.int64).reshape(-1, 2)
        return DataLoader(cast(Dataset[Tensor], images), batch_size=self.batch_size)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
