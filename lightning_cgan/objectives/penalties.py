"""Gradient penalties for the discriminator, in the precision of its weights: float32 also under autocast.

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
    """The contract of a penalty: a scalar that is added to the discriminator's loss.

    Args:
        interval: The penalty is computed in every so many steps, and then counts so many times as much (lazy
            regularisation: Karras et al. 2020, arXiv:1912.04958, appendix B).

    Attributes:
        needs_interpolation: Whether it looks at points between the images, and so needs random numbers.
        varying: The names of numbers that may change in every step, as an annealed weight does: where a step is
            recorded as a graph they are tensors.
    """

    needs_interpolation: bool = False
    varying: tuple[str, ...] = ()

    def __init__(self, interval: int = 1) -> None:
        check_positive("interval", interval)
        self.interval = interval

    @abstractmethod
    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty, its weight included.

        Args:
            discriminator: The network to penalise.
            inputs: Real images, shape (N, C, H, W), in [-1, 1], their labels, the labels of the generated images, and
                random numbers: these are handed in so that n processes draw what one does.
            fake: Generated images, of the shape of the real ones, detached from the generator.
        """

    def lazy(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """The penalty as it counts in a step that computes it: `interval` times as much."""
        return self.interval * self(discriminator, inputs, fake)


class R1(GradientPenalty):
    """gamma / 2 · E[‖∇D(x)‖²] at real images (Mescheder et al. 2018, arXiv:1801.04406, equation 9).

    Args:
        gamma: The weight.
        interval: The number of steps from one computation to the next; the weight grows in proportion.
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
    """gamma / 2 · E[‖∇D(x)‖²] at generated images (Mescheder et al. 2018, arXiv:1801.04406, equation 10)."""

    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty at the generated images."""
        return self._slope(discriminator, fake, inputs.fake_labels)


class WassersteinGradientPenalty(GradientPenalty):
    """weight · E[(‖∇D(x)‖ - 1)²] between real and fake images (Gulrajani et al. 2017, arXiv:1704.00028, equation 3).

    Each point lies on the line from a real image to a generated one and is judged under the label of the real one: with
    the module's `fake_labels: real` the two carry the same label.

    Args:
        weight: The weight, called lambda in the paper, which uses 10.
        interval: The number of steps from one computation to the next; the weight grows in proportion.
    """

    needs_interpolation = True
    varying = ("weight",)

    def __init__(self, weight: float, interval: int = 1) -> None:
        super().__init__(interval)
        self.weight = weight

    def __call__(self, discriminator: Discriminator, inputs: UpdateInputs, fake: Tensor) -> Tensor:
        """Computes the penalty at one point of each line: 0 is the real image, 1 the generated one.

        Raises:
            UsageError: There are no interpolation numbers.
        """
        real = inputs.real
        if not inputs.interpolation.numel():
            raise UsageError("interpolation: expected a number for each image, got none; give torch.rand(len(real), 1)")
        points = real + inputs.interpolation.to(real.dtype).view(-1, 1, 1, 1) * (fake - real)
        gradients = image_gradients(discriminator, points, inputs.labels)
        norms = torch.linalg.vector_norm(gradients, dim=1)  # whose own gradient at zero is zero
        penalty: Tensor = self.weight * (norms - 1).square().mean()
        return penalty


def image_gradients(discriminator: Discriminator, images: Tensor, labels: Tensor) -> Tensor:
    """∇D(x) of each image, shape (N, C · H · W), differentiable once more; without autocast and uncompiled."""
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
