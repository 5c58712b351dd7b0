"""What one update of each network minimises: the loss, the auxiliary classifier's term, the penalties that are due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import Discriminator, Judgement, judge
from lightning_cgan.objectives.inputs import Round
from lightning_cgan.objectives.losses import AdversarialLoss, AuxiliaryClassifier
from lightning_cgan.objectives.penalties import GradientPenalty

Means = dict[str, Tensor]
Penalties = tuple[GradientPenalty, ...]


class Objectives:
    """The two objectives of a run, as functions of the networks and of a round.

    Each returns what to minimise, and the scalars to log, by name.

    Args:
        loss: What the two minimise.
        penalties: What is added for the discriminator.
        auxiliary_classifier: What is added for both, with a discriminator that names classes.
        joint_pass: Whether real and generated images go through the discriminator in one pass. It must not have batch
            statistics then: those of the two must not mix.
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

    def due(self, step: int) -> Penalties:
        """The penalties that are computed in an alternation."""
        return tuple(penalty for penalty in self.penalties if step % penalty.interval == 0)

    def of_discriminator(
        self, discriminator: Discriminator, dealt: Round, fake: Tensor, due: Penalties
    ) -> tuple[Tensor, Means]:
        """The discriminator's objective on a round, given its generated images, detached from the generator."""
        real, labels, fake_labels = dealt.real, dealt.labels, dealt.fake_labels
        judged_real, judged_fake = self._judge_both(discriminator, real, labels, fake, fake_labels)
        objective = loss = self.loss.discriminator(judged_real.logits, judged_fake.logits)
        means = {
            "discriminator_loss": loss,
            "real_logits": judged_real.logits.mean(),
            "fake_logits": judged_fake.logits.mean(),
        }
        if self.auxiliary_classifier is not None:
            real_classes, fake_classes = cast(Tensor, judged_real.class_logits), cast(Tensor, judged_fake.class_logits)
            term = self.auxiliary_classifier.discriminator(real_classes, labels, fake_classes, fake_labels)
            objective = objective + term
            means["discriminator_class_loss"] = term
        for penalty in due:
            places = dealt.places[:, 0] if penalty.needs_places else None
            objective = objective + penalty.interval * penalty(discriminator, real, fake, labels, fake_labels, places)
        return objective, means

    def of_generator(self, discriminator: Discriminator, dealt: Round, fake: Tensor) -> tuple[Tensor, Means]:
        """The generator's objective on a round, given its generated images."""
        real_logits = None
        if self.loss.needs_real_logits:
            with torch.no_grad():
                real_logits = judge(discriminator, dealt.real, dealt.labels).logits
        judged = judge(discriminator, fake, dealt.fake_labels)
        objective = loss = self.loss.generator(judged.logits, real_logits)
        means = {"generator_loss": loss}
        if self.auxiliary_classifier is not None:
            term = self.auxiliary_classifier.generator(cast(Tensor, judged.class_logits), dealt.fake_labels)
            objective = objective + term
            means["generator_class_loss"] = term
        return objective, means

    def _judge_both(
        self, discriminator: Discriminator, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> tuple[Judgement, Judgement]:
        """What the discriminator says of real and of generated images."""
        if not self.joint_pass:
            return judge(discriminator, real, labels), judge(discriminator, fake, fake_labels)
        # In the precision of the generated images: the discriminator's first layer would round the real ones likewise.
        both = torch.cat([real.to(fake.dtype), fake]), torch.cat([labels, fake_labels])
        logits, class_logits = judge(discriminator, *both)
        halves = (None, None) if class_logits is None else class_logits.split(len(real))
        return tuple(map(Judgement, logits.split(len(real)), halves))  # type: ignore[return-value]


def check_classifier(discriminator: Discriminator, auxiliary_classifier: AuxiliaryClassifier | None) -> None:
    """Refuses a discriminator that names classes which no loss looks at, and the reverse.

    Raises:
        UsageError: The two do not fit together.
    """
    if discriminator.classifies and auxiliary_classifier is None:
        raise UsageError(
            "auxiliary_classifier: expected an AuxiliaryClassifier, since the discriminator names classes, got none; "
            "give one, or build the discriminator with another conditioning"
        )
    if auxiliary_classifier is not None and not discriminator.classifies:
        raise UsageError(
            "auxiliary_classifier: expected a discriminator that names classes, got one that does not; build it with "
            "conditioning classifier, or leave auxiliary_classifier out"
        )
