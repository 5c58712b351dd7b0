"""A small generator and discriminator after R3GAN (Huang et al. 2024, arXiv:2501.05441, section 3 and table 1).

They have no normalisation: residual blocks with grouped convolutions, each initialised to the identity. Intended for
`RelativisticPairing` with `R1` and `R2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import ImageSize
from lightning_cgan.networks.base import Generator, at_least_float32, base_resolution, to_channels_last
from lightning_cgan.networks.conditioning import ConditionalDiscriminator, Conditioning, LabelInput

_SLOPE = 0.2


class R3GANGenerator(Generator):
    """A learned map, scaled by latents and label, through stages of residual blocks that double its size.

    Height and width of the image must be multiples of 2 to the power of one less than the number of `channels`. The
    original's pixels are unbounded; here x / sqrt(1 + x²) keeps them in the range of the data. Tanh would too, but
    without normalisation before it, the first discriminator, which scores darker images higher, drives it into
    saturation, where it has no gradient.

    Examples:
        >>> generator = R3GANGenerator(num_classes=10, image_channels=1, image_size=28)
        >>> generator(torch.randn(4, 64), torch.arange(4)).shape
        torch.Size([4, 1, 28, 28])

    Args:
        channels: The channels of each stage, from the smallest map to the image.
        blocks: The number of residual blocks per stage.
        expansion: The factor by which a block is wider inside.
        group_width: The maximum number of channels per group of the 3 x 3 convolution.
        label_embedding: The width of a learned embedding of the label that replaces its one-hot code.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        latent_dim: int = 64,
        channels: Sequence[int] = (96, 48, 16),
        blocks: int = 1,
        expansion: int = 2,
        group_width: int = 16,
        label_embedding: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, latent_dim)
        size = base_resolution(self, 2 ** (len(channels) - 1))
        self.label_input = LabelInput(num_classes, label_embedding)
        self.basis = nn.Parameter(torch.randn(*size, channels[0]))
        self.modulate = nn.Linear(latent_dim + self.label_input.width, channels[0])
        self.stages = _stages(channels, blocks, expansion, group_width)
        self.transitions = _transitions(channels)
        self.to_image = nn.Conv2d(channels[-1], image_channels, 1)
        to_channels_last(self)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Generates images, shape (N, C, H, W), in [-1, 1]."""
        scales = self.modulate(self.label_input(latents, labels))  # (N, channels)
        x = self.stages[0]((self.basis * scales[:, None, None]).movedim(-1, 1))  # (N, channels, h, w)
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            # A 1 x 1 convolution and upsampling commute, and convolving the small map is cheaper.
            x = stage(interpolate(transition(x), scale_factor=2, mode="bilinear"))  # (N, channels, 2h, 2w)
        pixels = at_least_float32(self.to_image(x))  # (N, C, H, W); the square below overflows float16
        return pixels * (1 + pixels.square()).rsqrt()


class R3GANDiscriminator(ConditionalDiscriminator):
    """Mirrors the generator: stages of residual blocks that halve the image, a depthwise convolution, one logit.

    Height and width of the image must be multiples of 2 to the power of one less than the number of `channels`. There
    is no spectral normalisation: convolutions that start at zero have no norm to divide by.

    Examples:
        >>> discriminator = R3GANDiscriminator(num_classes=10, image_channels=1, image_size=28)
        >>> discriminator(torch.zeros(4, 1, 28, 28), torch.arange(4)).shape
        torch.Size([4])

    Args:
        channels: The channels of each stage, from the image to the smallest map.
        blocks: The number of residual blocks per stage.
        expansion: The factor by which a block is wider inside.
        group_width: The maximum number of channels per group of the 3 x 3 convolution.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        channels: Sequence[int] = (16, 48, 96),
        blocks: int = 1,
        expansion: int = 2,
        group_width: int = 16,
        conditioning: Conditioning = "projection",
        label_embedding: int | None = None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size, conditioning, label_embedding)
        size = base_resolution(self, 2 ** (len(channels) - 1))
        self.from_image = nn.Conv2d(image_channels + self.label_channels, channels[0], 1)
        self.stages = _stages(channels, blocks, expansion, group_width)
        self.transitions = _transitions(channels)
        self.basis = nn.Conv2d(channels[-1], channels[-1], size, groups=channels[-1])
        self.add_head(channels[-1])
        to_channels_last(self)

    def features(self, images: Tensor) -> Tensor:
        """Turns images, with the label's maps if there are any, into features, shape (N, F)."""
        x = self.stages[0](self.from_image(images))  # (N, channels, H, W)
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(transition(avg_pool2d(x, 2)))  # (N, channels, h / 2, w / 2), as bilinear at a factor of 2
        return self.basis(x).flatten(1)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """x + (1 x 1, leaky ReLU, grouped 3 x 3, leaky ReLU, 1 x 1), initialised to the identity.

    Fix-up initialisation (Zhang et al. 2019, arXiv:1901.09321): the last convolution is zero, and the m - 1 others are
    scaled by L ** (-1 / (2m - 2)), where a network has L blocks of m = 3 convolutions.
    """

    def __init__(self, width: int, inner: int, group_width: int, count: int) -> None:
        super().__init__()
        if inner % min(group_width, inner):
            raise UsageError(
                f"group_width: expected a divisor of channels times expansion ({inner}), got {group_width}; choose "
                "channels that are multiples of it"
            )
        self.conv1 = nn.Conv2d(width, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // min(group_width, inner))
        self.conv3 = nn.Conv2d(inner, width, 1)
        for convolution in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(convolution.weight, a=_SLOPE)
            convolution.weight.data *= count**-0.25
        nn.init.zeros_(self.conv3.weight)
        for convolution in (self.conv1, self.conv2, self.conv3):
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.conv1(x), _SLOPE)
        y = leaky_relu(self.conv2(y), _SLOPE)
        return x + self.conv3(y)  # type: ignore[no-any-return]


def _stages(channels: Sequence[int], blocks: int, expansion: int, group_width: int) -> nn.ModuleList:
    count = blocks * len(channels)
    return nn.ModuleList(
        nn.Sequential(*(_Block(width, width * expansion, group_width, count) for _ in range(blocks)))
        for width in channels
    )


def _transitions(channels: Sequence[int]) -> nn.ModuleList:
    """Builds 1 x 1 convolutions that change the width between stages, where it changes."""
    return nn.ModuleList(
        nn.Identity() if fan_in == fan_out else nn.Conv2d(fan_in, fan_out, 1, bias=False)
        for fan_in, fan_out in pairwise(channels)
    )
