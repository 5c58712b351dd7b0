"""Fully connected generator and discriminator, as in the first conditional GANs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_cgan.core.images import ImageSize, signed_from_unit, unit_from_signed
from lightning_cgan.networks.base import Generator, apply_spectral_norm
from lightning_cgan.networks.conditioning import ConditionalDiscriminator, Conditioning, LabelInput


class MLPGenerator(Generator):
    """Latents and label through hidden layers to pixels, with a sigmoid at the end (after Mirza & Osindero 2014).

    Generates images of any size. Weights are initialised after He et al. 2015 (arXiv:1502.01852), normal with
    variance 2 / fan-in; biases start at 0.

    Examples:
        >>> generator = MLPGenerator(num_classes=10, image_channels=1, image_size=28)
        >>> generator(torch.randn(4, 100), torch.arange(4)).shape
        torch.Size([4, 1, 28, 28])

    Args:
        hidden: The width of each hidden layer.
        batch_norm: Whether batch normalisation follows each hidden layer's ReLU.
        label_embedding: The width of a learned embedding of the label that replaces its one-hot code.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        latent_dim: int = 100,
        hidden: Sequence[int] = (128,),
        batch_norm: bool = False,
        label_embedding: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim)
        self.label_input = LabelInput(num_classes, label_embedding)
        widths = [latent_dim + self.label_input.width, *hidden]
        last = _initialized(nn.Linear(widths[-1], math.prod(self.image_shape)))
        self.layers = nn.Sequential(*_hidden_layers(widths, batch_norm), last, nn.Sigmoid())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generates images, shape (N, C, H, W), in [-1, 1]."""
        pixels: Tensor = self.layers(self.label_input(latents, labels))  # (N, C · H · W)
        images = signed_from_unit(pixels)  # from the sigmoid's [0, 1]
        return images.view(-1, *self.image_shape)  # (N, C, H, W)


class MLPDiscriminator(ConditionalDiscriminator):
    """Pixels and label through hidden layers with ReLU to one logit (after Mirza & Osindero 2014).

    Accepts images of any size. Weights are initialised after He et al. 2015 (arXiv:1502.01852), normal with
    variance 2 / fan-in; biases start at 0.

    Examples:
        >>> discriminator = MLPDiscriminator(num_classes=10, image_channels=1, image_size=28)
        >>> discriminator(torch.zeros(4, 1, 28, 28), torch.arange(4)).shape
        torch.Size([4])

    Args:
        hidden: The width of each hidden layer.
        spectral_norm: Whether to divide every weight by its largest singular value.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        hidden: Sequence[int] = (128,),
        conditioning: Conditioning = "concatenation",
        label_embedding: int | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, conditioning, label_embedding)
        widths = [math.prod(self.image_shape) + self.label_channels, *hidden]
        self.layers = nn.Sequential(*_hidden_layers(widths, batch_norm=False))
        self.add_head(widths[-1])
        _initialized(self.head.linear)
        if spectral_norm:
            apply_spectral_norm(self)

    def prepare(self, images: Tensor) -> Tensor:
        """Flattens images to rows of pixels, rescaled to [0, 1]."""
        return unit_from_signed(images).flatten(1)  # (N, C · H · W)

    def features(self, images: Tensor) -> Tensor:
        """Turns rows of pixels, with the label's code if there is one, into features, shape (N, F)."""
        return self.layers(images)  # type: ignore[no-any-return]


def _hidden_layers(widths: Sequence[int], batch_norm: bool) -> list[nn.Module]:
    """Builds linear layers of these widths, each followed by ReLU and, optionally, batch normalisation."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [_initialized(nn.Linear(fan_in, fan_out)), nn.ReLU()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(fan_out))
    return layers


def _initialized(linear: nn.Linear) -> nn.Linear:
    nn.init.kaiming_normal_(linear.weight)  # standard deviation 1 / sqrt(fan_in / 2)
    nn.init.zeros_(linear.bias)
    return linear
