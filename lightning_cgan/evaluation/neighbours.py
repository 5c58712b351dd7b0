"""Measures based on nearest neighbours among real and generated images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_ROWS = 1024  # rows of the distance matrix in memory at a time


def support_scores(candidates: Tensor, references: Tensor, nearest_k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage: how far candidates and references overlap in feature space.

    Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv:1904.06991, equations 1 to 3), density and
    coverage those of Naeem et al. 2020 (arXiv:2002.09797, equations 4 and 6), all with the same number of neighbours.
    They are comparable only between sets of the same sizes.

    Args:
        candidates: Features, shape (N, D).
        references: Features of real images, shape (M, D).
        nearest_k: The number of neighbours that define the radius of an image, not counting itself.

    Returns:
        Precision, recall and coverage, from 0 to 1, and density, 0 or more; for identical distributions, density is 1
        on average. All are NaN with fewer than two candidates or references.
    """
    nearest_k = min(nearest_k, len(candidates) - 1, len(references) - 1)
    if nearest_k < 1:
        return dict.fromkeys(("precision", "recall", "density", "coverage"), float("nan"))
    reach_of_references = _reach(references, nearest_k)
    reach_of_candidates = _reach(candidates, nearest_k)
    precise, dense = 0, 0
    is_recalled = torch.zeros(len(references), dtype=torch.bool, device=references.device)
    nearest = torch.full_like(reach_of_references, torch.inf)
    for rows, reach in zip(candidates.split(_ROWS), reach_of_candidates.split(_ROWS), strict=True):
        distances = torch.cdist(rows, references)
        within = distances <= reach_of_references
        precise += int(within.any(1).sum())
        dense += int(within.sum())
        is_recalled |= (distances <= reach[:, None]).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    return {
        "precision": precise / len(candidates),
        "recall": is_recalled.float().mean().item(),
        "density": dense / (nearest_k * len(candidates)),
        "coverage": (nearest <= reach_of_references).float().mean().item(),
    }


def nearest_of(candidates: Tensor, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The nearest of many images to each candidate, by Euclidean distance between pixels.

    Args:
        candidates: Images or features, shape (N, …).
        batches: Batches of the other images, shape (M, …).

    Returns:
        Distances, shape (N,), and the indices of the nearest images among all of `batches`, shape (N,).
    """
    rows = candidates.flatten(1)
    distances = torch.full((len(rows),), torch.inf, device=rows.device)
    indices = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    first = 0  # the index of the first image of a batch
    for batch in batches:
        others = batch.to(rows.device).flatten(1)
        found = [torch.cdist(part, others).min(1) for part in rows.split(_ROWS)]
        here, index = (torch.cat(columns) for columns in zip(*found, strict=True))
        indices = torch.where(here < distances, index + first, indices)
        distances = torch.minimum(distances, here)
        first += len(others)
    return distances, indices


def mean_distance(features: Tensor) -> float:
    """The mean Euclidean distance between pairs of features, shape (N, D); 0 for a single one."""
    pairs = len(features) * (len(features) - 1)
    total = sum(in_float64(torch.cdist(rows, features)).sum() for rows in features.split(_ROWS))
    return float(total) / pairs if pairs else 0.0


def in_float64(values: Tensor) -> Tensor:
    """Converts values to float64 on their device, or on the CPU if the device has no float64 (Apple GPUs)."""
    try:
        return values.double()
    except (TypeError, RuntimeError):
        return values.cpu().double()


def _reach(features: Tensor, nearest_k: int) -> Tensor:
    """The distance from each image to its k-th neighbour; its nearest image is itself, hence k + 1."""
    return torch.cat([torch.cdist(r, features).kthvalue(nearest_k + 1, dim=1).values for r in features.split(_ROWS)])
