"""Base classes of generators and discriminators, and helpers that work on any network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from lightning_cgan.core.compat import is_batch_norm, is_compiled_alone
from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import ImageSize, height_and_width, image_shape_of, image_size_of, size_text
from lightning_cgan.core.serialization import ConfigMixin
from lightning_cgan.networks.modes import in_evaluation_mode


class Network(ConfigMixin, nn.Module):
    """What generators and discriminators know about the data.

    Args:
        num_classes: The number of classes; labels run from 0 to `num_classes` - 1.
        image_channels: 1 for gray, 3 for colour, or any other number.
        image_size: The side of square images, in pixels, or height and width.

    Attributes:
        image_size: One number for square images, else height and width.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: ImageSize) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.image_channels = image_channels
        self.image_size: ImageSize = image_size_of(*height_and_width(image_size))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return image_shape_of(self.image_channels, self.image_size)


class Generator(Network):
    """Base class of generators: (latents (N, latent_dim), labels (N,) int64) -> images (N, C, H, W) in [-1, 1].

    Examples:
        >>> import math
        >>> class Linear(Generator):
        ...     def __init__(self, num_classes, image_channels, image_size):
        ...         super().__init__(num_classes, image_channels, image_size, latent_dim=16)
        ...         self.pixels = torch.nn.Linear(16 + num_classes, math.prod(self.image_shape))
        ...     def forward(self, latents, labels):
        ...         one_hot = torch.nn.functional.one_hot(labels, self.num_classes)
        ...         pixels = self.pixels(torch.cat([latents, one_hot], dim=1)).tanh()
        ...         return pixels.unflatten(1, self.image_shape)
        >>> Linear(10, 1, 8)(torch.randn(4, 16), torch.arange(4)).shape
        torch.Size([4, 1, 8, 8])

    Args:
        latent_dim: The number of latents per image.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: ImageSize, latent_dim: int) -> None:
        super().__init__(num_classes, image_channels, image_size)
        self.latent_dim = latent_dim

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generates one image per row of latents."""
        raise TypeError(f"{type(self).__name__} must define forward(latents, labels)")


class DiscriminatorOutput(NamedTuple):
    """The output of a discriminator that may have an auxiliary classifier.

    Examples:
        >>> discriminator = MLPDiscriminator(10, 1, 8, conditioning="classifier")
        >>> output = discriminate(discriminator, torch.zeros(4, 1, 8, 8), torch.arange(4))
        >>> output.logits.shape, output.class_logits.shape
        (torch.Size([4]), torch.Size([4, 10]))

    Attributes:
        logits: How real each image is as one of its label, shape (N,), before the sigmoid.
        class_logits: Scores of the classes, shape (N, num_classes), before the softmax; none without a classifier.
    """

    logits: Tensor
    class_logits: Tensor | None = None


class Discriminator(Network):
    """Base class of discriminators: (images (N, C, H, W) in [-1, 1], labels (N,) int64) -> logits (N,).

    Logits are values before the sigmoid. A discriminator with an auxiliary classifier returns a `DiscriminatorOutput`
    instead, and sets `classifies`.

    Examples:
        >>> import math
        >>> class Linear(Discriminator):
        ...     def __init__(self, num_classes, image_channels, image_size):
        ...         super().__init__(num_classes, image_channels, image_size)
        ...         self.logits = torch.nn.Linear(math.prod(self.image_shape), num_classes)
        ...     def forward(self, images, labels):
        ...         return self.logits(images.flatten(1))[torch.arange(len(labels)), labels]
        >>> Linear(10, 1, 8)(torch.zeros(4, 1, 8, 8), torch.arange(4)).shape
        torch.Size([4])

    Attributes:
        classifies: Whether it has an auxiliary classifier.
    """

    classifies: bool = False

    def forward(self, images: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Scores how real each image is as one of its label."""
        raise TypeError(f"{type(self).__name__} must define forward(images, labels)")


def discriminate(discriminator: Discriminator, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
    """Calls a discriminator and returns a `DiscriminatorOutput` in any case, in float32 or better for the losses."""
    output: Tensor | DiscriminatorOutput = discriminator(images, labels)
    parts = (output,) if isinstance(output, Tensor) else output
    return DiscriminatorOutput(*(part if part is None else at_least_float32(part) for part in parts))  # type: ignore[arg-type]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Converts half precision to float32, and leaves higher precisions unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def apply_spectral_norm(network: nn.Module) -> None:
    """Divides every weight by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, section 2.1).

    The value is estimated by one step of power iteration per forward pass in training mode.
    """
    for module in list(network.modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            parametrizations.spectral_norm(module)


def to_channels_last(network: nn.Module) -> None:
    """Converts convolutions to `torch.channels_last`, the fastest layout on a CPU, and on a GPU in half precision.

    Feature maps take the layout of the weights. With one input channel both layouts look the same to PyTorch, which
    then outputs the other one; so the strides of such weights are set explicitly.
    """
    network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        if parameter.ndim == 4 and parameter.shape[1] == 1:
            height, width = parameter.shape[2:]
            parameter.data = parameter.data.as_strided(parameter.shape, (height * width, 1, width, 1))


def freeze_layers(name: str, discriminator: Discriminator, count: int) -> None:
    """Lets the first layers of a discriminator, in the order in which images pass them, keep their weights.

    Layers are modules with weights of their own, except embeddings of labels.

    Raises:
        UsageError: There are fewer layers, or none would be left to train.
    """
    if count == 0:
        return
    layers = _layers_in_order(discriminator)
    if not isinstance(count, int) or not 0 < count < len(layers):
        raise UsageError(
            f"{name}: expected a whole number from 0 to {len(layers) - 1}, since {type(discriminator).__name__} has "
            f"{len(layers)} layers, got {count}; give one"
        )
    for layer in layers[:count]:
        layer.requires_grad_(False)


@torch.no_grad()
def _layers_in_order(discriminator: Discriminator) -> list[nn.Module]:
    """The layers with weights, as copies that share them, in the order in which a forward pass calls them."""
    network, called = in_evaluation_mode(discriminator), dict[nn.Module, None]()
    watched = [
        module.register_forward_pre_hook(lambda layer, _: called.setdefault(layer))
        for module in network.modules()
        if not isinstance(module, (nn.Embedding, ParametrizationList))
        and (is_parametrized(module) or any(True for _ in module.parameters(recurse=False)))
    ]
    weight = next(network.parameters())
    try:
        labels = torch.zeros(1, dtype=torch.int64, device=weight.device)
        network(weight.new_zeros(1, *network.image_shape), labels)
    finally:
        for hook in watched:
            hook.remove()
    return [layer for layer in called if layer is not network]


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether a network's output for one image depends on the rest of the batch, through batch normalisation."""
    return any(map(is_batch_norm, network.modules()))


def is_compiled(network: nn.Module) -> bool:
    """Whether `torch.compile` was applied to any part of a network: in place, as a wrapper, or to its forward."""
    return any(is_compiled_alone(module) or "forward" in vars(module) for module in network.modules())


def base_resolution(network: Network, factor: int) -> tuple[int, int]:
    """Height and width of a network's smallest map; raises `UsageError` if the image's are not multiples of a factor.

    The `factor` is that by which the image is higher and wider than the map.
    """
    sides = height_and_width(network.image_size)
    if any(side % factor for side in sides):
        nearest = [[(side + more) // factor * factor for side in sides] for more in (0, factor - 1)]
        remedies = " or ".join(size_text(image_size_of(*size)) for size in nearest if min(size) > 0)
        raise UsageError(
            f"image_size: {type(network).__name__} with these settings makes images whose size is a multiple of "
            f"{factor}, got {size_text(network.image_size)}; resize the data with --data.image_size "
            f"{remedies}, or choose another network"
        )
    height, width = sides
    return height // factor, width // factor


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Lets gradients flow through a network, but not into its parameters."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_has_weights(name: str, network: nn.Module) -> None:
    """Raises `UsageError` for a network without weights, as the base classes are."""
    if not any(True for _ in network.parameters()):
        raise UsageError(
            f"{name}: expected a network with weights, got {type(network).__name__}, which has none; name another, "
            f"such as MLP{name.capitalize()}"
        )


def check_agreement(name: str, network: Any, other_name: str, other: Any) -> None:
    """Compares the data attributes of two objects, except those that the other object lacks."""
    for attribute in ("num_classes", "image_channels", "image_size"):
        expected, got = getattr(other, attribute, None), getattr(network, attribute)
        if expected is not None and expected != got:
            if attribute == "image_size":
                expected, got = size_text(expected), size_text(got)
            raise UsageError(
                f"{name}.{attribute}: expected {expected}, as the {other_name} has, got {got}; "
                f"build both with the same {attribute}"
            )


def check_same_shapes(module: nn.Module, saved: Mapping[str, Tensor], strict: bool = True) -> None:
    """Raises `UsageError` if weights differ from saved ones in shape, or, if `strict`, in name."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    saved_shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    for name in sorted(shapes.keys() | saved_shapes.keys() if strict else shapes.keys() & saved_shapes.keys()):
        if shapes.get(name) != saved_shapes.get(name):
            raise UsageError(
                f"the checkpoint: expected {name} of shape {shapes.get(name)}, as this model has, got "
                f"{saved_shapes.get(name)}; give the config that it was trained with"
            )
