"""Scores of labelled images in the feature space of a Judge, the reference classifier of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_cgan.evaluation.classifiers import Judge, forked_rng
from lightning_cgan.evaluation.neighbours import mean_distance, support_scores

_FEWEST = 2

QUICK_SCORES = ("gan_test", "judge_fid", "diversity")  # what quick_scores returns


class Features(NamedTuple):
    """The outputs of a Judge for labelled images."""

    features: Tensor  # (N, D)
    predicted: Tensor  # the predicted classes, (N,)
    confidence: Tensor  # the predicted probability of each image's own label, from 0 to 1, (N,)
    labels: Tensor  # the images' own labels, (N,)


@torch.no_grad()
def extract_features(judge: Judge, batches: Iterable[tuple[Tensor, Tensor]]) -> Features:
    """Applies a Judge, in float32 on its device, to images (N, C, H, W) in [-1, 1] with labels (N,)."""
    device = next(judge.parameters()).device
    rows = []
    for images, labels in batches:
        labels = labels.to(device)
        features = judge.features(images.to(device))
        logits = judge.head(features)
        confidence = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        row = Features(features, logits.argmax(1), confidence, labels)
        # Scores need float64, which Apple's GPUs lack.
        rows.append(Features(*(column.cpu() for column in row)) if device.type == "mps" else row)
    return Features(*(torch.cat(columns) for columns in zip(*rows, strict=True)))


def quick_scores(candidates: Features, references: Features) -> dict[str, float]:
    """The scores of candidates that cost little more than one pass of the Judge over the images.

    Returns:
        `gan_test`, the share of candidates to which the Judge gives their own label (Shmelkov et al. 2018,
        arXiv:1807.09499), from 0 to 1; `judge_fid`, the Fréchet distance of their features from those of real images;
        `diversity`, the mean distance between the features of two candidates of a class, relative to that between two
        real images, averaged over the classes.
    """
    return _quick_scores(candidates, references, _diversities(candidates, references))


def _quick_scores(candidates: Features, references: Features, diversities: dict[int, float]) -> dict[str, float]:
    return {
        "gan_test": (candidates.predicted == candidates.labels).float().mean().item(),
        "judge_fid": frechet_distance(candidates.features, references.features),
        "diversity": sum(diversities.values()) / len(diversities) if diversities else float("nan"),
    }


def all_scores(candidates: Features, references: Features, num_classes: int) -> dict[str, Any]:
    """Every score of candidates in a Judge's feature space, against real images.

    Returns:
        The scores of `quick_scores` and `support_scores`; `judge_kid`; and by class `gan_test_by_class`,
        `judge_fid_by_class`, `diversity_by_class` and `confusion`, whose rows are labels and whose columns are
        predicted classes. A class with too few images has no score (None).
    """
    cells = candidates.labels * num_classes + candidates.predicted
    confusion = cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)  # also of a single class
    counts = confusion.sum(1)
    diversities = _diversities(candidates, references)
    return {
        **_quick_scores(candidates, references, diversities),
        "judge_kid": kernel_distance(candidates.features, references.features),
        **support_scores(candidates.features, references.features),
        "gan_test_by_class": [
            (confusion[label, label] / counts[label]).item() if counts[label] else None for label in range(num_classes)
        ],
        "judge_fid_by_class": [
            frechet_distance(*pair) if min(map(len, pair)) >= _FEWEST else None
            for pair in (_of_class(label, candidates, references) for label in range(num_classes))
        ],
        "diversity_by_class": [diversities.get(label) for label in range(num_classes)],
        "confusion": confusion.tolist(),
    }


def frechet_distance(candidates: Tensor, references: Tensor) -> float:
    """The Fréchet distance between two sets of features, each modelled as a normal distribution.

    From Heusel et al. 2017 (arXiv:1706.08500), with a Judge's features, shapes (N, D) and (M, D), instead of
    Inception's. NaN with fewer than two candidates or references.
    """
    if min(len(candidates), len(references)) < _FEWEST:
        return float("nan")
    metric = FrechetInceptionDistance(_Features(references), sync_on_compute=False).to(references.device)
    metric.update(references, real=True)
    metric.update(candidates, real=False)
    return float(metric.compute())


def kernel_distance(candidates: Tensor, references: Tensor, subset_size: int = 1000) -> float:
    """The squared maximum mean discrepancy with a cubic kernel, averaged over random subsets.

    From Bińkowski et al. 2018 (arXiv:1801.01401), with a Judge's features, shapes (N, D) and (M, D), instead of
    Inception's. The estimate is unbiased, and so may be slightly below 0. Smaller sets are used whole.
    """
    subset_size = min(subset_size, len(candidates), len(references))
    if subset_size < _FEWEST:
        return float("nan")
    with warnings.catch_warnings():  # a warning about memory, which features take little of
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(_Features(references), subset_size=subset_size, sync_on_compute=False)
    metric.to(references.device)
    metric.update(references, real=True)
    metric.update(candidates, real=False)
    with forked_rng(0), torch.no_grad():  # samples the subsets
        return float(metric.compute()[0])


def _diversities(candidates: Features, references: Features) -> dict[int, float]:
    ratios = {}
    for label in references.labels.unique().tolist():
        pair = _of_class(label, candidates, references)
        if min(map(len, pair)) >= _FEWEST:
            spread, expected = map(mean_distance, pair)
            ratios[label] = spread / expected if expected else float("nan")
    return ratios


def _of_class(label: int, *sets: Features) -> tuple[Tensor, ...]:
    return tuple(each.features[each.labels == label] for each in sets)


class _Features(nn.Identity):
    """Replaces the network of a torchmetrics metric, since its inputs are features already.

    The metrics must not sync: one process computes the scores, while the others wait elsewhere.
    """

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.num_features = features.shape[1]
