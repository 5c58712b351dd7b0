"""ResNet generator and discriminator of the projection-discriminator papers, for small images.

After Miyato et al. 2018 (arXiv:1802.05957, table 4) and Miyato & Koyama 2018 (arXiv:1802.05637), with fewer channels
and blocks, and optional spectral normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import ImageSize, size_text
from lightning_cgan.networks.base import Generator, apply_spectral_norm, base_resolution, to_channels_last
from lightning_cgan.networks.conditioning import ConditionalBatchNorm2d, ConditionalDiscriminator, Conditioning


class ResNetGenerator(Generator):
    """Latents to a small map, residual blocks with conditional batch normalisation that double its size, tanh.

    Height and width of the image must be multiples of 2 to the power of the number of blocks, which is one less than
    the number of `channels`. The label enters only through the normalisation.

    Examples:
        >>> generator = ResNetGenerator(num_classes=10, image_channels=1, image_size=28)
        >>> generator(torch.randn(4, 128), torch.arange(4)).shape
        torch.Size([4, 1, 28, 28])

    Args:
        channels: The channels of the first map and of each block's output.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        latent_dim: int = 128,
        channels: Sequence[int] = (128, 64, 32),
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim)
        self.first_size = base_resolution(self, 2 ** (len(channels) - 1))
        self.first_channels = channels[0]
        self.project = nn.Linear(latent_dim, channels[0] * math.prod(self.first_size))
        self.blocks = nn.ModuleList(_UpBlock(*widths, num_classes) for widths in pairwise(channels))
        self.norm = nn.BatchNorm2d(channels[-1])
        self.to_image = nn.Conv2d(channels[-1], image_channels, 3, padding=1)
        to_channels_last(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generates images, shape (N, C, H, W), in [-1, 1]."""
        x = self.project(latents).unflatten(1, (*self.first_size, self.first_channels)).movedim(-1, 1)
        for block in self.blocks:
            x = block(x, labels)  # (N, channels, 2h, 2w)
        return torch.tanh(self.to_image(relu(self.norm(x))))  # (N, C, H, W)


class ResNetDiscriminator(ConditionalDiscriminator):
    """Residual blocks that halve the image, a sum over positions, one logit; no normalisation.

    Height and width of the image must be at least 2 to the power of one less than the number of `channels`, so that it
    can be halved.

    Examples:
        >>> discriminator = ResNetDiscriminator(num_classes=10, image_channels=1, image_size=28)
        >>> discriminator(torch.zeros(4, 1, 28, 28), torch.arange(4)).shape
        torch.Size([4])

    Args:
        channels: The channels of each block's output. All blocks but the last halve the size.
        spectral_norm: Whether to divide every weight by its largest singular value.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        channels: Sequence[int] = (32, 64, 128),
        conditioning: Conditioning = "projection",
        label_embedding: int | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, conditioning, label_embedding)
        smallest = 2 ** (len(channels) - 1)
        if min(self.image_shape[1:]) < smallest:
            raise UsageError(
                f"image_size: ResNetDiscriminator with {len(channels)} channels takes images of at least {smallest} "
                f"pixels, got {size_text(self.image_size)}; resize the data with --data.image_size {smallest}, or give "
                "fewer channels"
            )
        last = len(channels) - 1
        self.blocks = nn.Sequential(
            *(
                _DownBlock(*widths, activate=index > 0, halve=index < last)
                for index, widths in enumerate(pairwise([image_channels + self.label_channels, *channels]))
            )
        )
        self.add_head(channels[-1])
        if spectral_norm:
            apply_spectral_norm(self)
        to_channels_last(self)

    def features(self, images: Tensor) -> Tensor:
        """Turns images, with the label's maps if there are any, into features, shape (N, F)."""
        return relu(self.blocks(images)).sum((2, 3))


class _UpBlock(nn.Module):
    """(N, fan_in, H, W) -> (N, fan_out, 2H, 2W)."""

    def __init__(self, fan_in: int, fan_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm2d(fan_in, num_classes)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.norm2 = ConditionalBatchNorm2d(fan_out, num_classes)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        y: Tensor = self.conv1(interpolate(relu(self.norm1(x, labels)), scale_factor=2))
        y = self.conv2(relu(self.norm2(y, labels)))
        # A 1 x 1 convolution and nearest upsampling commute, and convolving the small map is cheaper.
        return y + interpolate(self.shortcut(x), scale_factor=2)


class _DownBlock(nn.Module):
    """(N, fan_in, H, W) -> (N, fan_out, H / 2, W / 2), or (N, fan_out, H, W) without halving."""

    def __init__(self, fan_in: int, fan_out: int, activate: bool, halve: bool) -> None:
        super().__init__()
        self.activate = activate  # false in the first block: a ReLU would discard negative pixels
        self.halve = halve
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(relu(self.conv1(relu(x) if self.activate else x)))
        if self.halve:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut
