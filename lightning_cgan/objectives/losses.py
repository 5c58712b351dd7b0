"""Adversarial losses and the auxiliary classifier's loss, as functions of logits.

With D(x|y) = sigmoid(logit), the game of a conditional GAN (Mirza & Osindero 2014, arXiv:1411.1784, equation 2, with
the label in both terms) is: minimum over G, maximum over D of E[log D(x|y)] + E[log(1 - D(G(z|y)|y))].
Each discriminator's loss is the *sum* of its real and its fake term, each a mean over the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import cross_entropy, relu, softplus

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.serialization import ConfigMixin


class AdversarialLoss(ConfigMixin, ABC):
    """Base class of adversarial losses: one scalar to minimise for each network.

    A custom loss is a subclass. Nothing has to be registered: `--model.loss my_module.MyLoss` names it, and a
    checkpoint finds it if its module has been imported.

    Examples:
        >>> class Critic(AdversarialLoss):
        ...     def discriminator(self, real_logits, fake_logits):
        ...         return (fake_logits - real_logits).mean()
        ...     def generator(self, fake_logits, real_logits=None):
        ...         return -fake_logits.mean()
        >>> Critic().discriminator(real_logits=torch.tensor([3.0]), fake_logits=torch.tensor([1.0]))
        tensor(-2.)

    Attributes:
        needs_real_logits: Whether the generator's loss uses the logits of real images too. Relativistic losses do; for
            the others that forward pass is saved.
        varying: The names of numeric attributes that may change in every step; in a step recorded as a graph they are
            tensors.
    """

    needs_real_logits: bool = False
    varying: tuple[str, ...] = ()

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a scalar; both logits have shape (N,)."""

    @abstractmethod
    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """The generator's loss, a scalar; both logits have shape (N,)."""


class NonSaturating(AdversarialLoss):
    """Cross-entropy for the discriminator, -log D for the generator.

    The generator's loss has the fixed point of the minimax game, and gradients even where the discriminator is certain
    (Goodfellow et al. 2014, arXiv:1406.2661, section 3).

    Examples:
        >>> NonSaturating().generator(torch.zeros(4))  # D = 1/2, so log 2
        tensor(0.6931)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-E[log D(x)] - E[log(1 - D(G(z)))]."""
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """-E[log D(G(z))]."""
        return softplus(-fake_logits).mean()


class Saturating(NonSaturating):
    """The minimax game as written: one network's gain is the other's loss (arXiv:1406.2661, equation 1).

    Examples:
        >>> Saturating().generator(torch.zeros(4))  # D = 1/2, so -log 2
        tensor(-0.6931)
    """

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """E[log(1 - D(G(z)))]."""
        return -softplus(fake_logits).mean()


class LeastSquares(AdversarialLoss):
    """Least squares with the targets 1 for real and 0 for fake (Mao et al. 2017, arXiv:1611.04076, equation 9).

    Examples:
        >>> LeastSquares().discriminator(torch.tensor([1.0]), torch.tensor([2.0]))  # 0² / 2 + 2² / 2
        tensor(2.)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[(D(x) - 1)²] / 2 + E[D(G(z))²] / 2, where D is the logit itself."""
        return (real_logits - 1).square().mean() / 2 + fake_logits.square().mean() / 2

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """E[(D(G(z)) - 1)²] / 2."""
        return (fake_logits - 1).square().mean() / 2


class Hinge(AdversarialLoss):
    """The hinge loss (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17).

    Examples:
        >>> Hinge().discriminator(torch.tensor([0.5]), torch.tensor([-2.0]))  # (1 - 0.5) + 0
        tensor(0.5000)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], where D is the logit itself."""
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """-E[D(G(z))]."""
        return -fake_logits.mean()


class Wasserstein(AdversarialLoss):
    """The Wasserstein-1 distance, estimated by a critic (Arjovsky et al. 2017, arXiv:1701.07875, equation 2).

    The critic must be Lipschitz: also give the module a `WassersteinGradientPenalty`.

    Examples:
        >>> Wasserstein().discriminator(torch.tensor([3.0]), torch.tensor([1.0]))  # 1 - 3
        tensor(-2.)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[D(G(z))] - E[D(x)], where D is the logit itself."""
        return fake_logits.mean() - real_logits.mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """-E[D(G(z))]."""
        return -fake_logits.mean()


class RelativisticPairing(AdversarialLoss):
    """RpGAN: compares each real image with one generated image (Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4).

    R3GAN combines it with R1 and R2 (Huang et al. 2024, arXiv:2501.05441, equation 2).

    Examples:
        >>> logits = torch.tensor([1.0, 2.0])
        >>> RelativisticPairing().discriminator(logits, logits)  # no pair differs, so log 2
        tensor(0.6931)
    """

    needs_real_logits = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-E[log sigmoid(D(x) - D(G(z)))], where D is the logit itself."""
        return softplus(fake_logits - real_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """-E[log sigmoid(D(G(z)) - D(x))]; without logits of real images, raises `UsageError`."""
        if real_logits is None:
            raise UsageError("real_logits: expected those of the real images, got none; a relativistic loss needs both")
        return softplus(real_logits - fake_logits).mean()


class AuxiliaryClassifier(ConfigMixin):
    """The class terms of an AC-GAN (Odena et al. 2017, arXiv:1610.09585, equation 3), added to any adversarial loss.

    The discriminator learns to classify images, the generator to make images that are classified correctly.

    Examples:
        >>> class_logits = torch.zeros(2, 10)  # P = 1/10 for each class
        >>> AuxiliaryClassifier(weight=2.0).generator(class_logits, torch.tensor([3, 7]))  # 2 · log 10
        tensor(4.6052)

    Args:
        weight: The weight of each term.
        classify_fakes: Whether the discriminator also learns from generated images, as in the paper; a generator that
            makes images of the wrong class then gives it wrong targets.

    Attributes:
        varying: The names of numeric attributes that may change in every step; see `AdversarialLoss`.
    """

    varying: tuple[str, ...] = ("weight",)

    def __init__(self, weight: float, classify_fakes: bool = True) -> None:
        self.weight = weight
        self.classify_fakes = classify_fakes

    def discriminator(
        self, real_class_logits: Tensor, labels: Tensor, fake_class_logits: Tensor, fake_labels: Tensor
    ) -> Tensor:
        """-E[log P(y|x)] - E[log P(y|G(z|y))], times the weight; class logits (N, num_classes), labels (N,)."""
        term = cross_entropy(real_class_logits, labels)
        if self.classify_fakes:
            term = term + cross_entropy(fake_class_logits, fake_labels)
        return self.weight * term

    def generator(self, fake_class_logits: Tensor, fake_labels: Tensor) -> Tensor:
        """-E[log P(y|G(z|y))], times the weight; class logits (N, num_classes), labels (N,)."""
        return self.weight * cross_entropy(fake_class_logits, fake_labels)
