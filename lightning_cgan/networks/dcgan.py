"""A conditional DCGAN: convolutional generator and discriminator (after Radford et al. 2016, arXiv:1511.06434)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import ImageSize, height_and_width
from lightning_cgan.networks.base import Generator, apply_spectral_norm, base_resolution, to_channels_last
from lightning_cgan.networks.conditioning import (
    ConditionalDiscriminator,
    Conditioning,
    LabelInput,
    batch_norm,
    normalize,
)


class DCGANGenerator(Generator):
    """Latents and label through a dense layer to a small map, then transposed convolutions to the image, tanh.

    Height and width of the image must be multiples of the product of the strides.

    Examples:
        >>> generator = DCGANGenerator(num_classes=10, image_channels=1, image_size=28)
        >>> generator(torch.randn(4, 100), torch.arange(4)).shape
        torch.Size([4, 1, 28, 28])

    Args:
        channels: The channels of the first map, and of the output of each transposed convolution but the last.
        strides: The upsampling factor of each transposed convolution: as many numbers as `channels`.
        kernel_size: The kernel of each transposed convolution; an even kernel is reduced by one where the stride is 1.
        negative_slope: The slope of the leaky ReLU for negative inputs; 0 makes it a ReLU.
        activate_first: Whether the activation is also applied to the first map, after batch normalisation.
        conditional_batch_norm: Whether batch normalisation has a scale and a shift for each class.
        label_embedding: The width of a learned embedding of the label that replaces its one-hot code.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        latent_dim: int = 100,
        channels: Sequence[int] = (128, 64),
        strides: Sequence[int] = (2, 2),
        kernel_size: int = 4,
        negative_slope: float = 0.0,
        activate_first: bool = True,
        conditional_batch_norm: bool = False,
        label_embedding: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim)
        if len(strides) != len(channels):
            raise UsageError(
                f"strides: expected as many as channels ({len(channels)}), got {len(strides)}; give one stride for each"
            )
        self.first_size = base_resolution(self, math.prod(strides))
        self.first_channels = channels[0]
        self.activate_first = activate_first
        self.label_input = LabelInput(num_classes, label_embedding)
        self.project = nn.Linear(latent_dim + self.label_input.width, channels[0] * math.prod(self.first_size))
        self.norms = nn.ModuleList(batch_norm(width, num_classes, conditional_batch_norm) for width in channels)
        self.convolutions = nn.ModuleList(
            _transposed_convolution(fan_in, fan_out, kernel_size, stride)
            for (fan_in, fan_out), stride in zip(pairwise([*channels, image_channels]), strides, strict=True)
        )
        self.activation = nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()
        to_channels_last(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generates images, shape (N, C, H, W), in [-1, 1]."""
        x = self.project(self.label_input(latents, labels))  # (N, h · w · width)
        x = x.unflatten(1, (*self.first_size, self.first_channels)).movedim(-1, 1)  # (N, width, h, w)
        x = normalize(self.norms[0], x, labels)
        if self.activate_first:
            x = self.activation(x)
        for convolution, norm in zip(self.convolutions[:-1], self.norms[1:], strict=True):
            x = self.activation(normalize(norm, convolution(x), labels))  # (N, width, stride · h, stride · w)
        return torch.tanh(self.convolutions[-1](x))  # (N, C, H, W)


class DCGANDiscriminator(ConditionalDiscriminator):
    """Convolutions of stride 2 with leaky ReLU, then one logit; no normalisation. Accepts images of any size.

    Examples:
        >>> discriminator = DCGANDiscriminator(num_classes=10, image_channels=1, image_size=28)
        >>> discriminator(torch.zeros(4, 1, 28, 28), torch.arange(4)).shape
        torch.Size([4])

    Args:
        channels: The channels of the output of each convolution.
        kernel_size: The kernel of each convolution.
        negative_slope: The slope of the leaky ReLU for negative inputs.
        dropout: The fraction of each convolution's outputs that is set to zero in training.
        hidden: The width of a dense layer between the convolutions and the logit, if there is one.
        spectral_norm: Whether to divide every weight by its largest singular value.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        channels: Sequence[int] = (64, 128),
        kernel_size: int = 4,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        hidden: int | None = None,
        conditioning: Conditioning = "projection",
        label_embedding: int | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, conditioning, label_embedding)
        layers: list[nn.Module] = []
        sides = list(height_and_width(image_size))
        for fan_in, fan_out in pairwise([image_channels + self.label_channels, *channels]):
            layers += [
                nn.Conv2d(fan_in, fan_out, kernel_size, stride=2, padding=(kernel_size - 1) // 2),
                nn.LeakyReLU(negative_slope),
                *([nn.Dropout(dropout)] if dropout else []),
            ]
            sides = [(side + 2 * ((kernel_size - 1) // 2) - kernel_size) // 2 + 1 for side in sides]
        self.convolutions = nn.Sequential(*layers)
        features = channels[-1] * math.prod(sides)
        self.dense = nn.Sequential()
        if hidden is not None:
            self.dense = nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(negative_slope))
            features = hidden
        self.add_head(features)
        if spectral_norm:
            apply_spectral_norm(self)
        to_channels_last(self)

    def features(self, images: Tensor) -> Tensor:
        """Turns images, with the label's maps if there are any, into features, shape (N, F)."""
        maps = self.convolutions(images)  # (N, width, h, w)
        # Channels last, as in memory: any other order copies, here and in each gradient.
        return self.dense(maps.movedim(1, -1).flatten(1))  # type: ignore[no-any-return]


def _transposed_convolution(fan_in: int, fan_out: int, kernel_size: int, stride: int) -> nn.ConvTranspose2d:
    """Builds a transposed convolution with "same" padding: it multiplies height and width by exactly `stride`."""
    if stride == 1 and kernel_size % 2 == 0:
        kernel_size -= 1  # an even kernel cannot keep the size
    padding = (kernel_size - stride + 1) // 2
    return nn.ConvTranspose2d(
        fan_in, fan_out, kernel_size, stride, padding, output_padding=stride + 2 * padding - kernel_size
    )
