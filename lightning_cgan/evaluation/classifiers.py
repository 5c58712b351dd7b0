"""Two small classifiers, the Judge and the Student, and their training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.hardware import fastest_precision
from lightning_cgan.core.images import ImageSize, height_and_width, size_text

Batches = Iterable[tuple[Tensor, Tensor]]


class Judge(nn.Module):
    """The reference classifier: a convolutional network whose features measure how much images differ.

    Six 3 x 3 convolutions with batch normalisation and ReLU, average pooling over the image, then one dense layer.
    Images whose longer side has more than 32 and more than 64 pixels are downsampled once more each.
    """

    num_features = 128

    def __init__(self, num_classes: int, image_channels: int, image_size: ImageSize) -> None:
        super().__init__()
        widths = (image_channels, 32, 32, 64, 64, 96, self.num_features)
        longer = max(height_and_width(image_size))
        strides = (1, 2, 1, 2, 2 if longer > 32 else 1, 2 if longer > 64 else 1)
        layers: list[nn.Module] = []
        for entering, leaving, stride in zip(widths, widths[1:], strides, strict=False):
            layers.append(nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(leaving), nn.ReLU()]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(self.num_features, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> features (N, num_features)."""
        features: Tensor = self.trunk(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> class logits (N, num_classes)."""
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits


class Student(nn.Sequential):
    """The classifier of GAN-train: 3 x 3 convolutions to 32 and 64 channels, pooling, a dense layer of 128, dropout.

    The network of Keras's first example for MNIST, which Bie, Kamath & Zhang 2023 (arXiv:2302.02936) train on generated
    images.
    """

    def __init__(self, num_classes: int, image_channels: int, image_size: ImageSize) -> None:
        height, width = height_and_width(image_size)
        if min(height, width) < 6:
            got = size_text(image_size)
            raise UsageError(
                f"--data.image_size: expected 6 or more for the students of a report, got {got}; resize the "
                "images, or disable the report with --report.protocol none"
            )
        positions = (height - 4) // 2 * ((width - 4) // 2)
        # The second ReLU follows the pooling: the same function, with a quarter of the work.
        convolutions = [nn.Conv2d(image_channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.ReLU()]
        dense = [nn.Linear(64 * positions, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, num_classes)]
        super().__init__(*convolutions, nn.Dropout(0.25), nn.Flatten(), *dense)
        self.to(memory_format=torch.channels_last)


@torch.enable_grad()
def learn(
    classifier: nn.Module,
    batches: Batches,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    augment: Callable[[Tensor], Tensor] = lambda images: images,
) -> None:
    """Trains a classifier on its own device, one step for each batch of images and labels.

    The classifier maps images (N, C, H, W) in [-1, 1] to class logits (N, num_classes). Matrix products use bfloat16
    where the hardware supports it.
    """
    device = next(classifier.parameters()).device
    precision, _ = fastest_precision(device.type)
    classifier.train()
    for images, labels in batches:
        images, labels = augment(images.to(device)), labels.to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = cross_entropy(classifier(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@torch.no_grad()
def labelled_right(classifier: nn.Module, batches: Batches) -> Tensor:
    """Whether a classifier labels each image correctly, shape (N,), on the CPU."""
    device = next(classifier.parameters()).device
    classifier.eval()
    right = [(classifier(images.to(device)).argmax(1) == labels.to(device)).cpu() for images, labels in batches]
    return torch.cat(right) if right else torch.empty(0, dtype=torch.bool)


def accuracy(classifier: nn.Module, batches: Batches) -> float:
    """The share of images, from 0 to 1, that a classifier labels correctly."""
    right = labelled_right(classifier, batches)
    return int(right.sum()) / len(right) if len(right) else float("nan")


@contextmanager
def forked_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds PyTorch's global generators of the CPU and of one GPU, and restores their states on exit."""
    with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
