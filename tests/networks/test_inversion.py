"""Latents are found again: of linear generators as least squares finds them, of trained ones up to a stated error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from lightning_cgan import (
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    Generator,
    MLPDiscriminator,
    NonSaturating,
    PretrainedGenerator,
    UsageError,
)
from lightning_cgan.networks.inversion import largest_norm
from lightning_cgan.networks.latents import Distribution

CLASSES, LATENTS, SIZE = 3, 2, 4


class Linear(Generator):
    """Images of class c are `weight[c] @ latents + bias[c]`; the columns of each weight are orthogonal, of length 0.3."""

    def __init__(self, num_classes: int = CLASSES, image_size: int = SIZE, latent_dim: int = LATENTS) -> None:
        super().__init__(num_classes, 1, image_size, latent_dim)
        chance = np.random.default_rng(0)
        columns = [np.linalg.qr(chance.normal(size=(image_size**2, latent_dim)))[0] for _ in range(num_classes)]
        self.weight = nn.Parameter(torch.tensor(0.3 * np.stack(columns), dtype=torch.float32))
        self.bias = nn.Parameter(
            torch.tensor(chance.uniform(-0.3, 0.3, (num_classes, image_size**2)), dtype=torch.float32)
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        pixels = (self.weight[labels] @ latents[:, :, None]).squeeze(2) + self.bias[labels]
        return pixels.reshape(-1, 1, self.image_size, self.image_size)


def linear(latents: Distribution = "normal") -> ConditionalGAN:
    return ConditionalGAN(Linear(), MLPDiscriminator(CLASSES, 1, SIZE), NonSaturating(), latents=latents)


def least_squares(gan: ConditionalGAN, image: Tensor, label: int) -> np.ndarray:
    weight, bias = (part[label].detach().double().numpy() for part in (gan.generator.weight, gan.generator.bias))
    return np.linalg.lstsq(weight, image.flatten().double().numpy() - bias, rcond=None)[0]


LABELS = torch.tensor([0, 1, 2, 1, 0])
WANTED = torch.tensor([[0.4, -0.9], [0.0, 0.1], [-0.7, 0.6], [0.9, 0.9], [-1.0, -0.2]])


@pytest.mark.parametrize("latents", ["normal", "uniform"])
def test_latents_of_generated_images_are_found_again(latents: Distribution) -> None:
    gan = linear(latents)
    images = gan.generate(LABELS, WANTED)
    found = gan.invert(images, LABELS)
    assert (found.latents - WANTED).abs().max() < 1e-3
    assert found.errors.max() < 1e-4
    assert torch.equal(found.labels, LABELS)
    assert torch.equal(found.images, gan.generate(LABELS, found.latents))


def test_other_images_are_as_near_as_least_squares_come() -> None:
    gan = linear()
    images = torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 0.5
    found = gan.invert(images, LABELS)
    for image, label, latents, error in zip(images, LABELS.tolist(), found.latents, found.errors, strict=True):
        expected = least_squares(gan, image, label)
        assert np.linalg.norm(expected) < largest_norm(LATENTS)
        assert latents.numpy() == pytest.approx(expected, abs=1e-3)
        made = gan.generate([label], torch.tensor(expected[None], dtype=torch.float32))[0]
        assert float(error) == pytest.approx((made - image).square().mean().sqrt().item(), abs=1e-5)


def test_labels_are_found() -> None:
    gan = linear()
    images = gan.generate(LABELS, WANTED)
    found = gan.invert(images)
    assert torch.equal(found.labels, LABELS)
    assert (found.latents - WANTED).abs().max() < 1e-3


def test_of_many_classes_the_nearest_are_tried() -> None:
    many = Linear(num_classes=600)
    gan = ConditionalGAN(many, MLPDiscriminator(600, 1, SIZE), NonSaturating())
    labels = torch.tensor([599, 0, 300])
    found = gan.invert(gan.generate(labels, WANTED[:3]), steps=100)
    assert torch.equal(found.labels, labels)
    assert found.errors.max() < 1e-2


def test_latents_stay_where_samples_are() -> None:
    """Columns are orthogonal: the best latents in a square or a ball are the nearest ones in it to the best of all."""
    outside = torch.tensor([[2.0, 0.3], [-5.0, -5.0], [0.2, -1.5]])
    labels = [0, 1, 2]
    uniform = linear("uniform")
    images = uniform.generate(labels, outside).clamp(-1, 1)  # of class 1 beyond what images hold
    best = torch.tensor(np.stack([least_squares(uniform, *pair) for pair in zip(images, labels, strict=True)]))
    found = uniform.invert(images, labels).latents
    assert found.abs().max() <= 1
    assert torch.allclose(found.double(), best.clamp(-1, 1), atol=1e-3)
    normal = linear().invert(images, labels).latents
    radius = largest_norm(LATENTS)
    assert normal.norm(dim=1).max() <= radius + 1e-5
    ball = best * (radius / best.norm(dim=1, keepdim=True)).clamp(max=1)
    assert best.norm(dim=1).max() > radius
    assert torch.allclose(normal.double(), ball, atol=1e-2)


@pytest.mark.parametrize("latent_dim", [1, 2, 10, 64, 512])
def test_the_ball_holds_999_of_1000_samples(latent_dim: int) -> None:
    assert largest_norm(latent_dim) == pytest.approx(math.sqrt(chi2.ppf(0.999, latent_dim)), rel=0.02)


def trained() -> PretrainedGenerator:
    return PretrainedGenerator.from_pretrained("digits")


def test_a_trained_generator_finds_its_own_images() -> None:
    generator = trained()
    labels = torch.arange(0, 10, 3)
    images = generator.generate(labels, seed=11)
    found = generator.invert(images, labels, steps=100, restarts=2)
    unmoved = generator.invert(images, labels, steps=1, restarts=1)  # about the nearest of the samples
    assert found.errors.max() < 0.06  # 8 of 255 gray levels
    assert (unmoved.errors > 2.5 * found.errors).all()
    expected = (generator.generate(labels, found.latents) - images).square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(found.errors, expected)
    assert torch.equal(generator.invert(images, steps=30).labels, labels)


def test_an_image_is_found_alike_in_any_company() -> None:
    generator = trained()
    labels = torch.tensor([4, 4, 1, 8])
    images = generator.generate(labels, seed=2)
    options: dict[str, Any] = {"steps": 25, "restarts": 3}
    together = generator.invert(images, labels, **options)
    again = generator.invert(images, labels, **options)
    assert torch.equal(together.latents, again.latents)
    for place in (0, 3):
        alone = generator.invert(images[place : place + 1], [int(labels[place])], **options)
        assert torch.allclose(alone.latents[0], together.latents[place], atol=1e-3)
    assert not torch.allclose(generator.invert(images, labels, **options, seed=1).latents, together.latents, atol=0.1)


def test_one_label_counts_for_all_images() -> None:
    gan = linear()
    images = gan.generate([1, 1], WANTED[:2])
    for labels in (1, [1], torch.tensor([1, 1])):
        found = gan.invert(images, labels, steps=200)
        assert found.labels.tolist() == [1, 1]
        assert found.errors.max() < 1e-3


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_module_stays_as_it_is(context: Any) -> None:
    sizes = {"num_classes": 3, "image_channels": 1, "image_size": 16}
    generator = DCGANGenerator(**sizes, latent_dim=4, channels=(8, 4))
    gan = ConditionalGAN(generator, DCGANDiscriminator(**sizes, channels=(4, 8)), NonSaturating()).train()
    parameters = list(generator.parameters())
    parameters[0].requires_grad_(False)
    for parameter in parameters[1:3]:
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    state = torch.get_rng_state()
    with context():
        images = gan.generate([0, 2], seed=0)
        found = gan.invert(images, [0, 2], steps=3)
    assert not found.latents.requires_grad
    assert [parameter.requires_grad for parameter in parameters] == [False] + [True] * (len(parameters) - 1)
    assert [parameter.grad is None for parameter in parameters] == [True, False, False] + [True] * (len(parameters) - 3)
    assert all(bool((parameter.grad == 1).all()) for parameter in parameters[1:3] if parameter.grad is not None)
    assert all(module.training for module in generator.modules())
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_averaged_and_trained_weights() -> None:
    gan = ConditionalGAN(Linear(), MLPDiscriminator(CLASSES, 1, SIZE), NonSaturating(), ema_half_life=10)
    assert gan.generator_ema is not None
    with torch.no_grad():
        gan.generator.bias.add_(0.2)
    for ema in (True, False):
        found = gan.invert(gan.generate(LABELS, WANTED, ema=ema), LABELS, ema=ema)
        assert (found.latents - WANTED).abs().max() < 1e-3


def test_weights_in_half_precision() -> None:
    gan = linear().bfloat16()
    found = gan.invert(gan.generate(LABELS, WANTED), LABELS)
    assert found.latents.dtype == torch.float32
    assert found.errors.max() < 0.02


class Rounding(Linear):
    """A generator through which no gradients pass."""

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return super().forward(latents, labels).detach()


IMAGES = torch.zeros(2, 1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"images": IMAGES[0]},
            "images: expected a tensor of shape (N, 1, 4, 4), N 1 or more, got (1, 4, 4); resize or ",
        ),
        (
            {"images": IMAGES[:0]},
            "images: expected a tensor of shape (N, 1, 4, 4), N 1 or more, got (0, 1, 4, 4); resize",
        ),
        (
            {"images": [1]},
            "images: expected a tensor of shape (N, 1, 4, 4), N 1 or more, got list; resize or convert them",
        ),
        (
            {"images": (IMAGES + 200).byte()},
            "images: expected floats in [-1, 1], got torch.uint8 from 200 to 200; convert bytes by images / 127.5 - 1",
        ),
        (
            {"images": IMAGES * math.nan},
            "images: expected floats in [-1, 1], got torch.float32 from nan to nan; convert bytes by images / 127.5 - 1",
        ),
        (
            {"labels": [0, 1, 2]},
            "labels: expected one class number, or one for each of 2 images, got shape (3,); give their numbers",
        ),
        (
            {"labels": torch.eye(3)[:2]},
            "labels: expected one class number, or one for each of 2 images, got shape (2, 3); give their numbers",
        ),
        ({"labels": [0, 3]}, "labels: expected class numbers from 0 to 2, got [0, 3]; give classes of the model"),
        ({"steps": 0}, "steps: expected 1 or more, got 0; give a positive number"),
        ({"restarts": 0}, "restarts: expected 1 or more, got 0; give a positive number"),
        ({"seed": 2**63}, f"seed: expected a whole number of 64 bits, got {2**63}; give another"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        linear().invert(**{"images": IMAGES, **arguments})
    assert str(caught.value).startswith(message)


def test_a_generator_without_gradients_is_refused() -> None:
    gan = ConditionalGAN(Rounding(), MLPDiscriminator(CLASSES, 1, SIZE), NonSaturating())
    with pytest.raises(UsageError) as caught:
        gan.invert(IMAGES, 0)
    expected = "generator: expected a generator through which gradients reach its latents, got Rounding ("
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith("; take another")


def test_a_generator_of_nothing_finite_is_refused() -> None:
    gan = linear()
    with torch.no_grad():
        gan.generator.bias.fill_(math.nan)
    with pytest.raises(UsageError) as caught:
        gan.invert(IMAGES, 0, steps=1)
    assert str(caught.value) == "generator: expected finite images, got others; its training has failed, take another"


def test_rectangular_images_of_many_channels_are_found() -> None:
    network = {"num_classes": 2, "image_channels": 5, "image_size": (4, 6), "latent_dim": 2, "hidden": [8]}
    gan = PretrainedGenerator({"class_path": "lightning_cgan.MLPGenerator", "init_args": network})
    images = gan.generate([0, 1], torch.tensor([[0.3, -0.8], [1.0, 0.2]]))
    assert images.shape == (2, 5, 4, 6)
    assert gan.invert(images, [0, 1]).errors.max() < 0.01
    with pytest.raises(
        UsageError, match=r"^images: expected a tensor of shape \(N, 5, 4, 6\), N 1 or more, got \(2, 5, 6, 4\)"
    ):
        gan.invert(images.transpose(2, 3), [0, 1])
