"""Which images are held out for validation, and which classes are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.labelled import Numbered, numbers, ready
from lightning_cgan import ArrayData, UsageError
from lightning_cgan.data.base import Split
from lightning_cgan.data.splits import hold_out_for_validation

# The order in which eight images are held out, by the fixed seed of the validation split.
ORDER = [4, 5, 0, 3, 1, 6, 2, 7]


def held_out(labels: list[int], fraction: float) -> tuple[list[int], list[int]]:
    train, validation = hold_out_for_validation(torch.tensor(labels), fraction)
    return train.tolist(), validation.tolist()


def test_the_validation_split_stays_what_it_has_always_been() -> None:
    """Scores of runs would not compare otherwise: numbers from before the classes were looked at."""
    splits = ready(Numbered()).splits
    assert numbers(splits["validation"][0])[:8] == [572, 288, 980, 1072, 45, 968, 928, 25]  # type: ignore[arg-type]
    assert numbers(splits["train"][0])[:8] == [1119, 1034, 906, 496, 458, 30, 628, 1071]  # type: ignore[arg-type]
    assert held_out([0] * 8, 0.25) == (ORDER[2:], ORDER[:2])


def test_a_class_keeps_an_image_to_train_on() -> None:
    assert held_out([0, 0, 0, 0, 1, 0, 0, 0], 0.25) == ([*ORDER[2:], 4], [5])  # the only one of its class
    assert held_out([0, 0, 0, 0, 1, 1, 0, 0], 0.25) == ([*ORDER[2:], 4], [5])  # the first of two
    assert held_out([0, 0, 0, 0, 1, 2, 0, 0], 0.25) == ([*ORDER[2:], 4, 5], [])
    assert held_out([0, 0, 0, 0, 1, 1, 1, 1], 0.99) == ([0, 4], [5, 3, 1, 6, 2, 7])


def test_a_validation_split_without_images_is_refused() -> None:
    class Few(Numbered):
        def read(self, split: Split) -> tuple[Tensor, Tensor]:
            pixels, _ = super().read(split)
            return pixels[:8], torch.tensor([0, 0, 0, 0, 1, 2, 0, 0])

    remedy = "add images to the files in data, given by --data.data_dir"
    expected = "--data.validation_fraction: expected images of"
    with pytest.raises(UsageError) as raised:
        ready(Few(validation_fraction=0.25))
    beside = "besides one per class to train on, got none;"
    assert str(raised.value) == f"{expected} zero, one, two {beside} give a larger one, or {remedy}"
    with pytest.raises(UsageError) as raised:
        ready(Few(validation_fraction=0.25, classes=["one"]))
    assert str(raised.value) == f"{expected} one {beside} {remedy}"  # more would not help
    arrays = {
        "images": np.zeros((12, 8, 8), dtype=np.uint8),
        "labels": np.arange(12) % 6,
    }  # one is held out for testing
    with pytest.raises(UsageError, match=f"^{expected} 0, 1, 2, 3, 4, 5 {beside} add images to the arrays"):
        ArrayData(arrays).setup("fit")


def test_an_empty_split_is_named() -> None:
    class Lacking(Numbered):
        lacks: Split = "train"

        def read(self, split: Split) -> tuple[Tensor, Tensor]:
            pixels, labels = super().read(split)
            return pixels, labels.clamp(max=1) if split == self.lacks else labels

    data = Lacking(classes=["two"])
    for lacks in ("train", "test"):
        data.lacks = lacks  # type: ignore[assignment]
        with pytest.raises(
            UsageError, match=f"^Lacking: expected images of two in the {lacks} split, got none; add im"
        ):
            ready(data)


def test_a_number_is_a_name_where_names_are_digits() -> None:
    class Shifted(Numbered):
        all_class_names = ("2", "0", "seven")

    assert Shifted(classes=[2, 0]).class_names == Shifted(classes=["2", "0"]).class_names == ("2", "0")
    assert Shifted(classes=[2, 1]).class_names == ("2", "0")  # no class has the name 1: the second one
    arrays = {"images": np.zeros((12, 8, 8), dtype=np.uint8), "labels": np.arange(12) % 2 + 1}
    assert ArrayData({**arrays, "class_names": ["1", "2", "0"]}).class_names == ("2", "0")  # the two with images
