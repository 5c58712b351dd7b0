"""The contracts of the networks, and conditioning against slow transcriptions."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from lightning_cgan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    UsageError,
)
from lightning_cgan.core.images import ImageSize, height_and_width, size_text
from lightning_cgan.networks.base import discriminate, frozen, uses_batch_statistics
from lightning_cgan.networks.conditioning import ConditionalBatchNorm2d
from lightning_cgan.networks.r3gan import _Block

GENERATORS: list[tuple[type[Generator], dict[str, Any]]] = [
    (MLPGenerator, {}),
    (MLPGenerator, {"hidden": (16, 32), "batch_norm": True}),
    (DCGANGenerator, {"channels": (8, 4)}),
    (DCGANGenerator, {"channels": (8, 8, 4), "strides": (1, 2, 2), "kernel_size": 5, "conditional_batch_norm": True}),
    (DCGANGenerator, {"channels": (8, 8, 4), "strides": (2, 1, 2), "kernel_size": 4}),
    (DCGANGenerator, {"channels": (8, 4), "label_embedding": 5}),
    (MLPGenerator, {"label_embedding": 5}),
    (ResNetGenerator, {"channels": (8, 4, 4)}),
    (R3GANGenerator, {"channels": (8, 8, 4), "group_width": 4, "blocks": 2}),
    (R3GANGenerator, {"channels": (8, 4), "label_embedding": 5}),
]
DISCRIMINATORS: list[tuple[type[Discriminator], dict[str, Any]]] = [
    (MLPDiscriminator, {"hidden": (16,)}),
    (DCGANDiscriminator, {"channels": (4, 8), "dropout": 0.3}),
    (DCGANDiscriminator, {"channels": (4, 8), "kernel_size": 5, "hidden": 16, "conditioning": "concatenation"}),
    (ResNetDiscriminator, {"channels": (4, 8)}),
    (ResNetDiscriminator, {"channels": (4, 8, 8), "conditioning": "concatenation"}),
    (R3GANDiscriminator, {"channels": (4, 8), "group_width": 4, "blocks": 2}),
    (R3GANDiscriminator, {"channels": (4, 8, 8), "conditioning": "concatenation", "label_embedding": 5}),
    (MLPDiscriminator, {"hidden": (), "conditioning": "projection", "spectral_norm": True}),
    (DCGANDiscriminator, {"channels": (4, 8), "conditioning": "concatenation", "label_embedding": 5}),
    (ResNetDiscriminator, {"channels": (4, 8), "spectral_norm": True}),
]
SHAPES: list[tuple[int, int, ImageSize]] = [(10, 1, 28), (3, 3, 32), (1, 1, 8), (1000, 3, 64), (4, 5, (8, 20))]


@pytest.mark.parametrize(("cls", "options"), GENERATORS)
@pytest.mark.parametrize(("num_classes", "channels", "size"), SHAPES)
def test_generator_keeps_its_contract(
    cls: type[Generator], options: dict[str, Any], num_classes: int, channels: int, size: ImageSize
) -> None:
    generator = cls(num_classes, channels, size, latent_dim=6, **options)
    labels = torch.randint(num_classes, (5,))
    images = generator(torch.randn(5, 6) * 100, labels)
    assert images.shape == (5, channels, *height_and_width(size))
    assert images.abs().max() <= 1
    images.square().mean().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


@pytest.mark.parametrize(("cls", "options"), DISCRIMINATORS)
@pytest.mark.parametrize(("num_classes", "channels", "size"), SHAPES)
def test_discriminator_keeps_its_contract(
    cls: type[Discriminator], options: dict[str, Any], num_classes: int, channels: int, size: ImageSize
) -> None:
    discriminator = cls(num_classes, channels, size, **options)
    logits = discriminator(torch.rand(5, channels, *height_and_width(size)) * 2 - 1, torch.randint(num_classes, (5,)))
    assert logits.shape == (5,)
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


@pytest.mark.parametrize(("cls", "options"), [*GENERATORS, *DISCRIMINATORS])
def test_the_label_matters(cls: type[nn.Module], options: dict[str, Any]) -> None:
    is_generator = issubclass(cls, Generator)
    network = cls(3, 1, 8, **({"latent_dim": 6} if is_generator else {}), **options)
    for module in network.modules():
        if isinstance(module, ConditionalBatchNorm2d):  # it starts with the same scale and shift for each class
            nn.init.normal_(module.scale.weight)
    network.eval()
    first = torch.randn(1, 6) if is_generator else torch.rand(1, 1, 8, 8)
    assert not torch.allclose(network(first, torch.tensor([0])), network(first, torch.tensor([1])))


@pytest.mark.parametrize("cls", [DCGANGenerator, ResNetGenerator])
@pytest.mark.parametrize(
    ("size", "remedy"), [(30, "28 or 32"), (3, "4"), ((8, 30), "[8, 28] or [8, 32]"), ((3, 8), "[4, 8]")]
)
def test_impossible_size_names_the_possible_ones(cls: type[Generator], size: ImageSize, remedy: str) -> None:
    message = f"multiple of 4, got {size_text(size)}; resize the data with --data.image_size {remedy}, or"
    with pytest.raises(UsageError, match=f"{cls.__name__} .* {re.escape(message)}"):
        cls(10, 1, size)  # type: ignore[call-arg]


@pytest.mark.parametrize("size", [(0, 8), 0, (8,), [8, 8, 8], (8.0, 8)])
def test_sizes_that_are_none(size: Any) -> None:
    for cls in (DCGANGenerator, MLPDiscriminator):
        with pytest.raises(
            UsageError, match="^image_size: expected a whole number of pixels, or height and width, got"
        ):
            cls(10, 1, size)


def test_resnet_discriminator_refuses_images_that_vanish() -> None:
    with pytest.raises(UsageError, match="at least 8 pixels, got 4; resize the data with --data.image_size 8"):
        ResNetDiscriminator(10, 1, 4, channels=(8, 8, 8, 8))


def test_dcgan_needs_a_stride_for_each_channel() -> None:
    with pytest.raises(UsageError, match=r"strides: expected as many as channels \(2\), got 3"):
        DCGANGenerator(10, 1, 28, channels=(8, 4), strides=(1, 2, 2))


@pytest.mark.parametrize("cls", [MLPDiscriminator, DCGANDiscriminator, ResNetDiscriminator])
def test_spectral_norm_makes_the_largest_singular_value_one(cls: type[Discriminator]) -> None:
    discriminator = cls(10, 1, 8, spectral_norm=True)  # type: ignore[call-arg]
    images, labels = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
    for _ in range(300):
        discriminator(images, labels)
    discriminator.eval()
    weights = [m.weight for m in discriminator.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))]
    assert len(weights) > 1
    for weight in weights:
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.01)
    copied = copy.deepcopy(discriminator)
    assert torch.equal(copied(images, labels), discriminator(images, labels))
    with torch.autocast("cpu", torch.bfloat16):
        discriminator.train()(images, labels).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("cls", [MLPDiscriminator, DCGANDiscriminator, ResNetDiscriminator])
def test_spectral_norm_survives_a_gradient_penalty_after_other_passes(cls: type[Discriminator]) -> None:
    """Each pass moves the estimate of the norm in place, which must not spoil the graphs of earlier ones."""
    discriminator = cls(3, 1, 8, spectral_norm=True)  # type: ignore[call-arg]
    images, labels = torch.rand(4, 1, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 0])
    first, second = discriminator(images, labels).sum(), discriminator(images / 2, labels).sum()
    (gradient,) = torch.autograd.grad(second, images, create_graph=True)
    (first + second + gradient.square().sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in discriminator.parameters())


@pytest.mark.parametrize("conditioning", ["concatenation", "projection", "classifier", "projection_classifier"])
@pytest.mark.parametrize("cls", [MLPDiscriminator, DCGANDiscriminator, ResNetDiscriminator, R3GANDiscriminator])
def test_gradients_of_discriminators_to_the_second_order(cls: type[Discriminator], conditioning: str) -> None:
    options = {"hidden": (6,)} if cls is MLPDiscriminator else {"channels": (2, 3)}
    discriminator = cls(3, 1, 4, conditioning=conditioning, **options).double()  # type: ignore[call-arg,arg-type]
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return discriminate(discriminator, images, torch.tensor([0, 2])).logits

    assert torch.autograd.gradcheck(logits, images)
    assert torch.autograd.gradgradcheck(logits, images)


def test_r3gan_block_is_its_transcription() -> None:
    block = _Block(width=4, inner=6, group_width=3, count=5)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)  # the identity, to begin with
    # He et al. for a slope of 0.2, with fan-in 4, scaled by 5 ** -0.25
    many = _Block(width=4, inner=4096, group_width=4, count=5).conv1.weight
    assert many.std().item() == pytest.approx((2 / (1 + 0.2**2) / 4) ** 0.5 * 5**-0.25, rel=0.05)
    for parameter in block.parameters():
        nn.init.normal_(parameter)

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    weights = dict(block.named_parameters())
    y = torch.einsum("oi,nihw->nohw", weights["conv1.weight"][:, :, 0, 0], x) + weights["conv1.bias"][:, None, None]
    y, out = nn.functional.pad(leaky(y), (1, 1, 1, 1)), torch.zeros(2, 6, 5, 5)
    for channel in range(6):
        group = range(0, 3) if channel < 3 else range(3, 6)
        for place, source in enumerate(group):
            for i in range(3):
                for j in range(3):
                    weight = weights["conv2.weight"][channel, place, i, j]
                    out[:, channel] += weight * y[:, source, i : i + 5, j : j + 5]
        out[:, channel] += weights["conv2.bias"][channel]
    out = torch.einsum("oi,nihw->nohw", weights["conv3.weight"][:, :, 0, 0], leaky(out))
    assert torch.allclose(block(x), x + out + weights["conv3.bias"][:, None, None], atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (28, 3), (32, 1), (32, 3)])
def test_r3gan_pair_as_it_comes(size: int, channels: int) -> None:
    generator, discriminator = R3GANGenerator(10, channels, size), R3GANDiscriminator(10, channels, size)
    labels = torch.arange(10)
    images = generator(torch.randn(10, generator.latent_dim), labels)
    assert images.shape == (10, channels, size, size)
    assert discriminator(images, labels).shape == (10,)
    assert not uses_batch_statistics(generator)
    assert not uses_batch_statistics(discriminator)
    with pytest.raises(UsageError, match=r"group_width: expected a divisor of channels times expansion \(36\), got 16"):
        R3GANGenerator(10, 1, 28, channels=(18, 18, 18))


@pytest.mark.parametrize(
    "generator",
    [
        MLPGenerator(10, 1, 8, hidden=(8,), batch_norm=True),
        DCGANGenerator(10, 1, 8, channels=(4, 4)),
        DCGANGenerator(10, 1, 8, channels=(4, 4), conditional_batch_norm=True),
        ResNetGenerator(10, 1, 8, channels=(4, 4)),
    ],
    ids=["mlp", "plain", "conditional", "resnet"],
)
def test_sync_batchnorm_reaches_every_normalisation(generator: Generator) -> None:
    labels, latents = torch.arange(6), torch.randn(6, generator.latent_dim)
    generator(latents, labels)
    expected = copy.deepcopy(generator).eval()(latents, labels)
    converted = TorchSyncBatchNorm().apply(copy.deepcopy(generator))
    assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    assert not any(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in converted.modules())
    assert converted.state_dict().keys() == generator.state_dict().keys()
    assert torch.equal(TorchSyncBatchNorm().revert(converted).eval()(latents, labels), expected)


def test_residual_up_block_shortcut_commutes_with_magnification() -> None:
    """The cheap order, convolve and then magnify, gives what the papers' order gives."""
    shortcut = nn.Conv2d(3, 2, 1)
    x = torch.randn(1, 3, 4, 4)
    magnify = nn.Upsample(scale_factor=2)
    assert torch.allclose(magnify(shortcut(x)), shortcut(magnify(x)), atol=1e-6)


def test_batch_statistics_are_found() -> None:
    assert uses_batch_statistics(MLPGenerator(2, 1, 8, batch_norm=True))
    assert uses_batch_statistics(ResNetGenerator(2, 1, 8, channels=(8, 4)))
    assert not uses_batch_statistics(DCGANDiscriminator(2, 1, 8, channels=(4,), dropout=0.3))


def test_frozen_network_passes_gradients_and_keeps_its_own_setting() -> None:
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with frozen(network):
        network(x).sum().backward()
    assert x.grad is not None
    assert network.weight.grad is None
    assert network.weight.requires_grad
    assert not network.bias.requires_grad


@pytest.mark.parametrize("cls", [MLPGenerator, DCGANGenerator, ResNetGenerator])
def test_networks_can_be_copied(cls: type[Generator]) -> None:
    generator = cls(3, 1, 8)  # type: ignore[call-arg]
    twin = copy.deepcopy(generator)
    latents, labels = torch.randn(2, generator.latent_dim), torch.tensor([0, 2])
    assert torch.equal(generator(latents, labels), twin(latents, labels))
    assert twin.init_args == generator.init_args == {"num_classes": 3, "image_channels": 1, "image_size": 8}
