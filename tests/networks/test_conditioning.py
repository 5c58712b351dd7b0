"""How a label enters a network, against a loop or a formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cgan import (
    DCGANDiscriminator,
    Discriminator,
    MLPDiscriminator,
    R3GANDiscriminator,
    ResNetDiscriminator,
)
from lightning_cgan.networks.base import discriminate
from lightning_cgan.networks.conditioning import ConditionalBatchNorm2d, LabelInput, LogitHead


@pytest.mark.parametrize("embedding_dim", [None, 2])
def test_label_input_is_a_loop_over_samples(embedding_dim: int | None) -> None:
    label_input = LabelInput(3, embedding_dim)
    vectors, maps, labels = torch.randn(4, 3), torch.randn(4, 2, 5, 5), torch.tensor([2, 0, 1, 2])
    for i, label in enumerate(labels.tolist()):
        code = torch.tensor([1.0 if k == label else 0.0 for k in range(3)])
        if label_input.embedding is not None:
            code = code @ label_input.embedding.weight.detach()
        assert label_input.width == len(code)
        assert torch.allclose(label_input(vectors, labels)[i], torch.cat([vectors[i], code]))
        planes = torch.stack([torch.full((5, 5), value) for value in code.tolist()])
        assert torch.allclose(label_input(maps, labels)[i], torch.cat([maps[i], planes]))


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


def test_classifier_head_is_its_formula() -> None:
    head = LogitHead(5, num_classes=3, conditioning="classifier")
    features = torch.randn(4, 5)
    logits, class_logits = head(features, torch.tensor([2, 0, 1, 2]))
    assert head.classes is not None
    for i in range(4):
        expected = sum(head.linear.weight[0, k] * features[i, k] for k in range(5)) + head.linear.bias[0]
        assert torch.allclose(logits[i], expected, atol=1e-6)
        for c in range(3):
            expected = sum(head.classes.weight[c, k] * features[i, k] for k in range(5)) + head.classes.bias[c]
            assert torch.allclose(class_logits[i, c], expected, atol=1e-6)


def test_projection_and_classifier_stand_side_by_side() -> None:
    head = LogitHead(5, num_classes=3, conditioning="projection_classifier")
    features, labels = torch.randn(4, 5), torch.tensor([2, 0, 1, 2])
    logits, class_logits = head(features, labels)
    assert head.embedding is not None
    assert head.classes is not None
    for i, label in enumerate(labels.tolist()):
        expected = (head.linear.weight[0] + head.embedding.weight[label]) @ features[i] + head.linear.bias[0]
        assert torch.allclose(logits[i], expected, atol=1e-6)
        assert torch.allclose(class_logits[i], head.classes.weight @ features[i] + head.classes.bias, atol=1e-6)


@pytest.mark.parametrize("cls", [MLPDiscriminator, DCGANDiscriminator, ResNetDiscriminator, R3GANDiscriminator])
def test_classifier_names_classes_and_does_not_see_the_label(cls: type[Discriminator]) -> None:
    discriminator = cls(7, 1, 8, conditioning="classifier")  # type: ignore[call-arg]
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    first, second = (discriminate(discriminator, images, torch.full((4,), label)) for label in (0, 3))
    assert discriminator.classifies
    assert first.class_logits is not None
    assert second.class_logits is not None
    assert (first.logits.shape, first.class_logits.shape) == ((4,), (4, 7))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.class_logits, second.class_logits)
