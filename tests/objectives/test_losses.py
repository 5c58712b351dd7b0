"""Every loss against a literal transcription with probabilities, logarithms and loops, and a hand-worked case."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from lightning_cgan import (
    AdversarialLoss,
    AuxiliaryClassifier,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    UsageError,
    Wasserstein,
)


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


Formula = Callable[[list[float], list[float]], float]

CROSS_ENTROPY: Formula = lambda real, fake: (  # noqa: E731
    -mean([math.log(probability(r)) for r in real]) - mean([math.log(1 - probability(f)) for f in fake])
)

TRANSCRIPTIONS: dict[type[AdversarialLoss], tuple[Formula, Formula]] = {
    NonSaturating: (CROSS_ENTROPY, lambda real, fake: -mean([math.log(probability(f)) for f in fake])),
    Saturating: (CROSS_ENTROPY, lambda real, fake: mean([math.log(1 - probability(f)) for f in fake])),
    LeastSquares: (
        lambda real, fake: mean([(r - 1) ** 2 for r in real]) / 2 + mean([f**2 for f in fake]) / 2,
        lambda real, fake: mean([(f - 1) ** 2 for f in fake]) / 2,
    ),
    Hinge: (
        lambda real, fake: mean([max(0, 1 - r) for r in real]) + mean([max(0, 1 + f) for f in fake]),
        lambda real, fake: -mean(fake),
    ),
    Wasserstein: (lambda real, fake: mean(fake) - mean(real), lambda real, fake: -mean(fake)),
    RelativisticPairing: (
        lambda real, fake: -mean([math.log(probability(r - f)) for r, f in zip(real, fake, strict=True)]),
        lambda real, fake: -mean([math.log(probability(f - r)) for r, f in zip(real, fake, strict=True)]),
    ),
}


@pytest.mark.parametrize("loss", TRANSCRIPTIONS)
def test_loss_is_its_formula(loss: type[AdversarialLoss]) -> None:
    real, fake = torch.randn(7, dtype=torch.float64) * 3, torch.randn(7, dtype=torch.float64) * 3
    discriminator, generator = TRANSCRIPTIONS[loss]
    assert loss().discriminator(real, fake).item() == pytest.approx(discriminator(real.tolist(), fake.tolist()))
    assert loss().generator(fake, real).item() == pytest.approx(generator(real.tolist(), fake.tolist()))


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"),
    [  # worked by hand for the logits 2 (real) and -1 (fake)
        (NonSaturating, math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), math.log(1 + math.e)),
        (Saturating, math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), -math.log(1 + math.exp(-1))),
        (LeastSquares, 1.0, 2.0),
        (Hinge, 0.0, 1.0),
        (Wasserstein, -3.0, 1.0),
        (RelativisticPairing, math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))),
    ],
)
def test_loss_at_two_logits(loss: type[AdversarialLoss], discriminator: float, generator: float) -> None:
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])
    assert loss().discriminator(real, fake).item() == pytest.approx(discriminator)
    assert loss().generator(fake, real).item() == pytest.approx(generator)


def test_minimax_is_zero_sum() -> None:
    """In the game as written, the generator's loss is the part of the discriminator's that it can move, negated."""
    real, fake = torch.randn(5), torch.randn(5)
    loss = Saturating()
    real_term = torch.nn.functional.binary_cross_entropy_with_logits(real, torch.ones(5))
    assert torch.allclose(loss.generator(fake), -(loss.discriminator(real, fake) - real_term))


@pytest.mark.parametrize("loss", [NonSaturating, Saturating])
def test_cross_entropy_stays_finite_where_logarithms_do_not(loss: type[AdversarialLoss]) -> None:
    real, fake = torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4])
    assert loss().discriminator(real, fake).item() == pytest.approx(1e4)
    assert math.isfinite(loss().generator(fake).item())


def test_relativistic_loss_needs_both() -> None:
    assert RelativisticPairing.needs_real_logits
    with pytest.raises(UsageError, match="real_logits: expected those of the real images, got none"):
        RelativisticPairing().generator(torch.zeros(3))


@pytest.mark.parametrize("classify_fakes", [True, False])
def test_class_terms_are_cross_entropies(classify_fakes: bool) -> None:
    real, fake = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    labels, fake_labels = torch.tensor([0, 2, 1, 1]), torch.tensor([2, 2, 0, 1])

    def surprise(logits: torch.Tensor, labels: torch.Tensor) -> float:
        rows = zip(logits.tolist(), labels.tolist(), strict=True)
        return mean([-math.log(math.exp(row[y]) / sum(map(math.exp, row))) for row, y in rows])

    classifier = AuxiliaryClassifier(weight=0.5, classify_fakes=classify_fakes)
    expected = surprise(real, labels) + (surprise(fake, fake_labels) if classify_fakes else 0)
    assert classifier.discriminator(real, labels, fake, fake_labels).item() == pytest.approx(0.5 * expected)
    assert classifier.generator(fake, fake_labels).item() == pytest.approx(0.5 * surprise(fake, fake_labels))
    even = torch.zeros(2, 4)  # four classes that are all alike: log 4
    assert AuxiliaryClassifier(1.0).generator(even, torch.tensor([0, 3])).item() == pytest.approx(math.log(4))
