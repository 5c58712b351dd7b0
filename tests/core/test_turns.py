"""Several generators take turns: which makes which image."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor

from lightning_cgan.core.turns import in_turns, numbers_within_classes


def make(maker: int, indices: Tensor) -> Tensor:
    """Writes who made an image, and its index, into two pixels."""
    return torch.stack([torch.full_like(indices, maker), indices], 1)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 1]), ([5, 3, 3, 1], [2, 0, 0, 1]), ([4, 7, 1], [1, 1, 1]), ([], [])],
)
def test_image_number_i_is_made_by_maker_i_mod_g(numbers: list[int], expected: list[int]) -> None:
    makers = [partial(make, maker) for maker in range(3)]
    made = in_turns(makers, torch.tensor(numbers, dtype=torch.int64))
    assert made.tolist() == [[maker, index] for index, maker in enumerate(expected)]


def test_one_maker_makes_all_at_once() -> None:
    seen = []
    in_turns([lambda indices: seen.append(indices.tolist()) or indices], torch.tensor([0, 1, 0]))  # type: ignore[func-returns-value]
    assert seen == [[0, 1, 2]]


def test_images_are_counted_within_their_classes() -> None:
    labels = torch.randint(7, (500,))
    seen: Counter[int] = Counter()
    expected = []
    for label in labels.tolist():
        expected.append(seen[label])
        seen[label] += 1
    assert numbers_within_classes(labels).tolist() == expected
    assert numbers_within_classes(labels[:0]).tolist() == []
