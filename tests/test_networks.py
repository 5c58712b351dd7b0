"""The contracts of the networks, and conditioning against slow transcriptions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lightning_cgan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    UsageError,
)
from lightning_cgan.networks.base import frozen, uses_batch_statistics
from lightning_cgan.networks.conditioning import ConditionalBatchNorm2d, LogitHead, concatenate_label

GENERATORS: list[tuple[type[Generator], dict[str, Any]]] = [
    (MLPGenerator, {}),
    (MLPGenerator, {"hidden": (16, 32), "batch_norm": True}),
    (DCGANGenerator, {"channels": (8, 4)}),
    (DCGANGenerator, {"channels": (8, 8, 4), "strides": (1, 2, 2), "kernel_size": 5, "conditional_batch_norm": True}),
    (DCGANGenerator, {"channels": (8, 8, 4), "strides": (2, 1, 2), "kernel_size": 4}),
    (ResNetGenerator, {"channels": (8, 4, 4)}),
]
DISCRIMINATORS: list[tuple[type[Discriminator], dict[str, Any]]] = [
    (MLPDiscriminator, {"hidden": (16,)}),
    (DCGANDiscriminator, {"channels": (4, 8), "dropout": 0.3}),
    (DCGANDiscriminator, {"channels": (4, 8), "kernel_size": 5, "hidden": 16, "conditioning": "concatenation"}),
    (ResNetDiscriminator, {"channels": (4, 8)}),
    (ResNetDiscriminator, {"channels": (4, 8, 8), "conditioning": "concatenation"}),
]
SHAPES = [(10, 1, 28), (3, 3, 32), (1, 1, 8), (1000, 3, 64)]  # classes, channels, size


@pytest.mark.parametrize(("cls", "options"), GENERATORS)
@pytest.mark.parametrize(("num_classes", "channels", "size"), SHAPES)
def test_generator_keeps_its_contract(
    cls: type[Generator], options: dict[str, Any], num_classes: int, channels: int, size: int
) -> None:
    generator = cls(num_classes, channels, size, latent_dim=6, **options)
    labels = torch.randint(num_classes, (5,))
    images = generator(torch.randn(5, 6) * 100, labels)
    assert images.shape == (5, channels, size, size)
    assert images.abs().max() <= 1
    images.square().mean().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


@pytest.mark.parametrize(("cls", "options"), DISCRIMINATORS)
@pytest.mark.parametrize(("num_classes", "channels", "size"), SHAPES)
def test_discriminator_keeps_its_contract(
    cls: type[Discriminator], options: dict[str, Any], num_classes: int, channels: int, size: int
) -> None:
    discriminator = cls(num_classes, channels, size, **options)
    logits = discriminator(torch.rand(5, channels, size, size) * 2 - 1, torch.randint(num_classes, (5,)))
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
@pytest.mark.parametrize(("size", "remedy"), [(30, "28 or 32"), (3, "4")])
def test_impossible_size_names_the_possible_ones(cls: type[Generator], size: int, remedy: str) -> None:
    message = f"{cls.__name__} .* multiple of 4, got {size}; resize the data with --data.image_size {remedy}, or"
    with pytest.raises(UsageError, match=message):
        cls(10, 1, size)  # type: ignore[call-arg]


def test_resnet_discriminator_refuses_images_that_vanish() -> None:
    with pytest.raises(UsageError, match="at least 8 pixels, got 4; resize the data with --data.image_size 8"):
        ResNetDiscriminator(10, 1, 4, channels=(8, 8, 8, 8))


def test_dcgan_needs_a_stride_for_each_channel() -> None:
    with pytest.raises(UsageError, match=r"strides: expected as many as channels \(2\), got 3"):
        DCGANGenerator(10, 1, 28, channels=(8, 4), strides=(1, 2, 2))


def test_concatenation_is_a_loop_over_samples() -> None:
    vectors, maps, labels = torch.randn(4, 3), torch.randn(4, 2, 5, 5), torch.tensor([2, 0, 1, 2])
    for i, label in enumerate(labels):
        code = torch.tensor([1.0 if k == label else 0.0 for k in range(3)])
        assert torch.equal(concatenate_label(vectors, labels, 3)[i], torch.cat([vectors[i], code]))
        planes = torch.stack([torch.full((5, 5), value) for value in code.tolist()])
        assert torch.equal(concatenate_label(maps, labels, 3)[i], torch.cat([maps[i], planes]))


def test_conditional_batch_norm_is_a_loop_over_samples() -> None:
    norm = ConditionalBatchNorm2d(3, num_classes=4)
    nn.init.normal_(norm.scale.weight)
    nn.init.normal_(norm.shift.weight)
    x, labels = torch.randn(6, 3, 5, 5), torch.tensor([0, 1, 2, 3, 1, 1])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    out = norm(x, labels)
    for i, label in enumerate(labels.tolist()):
        for c in range(3):
            plain = (x[i, c] - mean[c]) / (variance[c] + 1e-5).sqrt()
            expected = norm.scale.weight[label, c] * plain + norm.shift.weight[label, c]
            assert torch.allclose(out[i, c], expected, atol=1e-5)


def test_projection_is_its_formula() -> None:
    head = LogitHead(5, num_classes=3, conditioning="projection")
    features, labels = torch.randn(4, 5), torch.tensor([2, 0, 1, 2])
    assert head.embedding is not None
    for i, label in enumerate(labels.tolist()):
        expected = sum((head.linear.weight[0, k] + head.embedding.weight[label, k]) * features[i, k] for k in range(5))
        assert torch.allclose(head(features, labels)[i], expected + head.linear.bias[0], atol=1e-6)


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
