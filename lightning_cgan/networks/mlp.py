"""The pair of fully connected networks of the first conditional GANs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_cgan.images import signed_from_unit, unit_from_signed
from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.networks.conditioning import concatenate_label


class MLPGenerator(Generator):
    """Latents and one-hot label through hidden layers to pixels behind a sigmoid (after Mirza & Osindero 2014).

    It makes square images of any size. Weights are drawn after He et al. 2015 (arXiv:1502.01852), normal with variance
    2 / fan-in; biases start at 0.

    Args:
        num_classes: The number of classes.
        image_channels: 1 for gray, 3 for colour.
        image_size: Height and width of the images, in pixels.
        latent_dim: The number of latents.
        hidden: The width of each hidden layer.
        batch_norm: Whether batch normalisation follows each hidden layer's ReLU.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: int,
        latent_dim: int = 100,
        hidden: Sequence[int] = (128,),
        batch_norm: bool = False,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim)
        widths = [latent_dim + num_classes, *hidden, image_channels * image_size**2]
        self.layers = nn.Sequential(*_layers(widths, batch_norm), nn.Sigmoid())

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Makes images, shape (N, C, H, W), in [-1, 1]."""
        pixels: Tensor = self.layers(concatenate_label(latents, labels, self.num_classes))
        images = signed_from_unit(pixels)  # inside, a sigmoid's [0, 1]
        return images.view(-1, self.image_channels, self.image_size, self.image_size)


class MLPDiscriminator(Discriminator):
    """Pixels and one-hot label through hidden layers with ReLU to one logit (after Mirza & Osindero 2014).

    It takes square images of any size. Weights are drawn after He et al. 2015 (arXiv:1502.01852), normal with variance
    2 / fan-in; biases start at 0.

    Args:
        num_classes: The number of classes.
        image_channels: 1 for gray, 3 for colour.
        image_size: Height and width of the images, in pixels.
        hidden: The width of each hidden layer.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: int, hidden: Sequence[int] = (128,)) -> None:
        super().__init__(num_classes, image_channels, image_size)
        widths = [image_channels * image_size**2 + num_classes, *hidden, 1]
        self.layers = nn.Sequential(*_layers(widths, batch_norm=False))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Turns images in [-1, 1] to logits, shape (N,)."""
        pixels = unit_from_signed(images).flatten(1)  # inside, [0, 1]
        logits: Tensor = self.layers(concatenate_label(pixels, labels, self.num_classes))
        return logits.squeeze(1)


def _layers(widths: Sequence[int], batch_norm: bool) -> list[nn.Module]:
    """Linear layers of these widths, with ReLU, and batch normalisation if wanted, after each but the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight)  # standard deviation 1 / sqrt(fan_in / 2)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(fan_out))
    return layers[: -2 if batch_norm else -1]
