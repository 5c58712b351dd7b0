"""The objective of each network's update: adversarial loss, auxiliary classifier and active penalties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import Discriminator, DiscriminatorOutput, discriminate
from lightning_cgan.objectives.inputs import UpdateInputs
from lightning_cgan.objectives.losses import AdversarialLoss, AuxiliaryClassifier
from lightning_cgan.objectives.penalties import GradientPenalty

Means = dict[str, Tensor]
Penalties = tuple[GradientPenalty, ...]


class Objectives:
    """The objectives of both networks, as functions of the networks and the inputs of an update.

    Each method returns the value to minimise and the scalars to log, by name.

    Examples:
        >>> objectives = Objectives(Hinge(), [R1(gamma=1.0, interval=16)], None, joint_pass=True)
        >>> len(objectives.active_penalties(step=32)), len(objectives.active_penalties(step=33))
        (1, 0)

    Args:
        loss: The adversarial loss.
        penalties: Penalties added to the discriminator's loss.
        auxiliary_classifier: Classification loss added to both networks' losses; needs a discriminator with a
            classifier.
        joint_pass: Whether real and generated images go through the discriminator in one pass. Requires a discriminator
            without batch statistics: those of real and generated images must not mix.
    """

    def __init__(
        self,
        loss: AdversarialLoss,
        penalties: Sequence[GradientPenalty],
        auxiliary_classifier: AuxiliaryClassifier | None,
        joint_pass: bool,
    ) -> None:
        self.loss = loss
        self.penalties = penalties
        self.auxiliary_classifier = auxiliary_classifier
        self.joint_pass = joint_pass

    def active_penalties(self, step: int) -> Penalties:
        """Returns the penalties that are computed in a step."""
        return tuple(penalty for penalty in self.penalties if step % penalty.interval == 0)

    def of_discriminator(
        self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor, penalties: Penalties
    ) -> tuple[Tensor, Means]:
        """Computes the discriminator's objective, given generated images detached from the generator."""
        real, labels, fake_labels = inputs.real, inputs.labels, inputs.fake_labels
        real_output, fake_output = self._discriminate_both(discriminator, real, labels, fake, fake_labels)
        objective = loss = self.loss.discriminator(real_output.logits, fake_output.logits)
        means = {
            "discriminator_loss": loss,
            "real_logits": real_output.logits.mean(),
            "fake_logits": fake_output.logits.mean(),
        }
        if self.auxiliary_classifier is not None:
            real_classes, fake_classes = cast(Tensor, real_output.class_logits), cast(Tensor, fake_output.class_logits)
            term = self.auxiliary_classifier.discriminator(real_classes, labels, fake_classes, fake_labels)
            objective = objective + term
            means["discriminator_class_loss"] = term
        for penalty in penalties:
            objective = objective + penalty.lazy(discriminator, inputs, fake)
        return objective, means

    def of_generator(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> tuple[Tensor, Means]:
        """Computes the generator's objective, given its generated images."""
        real_logits = None
        if self.loss.needs_real_logits:
            with torch.no_grad():
                real_logits = discriminate(discriminator, inputs.real, inputs.labels).logits
        output = discriminate(discriminator, fake, inputs.fake_labels)
        objective = loss = self.loss.generator(output.logits, real_logits)
        means = {"generator_loss": loss}
        if self.auxiliary_classifier is not None:
            term = self.auxiliary_classifier.generator(cast(Tensor, output.class_logits), inputs.fake_labels)
            objective = objective + term
            means["generator_class_loss"] = term
        return objective, means

    def _discriminate_both(
        self, discriminator: Discriminator, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Returns the outputs for real and for generated images."""
        if not self.joint_pass:
            return discriminate(discriminator, real, labels), discriminate(discriminator, fake, fake_labels)
        # The discriminator's first layer would round the real images to the generated ones' precision anyway.
        both = torch.cat([real.to(fake.dtype), fake]), torch.cat([labels, fake_labels])
        logits, class_logits = discriminate(discriminator, *both)
        halves = (None, None) if class_logits is None else class_logits.split(len(real))
        return tuple(map(DiscriminatorOutput, logits.split(len(real)), halves))  # type: ignore[return-value]


def check_classifier(discriminator: Discriminator, auxiliary_classifier: AuxiliaryClassifier | None) -> None:
    """Raises `UsageError` unless the discriminator has a classifier exactly when there is a loss for it."""
    if discriminator.classifies and auxiliary_classifier is None:
        raise UsageError(
            "auxiliary_classifier: expected an AuxiliaryClassifier, since the discriminator has a classifier, got "
            "none; give one, or build the discriminator with another conditioning"
        )
    if auxiliary_classifier is not None and not discriminator.classifies:
        raise UsageError(
            "auxiliary_classifier: expected a discriminator with a classifier, got one without; build it with "
            "conditioning classifier, or omit auxiliary_classifier"
        )
