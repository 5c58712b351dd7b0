"""The contracts of the two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_cgan.core.compat import is_batch_norm, is_compiled_alone
from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.serialization import ConfigMixin


class Network(ConfigMixin, nn.Module):
    """What both networks know of the data.

    Args:
        num_classes: The number of classes; labels are whole numbers from 0 to one less.
        image_channels: 1 for gray, 3 for colour.
        image_size: Height and width of the square images, in pixels.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.image_channels = image_channels
        self.image_size = image_size


class Generator(Network):
    """Makes images: (latents (N, latent_dim), labels (N,) int64) -> images (N, C, H, W) in [-1, 1].

    Args:
        num_classes: The number of classes.
        image_channels: 1 for gray, 3 for colour.
        image_size: Height and width of the images, in pixels.
        latent_dim: The number of latents of an image.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: int, latent_dim: int) -> None:
        super().__init__(num_classes, image_channels, image_size)
        self.latent_dim = latent_dim

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Makes one image of each row of latents."""
        raise TypeError(f"{type(self).__name__} must define forward(latents, labels)")


class DiscriminatorOutput(NamedTuple):
    """What a discriminator says of images.

    Attributes:
        logits: How real each is as one of its label, shape (N,), without a sigmoid.
        class_logits: Of which class it seems to be, shape (N, num_classes), without a softmax; none if the
            discriminator does not say.
    """

    logits: Tensor
    class_logits: Tensor | None = None


class Discriminator(Network):
    """Judges images: (images (N, C, H, W) in [-1, 1], labels (N,) int64) -> logits (N,), without a sigmoid.

    One with an auxiliary classifier returns a `DiscriminatorOutput` instead, and says so by `classifies`.

    Attributes:
        classifies: Whether it has an auxiliary classifier.
    """

    classifies: bool = False

    def forward(self, images: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Says how real each image is as one of its label."""
        raise TypeError(f"{type(self).__name__} must define forward(images, labels)")


def discriminate(discriminator: Discriminator, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
    """Asks a discriminator, whichever of the two it returns; half precision becomes float32, for losses to add up."""
    said: Tensor | DiscriminatorOutput = discriminator(images, labels)
    if isinstance(said, Tensor):
        return DiscriminatorOutput(at_least_float32(said))
    return DiscriminatorOutput(*(part if part is None else at_least_float32(part) for part in said))  # type: ignore[arg-type]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Turns half precision to float32, and leaves higher ones as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def apply_spectral_norm(network: nn.Module) -> None:
    """Divides every weight by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, section 2.1).

    The value is estimated by one step of power iteration in each pass in training mode.
    """
    for module in list(network.modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            parametrizations.spectral_norm(module)


def to_channels_last(network: nn.Module) -> None:
    """Lays convolutions out as a CPU, and a GPU in half precision, compute them fastest: `torch.channels_last`.

    The features follow the weights. Where there is one input channel both orders are the same to PyTorch, which then
    takes the other one for what comes out; so these weights get the strides of the wanted order outright.
    """
    network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        if parameter.ndim == 4 and parameter.shape[1] == 1:
            height, width = parameter.shape[2:]
            parameter.data = parameter.data.as_strided(parameter.shape, (height * width, 1, width, 1))


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether a network's output for one image depends on the others in the batch, through batch normalisation."""
    return any(map(is_batch_norm, network.modules()))


def is_compiled(network: nn.Module) -> bool:
    """Whether `torch.compile` has a part in a network: in place, around it, or as its own forward pass."""
    return any(is_compiled_alone(module) or "forward" in vars(module) for module in network.modules())


def base_resolution(image_size: int, factor: int, network: Network) -> int:
    """The size of the smallest feature map of a generator that magnifies it to the image.

    Args:
        image_size: The size of the image, in pixels.
        factor: By how much the network magnifies.
        network: The network, named in the error.

    Raises:
        UsageError: No whole number of pixels leads to that size.
    """
    size, rest = divmod(image_size, factor)
    if rest or size == 0:
        lower, higher = size * factor, (size + 1) * factor
        remedy = f"{lower} or {higher}" if lower else f"{higher}"
        raise UsageError(
            f"image_size: {type(network).__name__} with these settings makes images whose size is a multiple of "
            f"{factor}, got {image_size}; resize the data with --data.image_size {remedy}, or choose another network"
        )
    return size


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Lets gradients flow through a network, but not into it."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_agreement(name: str, network: Any, other_name: str, other: Any) -> None:
    """Compares what two parties know of the data; a party that does not say agrees with everyone."""
    for attribute in ("num_classes", "image_channels", "image_size"):
        expected, got = getattr(other, attribute, None), getattr(network, attribute)
        if expected is not None and expected != got:
            raise UsageError(
                f"{name}.{attribute}: expected {expected}, as the {other_name} has, got {got}; "
                f"build both with the same {attribute}"
            )


def check_same_shapes(module: nn.Module, saved: Mapping[str, Tensor], strict: bool = True) -> None:
    """Compares a module with weights that were saved of one.

    Args:
        module: The module.
        saved: Weights by their names.
        strict: Whether names that only one of them has are a difference.

    Raises:
        UsageError: They differ; the message names the first difference.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    saved_shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    for name in sorted(shapes.keys() | saved_shapes.keys() if strict else shapes.keys() & saved_shapes.keys()):
        if shapes.get(name) != saved_shapes.get(name):
            raise UsageError(
                f"the checkpoint: expected {name} of shape {shapes.get(name)}, as this model has, got "
                f"{saved_shapes.get(name)}; give the config that it was trained with"
            )
