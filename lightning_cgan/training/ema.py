"""The exponential moving average of a network's weights: the training step moves it, and `Sampler` samples from it.

PyTorch's `AveragedModel` and Lightning's `WeightAveraging` read a tensor on the device at every update to see whether
it is the first, which makes a GPU wait, and the latter averages the whole module; hence the functions below.
"""

from __future__ import annotations

import copy
from operator import is_
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_cgan.core.compat import PARTS_OF_MODULE, convert_tensors, foreach
from lightning_cgan.networks.sampler import HALVES

NetworkT = TypeVar("NetworkT", bound=nn.Module)

_lerp_each_, _copy_each_ = foreach("lerp_"), foreach("copy_")


def averaged_copy(network: NetworkT) -> NetworkT:
    """Returns the initial average of a network: a copy without gradients, in float32 or better.

    In half precision the average would not move: the change per update is smaller than the last digit of a weight.
    """
    average = copy.deepcopy(network).requires_grad_(False)
    convert_tensors(average, lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor)
    return average


def ema_decay(images: int, images_seen: int, half_life: float, ramp_up: float | None) -> float:
    """Returns the fraction of the average that remains after training on `images` more images.

    Args:
        images: The number of images since the last update of the average.
        images_seen: The number of images before those.
        half_life: The number of images after which the weight of a contribution has halved.
        ramp_up: Upper bound of the half-life as a fraction of the images seen, so that the first weights, which are of
            little use, are forgotten soon (Karras et al. 2020, arXiv:2006.06676, appendix; 0.05 in their code).

    Returns:
        0.5 ** (images / half-life), from 0 to 1.
    """
    if ramp_up is not None:
        half_life = min(half_life, ramp_up * images_seen)
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Updates an average of a network of the same architecture: decay · average + (1 - decay) · network.

    Floating-point buffers, such as batch statistics, are averaged too; integers, such as counters, are copied. The
    average may have a higher precision.
    """
    _AveragedTensors(average, network).update(decay)


class _AveragedTensors:
    """The tensors of an average and of its network, found once: walking through the modules takes most of an update."""

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        self._networks = average, network
        modules = [*average.modules(), *network.modules()]
        spaces = [vars(module)[part] for module in modules for part in PARTS_OF_MODULE]
        self._spaces = [(space, dict(space)) for space in spaces]
        values = ([*module.parameters(), *module.buffers()] for module in (average, network))
        pairs = list(zip(*values, strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._integers = [pair for pair in pairs if not pair[0].is_floating_point()]

    def are_those_of(self, average: nn.Module, network: nn.Module) -> bool:
        """Whether no network, layer or tensor has been replaced by another one, as a layer may do in each pass."""
        is_same = all(map(is_, self._networks, (average, network)))
        return is_same and all(
            len(space) == len(seen) and all(map(is_, space.values(), seen.values())) for space, seen in self._spaces
        )

    @torch.no_grad()
    def update(self, decay: float) -> None:
        news = [new if new.dtype is old.dtype else new.to(old.dtype) for old, new in self._floats]
        _lerp_each_([old for old, _ in self._floats], news, 1 - decay)
        if self._integers:
            _copy_each_([old for old, _ in self._integers], [new for _, new in self._integers])


class MovingAverage:
    """Updates a moving average of the generator's weights.

    Args:
        half_life: The number of images after which the weight of a contribution has halved; none, for no average.
        ramp_up: See `ema_decay`.

    Attributes:
        images_seen: The number of real images that the generator has been trained with.
    """

    def __init__(self, half_life: float | None, ramp_up: float | None) -> None:
        self.half_life = half_life
        self.ramp_up = ramp_up
        self.images_seen = 0
        self._tensors: _AveragedTensors | None = None

    def update(self, average: nn.Module | None, network: nn.Module, images: int, is_same: bool = False) -> None:
        """Updates the average, if there is one, after training on `images` more images.

        `is_same` tells that the tensors of both networks are those of the last update.
        """
        if average is not None and self.half_life is not None:
            if self._tensors is None or not (is_same or self._tensors.are_those_of(average, network)):
                self._tensors = _AveragedTensors(average, network)
            self._tensors.update(ema_decay(images, self.images_seen, self.half_life, self.ramp_up))
        self.images_seen += images

    def __getstate__(self) -> dict[str, Any]:
        """Omits the tensors, which belong to the networks; a copy finds its own."""
        return {**vars(self), "_tensors": None}
