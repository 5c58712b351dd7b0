"""Gradient penalties on discriminators whose gradients are known."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cgan import (
    R1,
    R2,
    DCGANDiscriminator,
    Discriminator,
    GradientPenalty,
    MLPDiscriminator,
    UpdateInputs,
    UsageError,
    WassersteinGradientPenalty,
)
from lightning_cgan.networks.base import DiscriminatorOutput
from lightning_cgan.training.compilation import has_compiler_for_cpu


def penalized(
    penalty: GradientPenalty,
    discriminator: Discriminator,
    real: Tensor,
    fake: Tensor,
    labels: Tensor,
    fake_labels: Tensor,
    interpolation: Tensor | None = None,
) -> Tensor:
    """What a penalty says of images; latents and the numbers of augmentations are nothing to it."""
    count, nothing = len(real), torch.empty(len(real), 0)
    numbers = nothing if interpolation is None else interpolation.view(count, 1)
    return penalty(discriminator, UpdateInputs(real, labels, nothing, fake_labels, numbers, nothing), fake)


class Linear(Discriminator):
    """w_y · x: the gradient at every image of class y is w_y."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, image_channels=1, image_size=3)
        self.weight = torch.nn.Parameter(torch.randn(2, 9))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return (self.weight[labels] * images.flatten(1)).sum(1)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.rand(4, 1, 3, 3), torch.rand(4, 1, 3, 3), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 1])


def test_r1_of_a_linear_discriminator_is_the_norm_of_its_weights(batch: tuple[Tensor, ...]) -> None:
    discriminator = Linear()
    squares = discriminator.weight.square().sum(1)
    penalty = penalized(R1(gamma=3.0), discriminator, *batch)
    assert torch.allclose(penalty, 3 / 2 * (squares[0] + squares[1]) / 2)
    # the gradient of 3 / 2 · (‖w₀‖² + ‖w₁‖²) / 2 is 3 / 2 · w
    (gradient,) = torch.autograd.grad(penalty, discriminator.weight)
    assert torch.allclose(gradient, 3 / 2 * discriminator.weight)


def test_r2_looks_at_fakes_under_their_own_labels(batch: tuple[Tensor, ...]) -> None:
    discriminator = Linear()
    assert torch.allclose(penalized(R2(gamma=1.0), discriminator, *batch), discriminator.weight[1].square().sum() / 2)


def test_wasserstein_penalty_of_a_linear_discriminator(batch: tuple[Tensor, ...]) -> None:
    discriminator = Linear()
    norms = discriminator.weight.norm(dim=1)
    expected = 10 * ((norms[0] - 1) ** 2 + (norms[1] - 1) ** 2) / 2
    assert torch.allclose(
        penalized(WassersteinGradientPenalty(weight=10.0), discriminator, *batch, torch.rand(4)), expected
    )


class Quadratic(Discriminator):
    """The sum of x³ / 3 over pixels: the gradient at an image is x²."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, image_channels=1, image_size=3)
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return (images**3 / 3).flatten(1).sum(1)


def test_wasserstein_penalty_looks_at_points_between(batch: tuple[Tensor, ...]) -> None:
    real, fake, *_ = batch
    numbers = torch.tensor([0.0, 1.0, 0.25, 0.5])
    expected = 0.0
    for x, z, number in zip(real, fake, numbers.tolist(), strict=True):
        norm = sum(((1 - number) * a + number * b) ** 4 for a, b in zip(x.flatten(), z.flatten(), strict=True)) ** 0.5
        expected += 3 * (norm - 1) ** 2 / 4
    penalty = WassersteinGradientPenalty(weight=3.0)
    assert penalty.needs_interpolation
    assert torch.allclose(penalized(penalty, Quadratic(), *batch, numbers), torch.as_tensor(expected))
    with pytest.raises(UsageError, match="interpolation: expected a number for each image, got none"):
        penalized(penalty, Quadratic(), *batch)


class Smooth(Discriminator):
    """A hidden layer with tanh: differentiable as often as one likes."""

    def __init__(self) -> None:
        super().__init__(num_classes=2, image_channels=1, image_size=3)
        self.hidden, self.out = torch.nn.Linear(9, 4), torch.nn.Linear(4, 2)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(images.flatten(1)))).gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize("penalty", [R1(2.0), R2(2.0), WassersteinGradientPenalty(2.0)])
def test_gradient_of_a_penalty_with_respect_to_weights(penalty: Any, batch: tuple[Tensor, ...]) -> None:
    discriminator, (real, fake, labels, fake_labels) = Smooth().double(), batch
    real, fake, numbers = real.double(), fake.double(), torch.rand(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(  # which moves the parameters themselves
        lambda *_: penalized(penalty, discriminator, real, fake, labels, fake_labels, numbers),
        tuple(discriminator.parameters()),
    )


class Naming(Linear):
    """Names classes too; the penalty looks past that."""

    classifies = True

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:  # type: ignore[override]
        return DiscriminatorOutput(super().forward(images, labels), images.flatten(1) @ (100 * self.weight.T))


def test_class_logits_are_not_penalised(batch: tuple[Tensor, ...]) -> None:
    naming, plain = Naming(), Linear()
    plain.load_state_dict(naming.state_dict())
    for penalty in (R1(1.0), R2(1.0), WassersteinGradientPenalty(1.0)):
        numbers = torch.rand(4) if penalty.needs_interpolation else None
        assert torch.equal(penalized(penalty, naming, *batch, numbers), penalized(penalty, plain, *batch, numbers))


@pytest.mark.ci
@pytest.mark.skipif(not has_compiler_for_cpu(), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_discriminator_is_penalised_alike(batch: tuple[Tensor, ...]) -> None:
    eager = Smooth()
    compiled = deepcopy(eager)
    compiled.compile()
    real, _, labels, _ = batch
    assert torch.allclose(compiled(real, labels), eager(real, labels), atol=1e-6)  # compiled by now
    penalties = [penalized(R1(gamma=2.0), discriminator, *batch) for discriminator in (compiled, eager)]
    for discriminator, penalty in zip((compiled, eager), penalties, strict=True):
        penalty.backward()
        assert discriminator(real, labels).shape == (4,)
    assert torch.equal(*penalties)
    assert eager.hidden.weight.grad.abs().max() > 0
    assert torch.equal(compiled.hidden.weight.grad, eager.hidden.weight.grad)
    assert torch.equal(compiled.out.weight.grad, eager.out.weight.grad)


def test_penalty_is_float32_under_autocast() -> None:
    discriminator = DCGANDiscriminator(2, 1, 8, channels=(4, 8))
    images, labels = torch.rand(4, 1, 8, 8) * 2 - 1, torch.tensor([0, 1, 0, 1])
    expected = penalized(R1(gamma=1.0), discriminator, images, images, labels, labels)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = penalized(R1(gamma=1.0), discriminator, images.bfloat16(), images, labels, labels)
    assert penalty.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        penalty = penalized(R1(gamma=1.0), discriminator, images, images, labels, labels)
    assert torch.equal(penalty, expected)


def test_wasserstein_penalty_survives_a_gradient_of_zero() -> None:
    discriminator = MLPDiscriminator(2, 1, 3, hidden=(4,))
    torch.nn.init.constant_(discriminator.layers[0].bias, -100.0)  # every ReLU is dead, and ∇D is zero
    images, labels = torch.rand(4, 1, 3, 3), torch.tensor([0, 1, 0, 1])
    penalty = penalized(
        WassersteinGradientPenalty(weight=10.0), discriminator, images, images, labels, labels, torch.rand(4)
    )
    penalty.backward()
    assert penalty.item() == 10  # (0 - 1)², times the weight
    assert torch.isfinite(discriminator.layers[0].weight.grad).all()


def test_interval_must_be_positive() -> None:
    with pytest.raises(UsageError, match="interval: expected 1 or more, got 0"):
        R1(gamma=1.0, interval=0)


def test_a_lazy_penalty_counts_for_the_steps_that_it_leaves_out(batch: tuple[Tensor, ...]) -> None:
    """Karras et al. 2020 (arXiv:1912.04958), appendix B: every 16th step, 16 times the weight."""
    real, fake, labels, fake_labels = batch
    nothing = torch.empty(4, 0)
    inputs = UpdateInputs(real, labels, nothing, fake_labels, nothing, nothing)
    discriminator = Linear()
    squares = discriminator.weight.square().sum(1)
    assert torch.allclose(R1(3.0, interval=16).lazy(discriminator, inputs, fake), 16 * 3 / 2 * squares.mean())
