"""Hold out test and validation images from the images to train on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.rng import rng_at

# Constant: every run holds out the same images, whatever its seed, so that scores are comparable.
_VALIDATION_SEED = 20150
_TEST_SEED = 20151


def check_fraction(option: str, fraction: float) -> None:
    """Raises `UsageError` if a fraction is not between 0 and 1."""
    if not 0 < fraction < 1:
        raise UsageError(f"{option}: expected a number between 0 and 1, got {fraction}; a tenth is 0.1")


def hold_out(
    labels: Tensor, fraction: float, class_names: Sequence[str], kept: Collection[int]
) -> tuple[Tensor, Tensor]:
    """Holds out a part of each class for testing, at least one image; labels have shape (N,).

    The choice depends only on the number and the order of the images of the class: other classes may be added or
    removed. Raises `UsageError` if a kept class would have no training image left.

    Returns:
        The indices of the training images and of the test images, both ascending.
    """
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(class_names):
        indices = (labels == label).nonzero().flatten()
        count = max(1, round(len(indices) * fraction))
        if count < len(indices):
            is_held_out[indices[torch.randperm(len(indices), generator=rng_at(_TEST_SEED))[:count]]] = True
        elif label in kept:
            raise UsageError(
                f"--data.test_fraction: expected training images of each class besides {count} for testing, got "
                f"{len(indices)} of {name}; add images, or list only the other classes in --data.classes"
            )
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


def hold_out_for_validation(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Holds out a part of all images for validation, at least one; each class keeps a training image.

    Returns:
        The indices of the training images and of the validation images; the latter are empty if every image is the only
        one of its class.
    """
    order = torch.randperm(len(labels), generator=rng_at(_VALIDATION_SEED))
    count = max(1, round(len(labels) * fraction))
    held_out, rest = order[:count], order[count:]
    for label in sorted(set(labels[held_out].tolist()) - set(labels[rest].tolist())):
        first = held_out[labels[held_out] == label][:1]
        rest, held_out = torch.cat([rest, first]), held_out[held_out != first]
    return rest, held_out
