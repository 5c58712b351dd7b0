"""The exponential moving average of a network's weights over the course of training.

PyTorch's `AveragedModel` and Lightning's `WeightAveraging` ask a tensor on the device in every update whether it is the
first one, which makes a GPU wait, and the latter averages the whole module; hence these two functions.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from lightning_cgan.core.compat import convert_tensors, foreach
from lightning_cgan.networks.sampler import HALVES

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_lerp_each_ = foreach("lerp_")


def averaged_copy(network: NetworkT) -> NetworkT:
    """The average of a network that has not moved yet: a copy that is not trained, in float32 or better.

    In half precision it would stand still: what an update adds to a weight is less than the last digit.
    """
    average = copy.deepcopy(network).requires_grad_(False)
    convert_tensors(average, lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor)
    return average


def ema_decay(images: int, images_seen: int, half_life: float, ramp_up: float | None) -> float:
    """How much of the average stays when the network has been trained on some more images.

    Args:
        images: The number of images since the last update of the average.
        images_seen: The number of images before those.
        half_life: The number of images after which a contribution counts half.
        ramp_up: The half-life is at most this share of the images seen, so that the first weights, which are worth
            little, are soon forgotten (Karras et al. 2020, arXiv:2006.06676, appendix; 0.05 in their code).

    Returns:
        0.5 ** (images / half-life), from 0 to 1.
    """
    if ramp_up is not None:
        half_life = min(half_life, ramp_up * images_seen)
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves an average towards a network of the same architecture: decay · average + (1 - decay) · network.

    Buffers, such as batch statistics, are averaged too; whole numbers, such as counters, are copied. The average may be
    in a higher precision.
    """
    averages, values = [*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()]
    pairs = list(zip(averages, values, strict=True))
    floats = [(old, new.to(old.dtype)) for old, new in pairs if old.is_floating_point()]
    _lerp_each_([old for old, _ in floats], [new for _, new in floats], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


class MovingAverage:
    """How a moving average of the generator's weights follows them.

    Args:
        half_life: The number of images after which a contribution counts half; none, for no average.
        ramp_up: See `ema_decay`.

    Attributes:
        images_seen: The number of real images that the generator has been trained with.
    """

    def __init__(self, half_life: float | None, ramp_up: float | None) -> None:
        self.half_life = half_life
        self.ramp_up = ramp_up
        self.images_seen = 0

    def update(self, average: nn.Module | None, network: nn.Module, images: int) -> None:
        """Moves the average, if there is one, towards a network that has been trained on some more images."""
        if average is not None and self.half_life is not None:
            update_ema(average, network, ema_decay(images, self.images_seen, self.half_life, self.ramp_up))
        self.images_seen += images
