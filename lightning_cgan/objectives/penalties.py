"""Gradient penalties for the discriminator, computed in the precision of its weights: float32 even under autocast.

The weights have no defaults: they must be chosen for the data and the networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.serialization import ConfigMixin
from lightning_cgan.networks.base import Discriminator, discriminate, is_compiled
from lightning_cgan.objectives.inputs import UpdateInputs


class GradientPenalty(ConfigMixin, ABC):
    """Base class of penalties: a scalar added to the discriminator's loss, in `Objectives.of_discriminator`.

    Examples:
        >>> class Drift(GradientPenalty):
        ...     def __call__(self, discriminator, inputs, fake):
        ...         return discriminate(discriminator, inputs.real, inputs.labels).logits.square().mean()
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> inputs = UpdateInputs(images, labels, torch.zeros(4, 100), labels, torch.rand(4, 1), torch.rand(4, 0))
        >>> Drift(interval=16).lazy(lambda images, labels: torch.full((4,), 2.0), inputs, images)  # 16 · 2²
        tensor(64.)

    Args:
        interval: The penalty is computed every `interval` steps and then multiplied by `interval` (lazy regularisation:
            Karras et al. 2020, arXiv:1912.04958, appendix B).

    Attributes:
        needs_interpolation: Whether it evaluates points between images, and so needs random numbers.
        varying: The names of numeric attributes that may change in every step, such as an annealed weight; in a step
            recorded as a graph they are tensors.
    """

    needs_interpolation: bool = False
    varying: tuple[str, ...] = ()

    def __init__(self, interval: int = 1) -> None:
        check_positive("interval", interval)
        self.interval = interval

    @abstractmethod
    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty, including its weight.

        Args:
            discriminator: The network to penalise.
            inputs: Real images, shape (N, C, H, W), in [-1, 1], their labels, the labels of the generated images, and
                random numbers, passed in so that n processes sample the same ones as a single process.
            fake: Generated images, of the shape of the real ones, detached from the generator.
        """

    def lazy(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Multiplies the penalty by `interval`, its weight in a step that computes it."""
        return self.interval * self(discriminator, inputs, fake)


class R1(GradientPenalty):
    """gamma / 2 · E[‖∇D(x)‖²] at real images (Mescheder et al. 2018, arXiv:1801.04406, equation 9).

    Examples:
        >>> discriminator = MLPDiscriminator(10, 1, 8, hidden=())  # linear
        >>> _ = torch.nn.init.constant_(discriminator.head.linear.weight, 2.0)  # a gradient of 1 at each of 64 pixels
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> inputs = UpdateInputs(images, labels, torch.zeros(4, 100), labels, torch.rand(4, 1), torch.rand(4, 0))
        >>> R1(gamma=2.0)(discriminator, inputs, fake=images).item()  # 2 / 2 · 64
        64.0

    Args:
        gamma: The weight.
    """

    varying = ("gamma",)

    def __init__(self, gamma: float, interval: int = 1) -> None:
        super().__init__(interval)
        self.gamma = gamma

    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty at the real images."""
        return self._slope(discriminator, inputs.real, inputs.labels)

    def _slope(self, discriminator: Discriminator, images: Tensor, labels: Tensor) -> Tensor:
        return self.gamma / 2 * image_gradients(discriminator, images, labels).square().sum(1).mean()


class R2(R1):
    """gamma / 2 · E[‖∇D(x)‖²] at generated images (Mescheder et al. 2018, arXiv:1801.04406, equation 10).

    Examples:
        >>> discriminator = MLPDiscriminator(10, 1, 8, hidden=())  # linear
        >>> _ = torch.nn.init.constant_(discriminator.head.linear.weight, 2.0)  # a gradient of 1 at each of 64 pixels
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> inputs = UpdateInputs(images, labels, torch.zeros(4, 100), labels, torch.rand(4, 1), torch.rand(4, 0))
        >>> R2(gamma=1.0)(discriminator, inputs, fake=torch.ones(4, 1, 8, 8)).item()  # 1 / 2 · 64
        32.0
    """

    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty at the generated images."""
        return self._slope(discriminator, fake, inputs.fake_labels)


class WassersteinGradientPenalty(GradientPenalty):
    """weight · E[(‖∇D(x)‖ - 1)²] between real and fake images (Gulrajani et al. 2017, arXiv:1704.00028, equation 3).

    Each point lies on the line from a real image to a generated one and is scored under the label of the real one; with
    the module's `fake_labels: real` both have the same label.

    Examples:
        >>> discriminator = MLPDiscriminator(10, 1, 8, hidden=())  # linear
        >>> _ = torch.nn.init.constant_(discriminator.head.linear.weight, 2.0)  # a gradient of 1 at each of 64 pixels
        >>> images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> inputs = UpdateInputs(images, labels, torch.zeros(4, 100), labels, torch.rand(4, 1), torch.rand(4, 0))
        >>> WassersteinGradientPenalty(weight=10.0)(discriminator, inputs, fake=-images).item()  # 10 · (8 - 1)²
        490.0

    Args:
        weight: The weight, called lambda in the paper, which uses 10.
    """

    needs_interpolation = True
    varying = ("weight",)

    def __init__(self, weight: float, interval: int = 1) -> None:
        super().__init__(interval)
        self.weight = weight

    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty at one point of each line: 0 is the real image, 1 the generated one."""
        real = inputs.real
        if not inputs.interpolation.numel():
            raise UsageError("interpolation: expected a number for each image, got none; give torch.rand(len(real), 1)")
        points = real + inputs.interpolation.to(real.dtype).view(-1, 1, 1, 1) * (fake - real)
        gradients = image_gradients(discriminator, points, inputs.labels)
        norms = torch.linalg.vector_norm(gradients, dim=1)  # the gradient of this norm at zero is zero
        penalty: Tensor = self.weight * (norms - 1).square().mean()
        return penalty


def image_gradients(discriminator: Discriminator, images: Tensor, labels: Tensor) -> Tensor:
    """Computes ∇D(x) of each image, shape (N, C · H · W), differentiable once more; without autocast and uncompiled."""
    weights = next(discriminator.parameters())
    with (
        torch.autocast(images.device.type, enabled=False),
        # `torch.compile` cannot differentiate twice.
        torch.compiler.set_stance("force_eager") if is_compiled(discriminator) else nullcontext(),
    ):
        images = images.detach().to(weights.dtype).requires_grad_()
        logits = discriminate(discriminator, images, labels).logits
        (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.flatten(1)
