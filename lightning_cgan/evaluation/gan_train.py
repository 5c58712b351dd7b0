"""GAN-train: the accuracy on real images of a classifier trained on generated images only.

The measure is from Shmelkov et al. 2018 (arXiv:1807.09499); the classifier and the numbers are from Bie, Kamath & Zhang
2023 (arXiv:2302.02936): 55,000 generated images, ten epochs, the best epoch chosen on 5,000 more.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Adam

from lightning_cgan.data.loader import OrderedLoader, ShufflingLoader
from lightning_cgan.evaluation.classifiers import Student, accuracy, forked_rng, learn

_BATCH_SIZE = 64


def train_student(
    training_images: Callable[[int], OrderedLoader],
    selection_set: OrderedLoader,
    num_classes: int,
    epochs: int,
    seed: int,
    device: torch.device,
) -> tuple[Student, dict[str, Any]]:
    """Trains a Student and returns it as it was after its best epoch, with its `epoch` and `chosen_by_accuracy`.

    `training_images` returns the images of an epoch, counted from 0. The `selection_set` chooses the epoch, and so must
    not be the test split. The `seed` determines weights, order and dropout.
    """
    best: tuple[float, int, Student] | None = None
    with forked_rng(seed, device):
        for epoch in range(epochs):
            images = training_images(epoch)
            if epoch == 0:
                sample = next(iter(images))[0]
                student = Student(num_classes, sample.shape[1], (sample.shape[2], sample.shape[3])).to(device)
                optimizer = Adam(student.parameters(), lr=1e-3, fused=True)
            batch_size = min(_BATCH_SIZE, len(images.labels))
            batches = ShufflingLoader(images.images, images.labels, batch_size, seed=seed * 1000 + epoch)
            learn(student, batches, optimizer)
            reached = accuracy(student, selection_set)
            if best is None or reached > best[0]:
                best = reached, epoch, copy.deepcopy(student)
    assert best is not None, "there is an epoch"
    return best[2], {"epoch": best[1] + 1, "chosen_by_accuracy": best[0]}


def gan_train(
    training_images: Callable[[int], OrderedLoader],
    selection_set: OrderedLoader,
    test: OrderedLoader,
    num_classes: int,
    epochs: int,
    seeds: Sequence[int],
    device: torch.device,
) -> dict[str, Any]:
    """Trains a Student with each seed, and measures its accuracy on real images; see `train_student`.

    Returns:
        The `mean` accuracy on the real images, from 0 to 1, its standard `deviation` over the seeds, and the results of
        each run.
    """
    runs = []
    for seed in seeds:
        student, run = train_student(training_images, selection_set, num_classes, epochs, seed, device)
        runs.append({"seed": seed, **run, "accuracy": accuracy(student, test)})
    accuracies = [run["accuracy"] for run in runs]
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return {"mean": statistics.fmean(accuracies), "deviation": deviation, "runs": runs}
