"""How a label enters a network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

Conditioning = Literal["concatenation", "projection"]


def concatenate_label(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Appends the one-hot label to vectors, or as constant maps to images (Mirza & Osindero 2014, arXiv:1411.1784).

    Args:
        features: Shape (N, F) or (N, C, H, W).
        labels: Shape (N,), from 0 to `num_classes` - 1.
        num_classes: The number of classes.

    Returns:
        Shape (N, F + num_classes) or (N, C + num_classes, H, W).
    """
    code = one_hot(labels, num_classes).to(features.dtype)
    if features.ndim == 4:
        code = code[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return torch.cat([features, code], dim=1)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation with a scale and a shift for each class (Dumoulin et al. 2017, arXiv:1610.07629, equation 5).

    Args:
        num_features: The number of channels.
        num_classes: The number of classes.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        # A BatchNorm2d of its own, so that tools that look for one, such as SyncBatchNorm's conversion, find it.
        self.normalize = nn.BatchNorm2d(num_features, affine=False)
        self.scale = nn.Embedding(num_classes, num_features)
        self.shift = nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Normalises features, shape (N, C, H, W), and scales them as their labels, shape (N,), say."""
        scale = self.scale(labels)[:, :, None, None]
        return torch.addcmul(self.shift(labels)[:, :, None, None], self.normalize(features), scale)


class PlainBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that is handed the labels too, and leaves them aside."""

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Normalises features, shape (N, C, H, W)."""
        return super().forward(features)


def batch_norm(num_features: int, num_classes: int, conditional: bool) -> nn.Module:
    """Batch normalisation, called with features and labels."""
    return ConditionalBatchNorm2d(num_features, num_classes) if conditional else PlainBatchNorm2d(num_features)


class LogitHead(nn.Module):
    """The last layer of a discriminator: features (N, F) and labels (N,) -> logits (N,).

    With projection, the logit is w · f + b + e(y) · f, where e embeds the label (Miyato & Koyama 2018,
    arXiv:1802.05637, equation 4). Without, it is w · f + b, and the label must have entered before.

    Args:
        num_features: The number of features.
        num_classes: The number of classes.
        conditioning: Whether the label enters here, by projection.
    """

    def __init__(self, num_features: int, num_classes: int, conditioning: Conditioning) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.embedding: nn.Embedding | None = None
        if conditioning == "projection":
            self.embedding = nn.Embedding(num_classes, num_features)
            # The scale of the linear layer's own weights, so that neither term drowns the other at the start.
            nn.init.normal_(self.embedding.weight, std=(3 * num_features) ** -0.5)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Turns features to logits."""
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is not None:
            logits = logits + (self.embedding(labels) * features).sum(1)
        return logits
