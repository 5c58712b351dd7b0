"""What the package's discriminators have in common: how the label enters, and the logit at the end."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from lightning_cgan.errors import UsageError
from lightning_cgan.networks.base import Discriminator, Judgement
from lightning_cgan.networks.conditioning import WITH_CLASSIFIER, Conditioning, LabelInput, LogitHead


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

    def forward(self, images: Tensor, labels: Tensor) -> Tensor | Judgement:
        """Turns images in [-1, 1] to logits, shape (N,), or to a `Judgement` with a classifier."""
        x = self.prepare(images)
        if self.label_input is not None:
            x = self.label_input(x, labels)
        return cast("Tensor | Judgement", self.head(self.features(x), labels))
