"""Layers through which the class label enters a network."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.images import ImageSize
from lightning_cgan.networks.base import Discriminator, DiscriminatorOutput

Conditioning = Literal["concatenation", "projection", "classifier", "projection_classifier"]
WITH_PROJECTION: tuple[Conditioning, ...] = ("projection", "projection_classifier")
WITH_CLASSIFIER: tuple[Conditioning, ...] = ("classifier", "projection_classifier")


def look_up(embedding: nn.Embedding, labels: Tensor) -> Tensor:
    """Returns embedding rows for labels (N,), or their weighted means for mixtures of classes (N, num_classes)."""
    rows: Tensor = embedding(labels) if labels.ndim == 1 else labels.to(embedding.weight.dtype) @ embedding.weight
    return rows


class LabelInput(nn.Module):
    """Appends the label to features, as a one-hot code (Mirza & Osindero 2014, arXiv:1411.1784) or a learned embedding.

    Attributes:
        width: The number of features that the label adds.
    """

    def __init__(self, num_classes: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        check_positive("label_embedding", embedding_dim)
        self.num_classes = num_classes
        self.width = embedding_dim or num_classes
        self.embedding = nn.Embedding(num_classes, embedding_dim) if embedding_dim else None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Appends labels (N,) to vectors (N, F), or to images (N, C, H, W) as constant maps.

        Here and below, labels may also be mixtures of classes (N, num_classes).
        """
        code = self._one_hot(labels) if self.embedding is None else look_up(self.embedding, labels)
        code = code.to(features.dtype)
        if features.ndim == 4:
            code = code[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return torch.cat([features, code], dim=1)

    def _one_hot(self, labels: Tensor) -> Tensor:
        if labels.ndim == 2:
            return labels
        # Unlike `one_hot`, this does not check the range of labels, which would wait for the device.
        return labels[:, None] == torch.arange(self.num_classes, device=labels.device)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation with a scale and a shift per class (Dumoulin et al. 2017, arXiv:1610.07629, equation 5)."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        # A separate BatchNorm2d, so that tools that search for one, such as SyncBatchNorm's conversion, find it.
        self.normalize = nn.BatchNorm2d(num_features, affine=False)
        self.scale = nn.Embedding(num_classes, num_features)
        self.shift = nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Normalises features, shape (N, C, H, W), then scales and shifts them by their labels, shape (N,)."""
        normalized: Tensor = self.normalize(features)
        # In the precision of the features: half precision would otherwise become float32, until the next layer.
        scale = look_up(self.scale, labels).to(normalized.dtype)[:, :, None, None]
        shift = look_up(self.shift, labels).to(normalized.dtype)[:, :, None, None]
        return torch.addcmul(shift, normalized, scale)


def batch_norm(num_features: int, num_classes: int, conditional: bool) -> nn.Module:
    """Builds conditional or ordinary batch normalisation; call it through `normalize`."""
    return ConditionalBatchNorm2d(num_features, num_classes) if conditional else nn.BatchNorm2d(num_features)


def normalize(norm: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Calls batch normalisation, with the labels if it is conditional.

    A subclass of `BatchNorm2d` that ignores the labels would not do: `sync_batchnorm` would convert it to a class that
    does not accept them.
    """
    normalized: Tensor = norm(features, labels) if isinstance(norm, ConditionalBatchNorm2d) else norm(features)
    return normalized


class LogitHead(nn.Module):
    """The last layer of a discriminator: features (N, F) and labels (N,) -> logits (N,).

    With projection, the logit is w · f + b + e(y) · f, where e embeds the label (Miyato & Koyama 2018,
    arXiv:1802.05637, equation 4). With a classifier, it is w · f + b, and a second layer predicts the class (Odena et
    al. 2017, arXiv:1610.09585). `projection_classifier` has both. Otherwise the label must enter in an earlier layer.
    """

    def __init__(self, num_features: int, num_classes: int, conditioning: Conditioning) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.embedding: nn.Embedding | None = None
        self.classes: nn.Linear | None = None
        if conditioning in WITH_PROJECTION:
            self.embedding = nn.Embedding(num_classes, num_features)
            # The scale of the linear layer's weights, so that neither term dominates at the start.
            nn.init.normal_(self.embedding.weight, std=(3 * num_features) ** -0.5)
        if conditioning in WITH_CLASSIFIER:
            self.classes = nn.Linear(num_features, num_classes)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Turns features into logits, or into a `DiscriminatorOutput` with a classifier."""
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is not None:
            logits = logits + (look_up(self.embedding, labels) * features).sum(1)
        return logits if self.classes is None else DiscriminatorOutput(logits, self.classes(features))


class ConditionalDiscriminator(Discriminator):
    """Base class of the package's discriminators, which compute features and then a logit.

    A subclass builds layers for `label_channels` more channels than the images have, ends its `__init__` with
    `add_head`, and defines `features`.

    Examples:
        >>> class Small(ConditionalDiscriminator):
        ...     def __init__(self, num_classes, image_channels, image_size):
        ...         super().__init__(num_classes, image_channels, image_size, "projection", label_embedding=None)
        ...         self.convolution = torch.nn.Conv2d(image_channels + self.label_channels, 16, 4, stride=2)
        ...         self.add_head(16)
        ...     def features(self, images):
        ...         return self.convolution(images).relu().sum((2, 3))
        >>> Small(10, 1, 8)(torch.zeros(4, 1, 8, 8), torch.arange(4)).shape
        torch.Size([4])

    Args:
        conditioning: How the label enters: `concatenation` appends it to the image, `projection` multiplies the last
            features by its embedding; with `classifier` it does not enter, but is predicted; `projection_classifier`
            combines the last two. With a classifier, give the module an `AuxiliaryClassifier`.
        label_embedding: With concatenation, the width of a learned embedding that replaces the one-hot code.

    Attributes:
        label_channels: How many channels the label adds to the image.

    Raises:
        UsageError: An embedding is requested without concatenation.
    """

    def __init__(
        self,
        num_classes: int,
        image_channels: int,
        image_size: ImageSize,
        conditioning: Conditioning,
        label_embedding: int | None,
    ) -> None:
        super().__init__(num_classes, image_channels, image_size)
        self.conditioning = conditioning
        self.classifies = conditioning in WITH_CLASSIFIER
        if label_embedding is not None and conditioning != "concatenation":
            raise UsageError(
                f"label_embedding: expected none with conditioning {conditioning}, got {label_embedding}; omit it, or "
                "choose conditioning concatenation"
            )
        self.label_input = LabelInput(num_classes, label_embedding) if conditioning == "concatenation" else None
        self.label_channels = self.label_input.width if self.label_input is not None else 0

    def add_head(self, num_features: int) -> None:
        """Adds the last layer, after `num_features` features."""
        self.head = LogitHead(num_features, self.num_classes, self.conditioning)

    def prepare(self, images: Tensor) -> Tensor:
        """Converts images in [-1, 1] to the input of the layers."""
        return images

    def features(self, images: Tensor) -> Tensor:
        """Turns prepared images, with the label's channels if there are any, into features, shape (N, F)."""
        raise TypeError(f"{type(self).__name__} must define features(images)")

    def forward(self, images: Tensor, labels: Tensor) -> Tensor | DiscriminatorOutput:
        """Turns images in [-1, 1] into logits, shape (N,), or into a `DiscriminatorOutput` with a classifier."""
        x = self.prepare(images)
        if self.label_input is not None:
            x = self.label_input(x, labels)
        return cast("Tensor | DiscriminatorOutput", self.head(self.features(x), labels))
