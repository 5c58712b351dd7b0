"""Images that are held out of those to train on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.rng import rng_at

# What is held out must be the same in every run, whatever its seed, for scores to be comparable.
_VALIDATION_SEED = 20150
_TEST_SEED = 20151


def check_test_fraction(fraction: float) -> None:
    """Refuses what is no part of a whole.

    Raises:
        UsageError: The fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"--data.test_fraction: expected a number between 0 and 1, got {fraction}; a seventh is 0.143")


def hold_out(
    labels: Tensor, fraction: float, class_names: Sequence[str], kept: Collection[int]
) -> tuple[Tensor, Tensor]:
    """Holds a part of each class out for testing, at least one image.

    Which images of a class those are depends on their number and order alone: other classes may come and go.

    Args:
        labels: Shape (N,).
        fraction: The part that is held out.
        class_names: The name of each label.
        kept: The labels that matter: others may have too few images.

    Returns:
        The places of the images to train on, and of those to test with, in ascending order.

    Raises:
        UsageError: A class would have no image left to train on.
    """
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(class_names):
        indices = (labels == label).nonzero().flatten()
        count = max(1, round(len(indices) * fraction))
        if count < len(indices):
            is_held_out[indices[torch.randperm(len(indices), generator=rng_at(_TEST_SEED))[:count]]] = True
        elif label in kept:
            raise UsageError(
                f"--data.test_fraction: expected images of each class to train on beside {count} to test with, got "
                f"{len(indices)} of {name}; add images, or name the other classes in --data.classes"
            )
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


def hold_out_for_validation(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Holds a part of all images out for validation, at least one; each class keeps an image to train on.

    Args:
        labels: Shape (N,).
        fraction: The part that is held out.

    Returns:
        The places of the images to train on, and of those to validate with; none of the latter where each image is the
        only one of its class.
    """
    order = torch.randperm(len(labels), generator=rng_at(_VALIDATION_SEED))
    count = max(1, round(len(labels) * fraction))
    held_out, rest = order[:count], order[count:]
    for label in sorted(set(labels[held_out].tolist()) - set(labels[rest].tolist())):
        first = held_out[labels[held_out] == label][:1]
        rest, held_out = torch.cat([rest, first]), held_out[held_out != first]
    return rest, held_out
