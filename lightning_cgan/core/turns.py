"""Which of several generators makes which image of a class: they take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def in_turns(makers: Sequence[Callable[[Tensor], Tensor]], numbers: Tensor) -> Tensor:
    """Makes images of which number i within its class is from maker i mod G, of G makers.

    So each maker has an equal share of each class, and who makes an image depends on its number alone.

    Args:
        makers: Each returns images (n, …), of one device and type, given their indices (n,) into `numbers`, on the CPU.
        numbers: The number of each image within its class, from 0, shape (N,).

    Returns:
        The images in the order of their numbers, (N, …).
    """
    turns = numbers.cpu() % len(makers)
    shares = [(turns == turn).nonzero()[:, 0] for turn in range(len(makers))]
    made = [make(share) for make, share in zip(makers, shares, strict=True) if len(share)]
    if len(made) < 2:  # also of no images
        return made[0] if made else makers[0](shares[0])
    order = torch.cat(shares).argsort()
    return torch.cat(made)[order.to(made[0].device)]


def numbers_within_classes(labels: Tensor) -> Tensor:
    """Counts the images of each class, from 0, in the order of their labels (N,); returns their numbers, shape (N,)."""
    order, counts = labels.argsort(stable=True), labels.bincount()
    starts = counts.cumsum(0) - counts
    numbers = torch.empty_like(labels)
    numbers[order] = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
    return numbers
