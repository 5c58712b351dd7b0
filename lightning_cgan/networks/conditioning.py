"""How a label enters a network."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.networks.base import Discriminator, DiscriminatorOutput

Conditioning = Literal["concatenation", "projection", "classifier", "projection_classifier"]
WITH_PROJECTION: tuple[Conditioning, ...] = ("projection", "projection_classifier")
WITH_CLASSIFIER: tuple[Conditioning, ...] = ("classifier", "projection_classifier")


def look_up(embedding: nn.Embedding, labels: Tensor) -> Tensor:
    """The rows of an embedding for labels (N,), or their means for mixtures of classes (N, num_classes)."""
    rows: Tensor = embedding(labels) if labels.ndim == 1 else labels.to(embedding.weight.dtype) @ embedding.weight
    return rows


class LabelInput(nn.Module):
    """Appends the label to features: its one-hot code (Mirza & Osindero 2014, arXiv:1411.1784), or an embedding.

    Args:
        num_classes: The number of classes.
        embedding_dim: The width of a learned embedding; the one-hot code is appended if not given.

    Attributes:
        width: How much wider features become.
    """

    def __init__(self, num_classes: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        check_positive("label_embedding", embedding_dim)
        self.num_classes = num_classes
        self.width = embedding_dim or num_classes
        self.embedding = nn.Embedding(num_classes, embedding_dim) if embedding_dim else None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Appends to vectors (N, F), or as constant maps to images (N, C, H, W), the labels (N,).

        Here and in what follows, labels (N, num_classes) are mixtures of classes.
        """
        code = self._one_hot(labels) if self.embedding is None else look_up(self.embedding, labels)
        code = code.to(features.dtype)
        if features.ndim == 4:
            code = code[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return torch.cat([features, code], dim=1)

    def _one_hot(self, labels: Tensor) -> Tensor:
        if labels.ndim == 2:
            return labels
        # PyTorch's own looks for labels out of range, which waits for the device.
        return labels[:, None] == torch.arange(self.num_classes, device=labels.device)


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
        normalized: Tensor = self.normalize(features)
        # In the precision of the features, or half precision would turn to float32 here and back at the next layer.
        scale = look_up(self.scale, labels).to(normalized.dtype)[:, :, None, None]
        shift = look_up(self.shift, labels).to(normalized.dtype)[:, :, None, None]
        return torch.addcmul(shift, normalized, scale)


def batch_norm(num_features: int, num_classes: int, conditional: bool) -> nn.Module:
    """Batch normalisation of one kind or the other; call it by `normalize`."""
    return ConditionalBatchNorm2d(num_features, num_classes) if conditional else nn.BatchNorm2d(num_features)


def normalize(norm: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Calls batch normalisation with the labels if it looks at them.

    A subclass that takes them and leaves them aside would be converted by `sync_batchnorm` to a class that does not.
    """
    normalized: Tensor = norm(features, labels) if isinstance(norm, ConditionalBatchNorm2d) else norm(features)
    return normalized


class LogitHead(nn.Module):
    """The last layer of a discriminator: features (N, F) and labels (N,) -> logits (N,).

    With projection, the logit is w · f + b + e(y) · f, where e embeds the label (Miyato & Koyama 2018,
    arXiv:1802.05637, equation 4). With a classifier, it is w · f + b, and a second layer names the class (Odena et al.
    2017, arXiv:1610.09585). With both, the projection and the second layer stand side by side. Otherwise the label must
    have entered before.

    Args:
        num_features: The number of features.
        num_classes: The number of classes.
        conditioning: How the label enters.
    """

    def __init__(self, num_features: int, num_classes: int, conditioning: Conditioning) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.embedding: nn.Embedding | None = None
        self.classes: nn.Linear | None = None
        if conditioning in WITH_PROJECTION:
            self.embedding = nn.Embedding(num_classes, num_features)
            # The scale of the linear layer's own weights, so that neither term drowns the other at the start.
            nn.init.normal_(self.embedding.weight, std=(3 * num_features) ** -0.5)
        if conditioning in WITH_CLASSIFIER:
            self.classes = nn.Linear(num_features, num_classes)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Turns features to logits, or to a `DiscriminatorOutput` with a classifier."""
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is not None:
            logits = logits + (look_up(self.embedding, labels) * features).sum(1)
        return logits if self.classes is None else DiscriminatorOutput(logits, self.classes(features))


class ConditionalDiscriminator(Discriminator):
    """Turns images to features, and these to a logit.

    A subclass builds its layers for `label_channels` more channels than the images have, ends its `__init__` with
    `add_head`, and defines `features`.

    Args:
        num_classes: The number of classes.
        image_channels: 1 for gray, 3 for colour.
        image_size: Height and width of the images, in pixels.
        conditioning: How the label enters: beside the image (`concatenation`), by `projection` on the features at the
            end, or not at all, while a `classifier` names it; `projection_classifier` does both (give the module an
            `AuxiliaryClassifier` with a classifier).
        label_embedding: With concatenation, the width of a learned embedding in place of the one-hot code.

    Attributes:
        label_channels: How many channels the label adds to the image.

    Raises:
        UsageError: An embedding is asked for that the conditioning has no use for.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: int,
        conditioning: Conditioning,
        label_embedding: int | None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size)
        self.conditioning = conditioning
        self.classifies = conditioning in WITH_CLASSIFIER
        if label_embedding is not None and conditioning != "concatenation":
            raise UsageError(
                f"label_embedding: expected none with conditioning {conditioning}, got {label_embedding}; leave it "
                "out, or choose conditioning concatenation"
            )
        self.label_input = LabelInput(num_classes, label_embedding) if conditioning == "concatenation" else None
        self.label_channels = self.label_input.width if self.label_input is not None else 0

    def add_head(self, num_features: int) -> None:
        """Adds the last layer behind so many features."""
        self.head = LogitHead(num_features, self.num_classes, self.conditioning)

    def prepare(self, images: Tensor) -> Tensor:
        """Brings images in [-1, 1] into the form that the layers take."""
        return images

    def features(self, images: Tensor) -> Tensor:
        """Turns prepared images, with the label's channels if there are any, to features, shape (N, F)."""
        raise TypeError(f"{type(self).__name__} must define features(images)")

    def forward(self, images: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Turns images in [-1, 1] to logits, shape (N,), or to a `DiscriminatorOutput` with a classifier."""
        x = self.prepare(images)
        if self.label_input is not None:
            x = self.label_input(x, labels)
        return cast("Tensor | DiscriminatorOutput", self.head(self.features(x), labels))
