"""Weights of a network for other classes: what belongs to a class follows the name of the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.parameter import is_lazy

from lightning_cgan.core.building import build
from lightning_cgan.core.compat import VECTORS_OF_SPECTRAL_NORM, WRAPPED, original_of
from lightning_cgan.core.serialization import class_path
from lightning_cgan.networks.base import Network


class Transfer(NamedTuple):
    """What `transfer_weights` has done.

    Attributes:
        taken: The names of the tensors that were set.
        left: Of the others, the reason why they keep their values, by name.
        of_classes: The names of the tensors that have entries for each class; none if that is not known: entries then
            keep their order.
    """

    taken: list[str]
    left: dict[str, str]
    of_classes: set[str] | None


class ClassEntries(NamedTuple):
    """Where the entries of the classes lie in a tensor: at the end of a dimension, in the order of the classes.

    Attributes:
        dim: The dimension.
        width: How many entries along it belong to one class.
    """

    dim: int
    width: int


def find_class_entries(network: Network) -> dict[str, ClassEntries] | None:
    """Finds out which tensors of a network have entries for each class, by building it with one class more.

    These are rows of embeddings and of classifiers, and the columns of one-hot labels, which must come last in what
    they are appended to, as `LabelInput` does it.

    Returns:
        The entries by the name of the tensor; None for a network that cannot be built again, such as one whose class is
        defined within a function.
    """
    if getattr(network, "unserializable", True):
        return None
    larger = {**network.init_args, "num_classes": network.num_classes + 1}
    description = {"class_path": class_path(type(network)), "init_args": larger}
    with torch.random.fork_rng([]):  # initial weights are sampled
        try:
            other = build(description, Network, "the network").state_dict()
        except Exception:  # its class cannot be found, or refuses that number of classes
            return None
    found = {}
    for name, tensor in network.state_dict().items():
        if name in other and not is_lazy(tensor):
            sizes = zip(tensor.shape, other[name].shape, strict=True)
            differing = [(dim, more - size) for dim, (size, more) in enumerate(sizes) if more != size]
            if len(differing) == 1:
                found[name] = ClassEntries(*differing[0])
    return found


@torch.no_grad()
def transfer_weights(
    network: Network, weights: Mapping[str, Tensor], their_classes: Sequence[str], classes: Sequence[str]
) -> Transfer:
    """Sets the tensors of a network for which there are weights that fit, by name and shape.

    Entries of a class are those of the class with the same name; a class with a new name gets the mean of all classes.

    Args:
        network: The network, for `classes`.
        weights: Those of a network for `their_classes`.
        their_classes: The names of the classes that the weights are for.
        classes: The names of the classes of the network.
    """
    network = original_of(network) or network  # type: ignore[assignment] # of `torch.compile(network)`
    weights = {name.removeprefix(f"{WRAPPED}."): value for name, value in weights.items()}
    entries = find_class_entries(network)
    places = [their_classes.index(name) if name in their_classes else None for name in classes]
    taken, left = [], {}
    for name, tensor in network.state_dict().items():
        found, is_vector = (entries or {}).get(name), name.endswith(VECTORS_OF_SPECTRAL_NORM)
        if name not in weights:
            left[name] = "not there"
        elif is_lazy(tensor):
            left[name] = "without a shape before the first step"
        elif found is not None and found.dim == 0 and not is_vector and len(tensor) != found.width * len(classes):
            left[name] = "with rows of something else than classes"
        else:
            fitted = _fitted(weights[name], found, places, len(their_classes))
            if fitted is None or fitted.shape != tensor.shape:
                left[name] = f"{_shape(weights[name])} there, {_shape(tensor)} here"
                continue
            # Vectors of length 1, of which entries may have been left out.
            tensor.copy_(normalize(fitted, dim=0) if is_vector and found is not None else fitted)
            taken.append(name)
    return Transfer(taken, left, None if entries is None else set(entries))


def _fitted(weights: Tensor, entries: ClassEntries | None, places: list[int | None], count: int) -> Tensor | None:
    """Reorders the entries of the classes; returns None if there are fewer entries."""
    if entries is None:
        return weights
    dim, width = entries
    others = weights.shape[dim] - width * count if dim < weights.ndim else -1
    if others < 0:
        return None
    shared, of_classes = weights.split([others, width * count], dim)
    each = of_classes.chunk(count, dim)
    mean = torch.stack(each).double().mean(0).to(weights.dtype)
    return torch.cat([shared, *(mean if place is None else each[place] for place in places)], dim)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
