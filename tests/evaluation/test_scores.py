"""Scores against independent computations, and where they must move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from scipy.stats import multivariate_normal
from torch import Tensor

from lightning_cgan import DigitsData
from lightning_cgan.core.images import signed_from_pixels
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.fakes import choose
from lightning_cgan.evaluation.judge import SHIPPED, get_judge
from lightning_cgan.evaluation.neighbours import mean_distance, nearest_of, support_scores
from lightning_cgan.evaluation.parzen import log_likelihoods, parzen_window
from lightning_cgan.evaluation.scores import (
    Features,
    all_scores,
    extract_features,
    frechet_distance,
    kernel_distance,
    quick_scores,
)


def features(count: int, shift: float, seed: int, width: int = 6) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=chance) @ torch.randn(width, width, generator=chance)
    return mixed + shift


# ---- against other computations ----------------------------------------------------------------------------------------


def test_frechet_distance_by_matrix_root() -> None:
    candidates, references = features(300, 0.0, 0), features(200, 0.5, 1)
    mean = candidates.double().mean(0).numpy() - references.double().mean(0).numpy()
    covariances = [np.cov(part.double().numpy(), rowvar=False) for part in (candidates, references)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = mean @ mean + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(candidates, references) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_known_gaussians() -> None:
    """Between N(0, 1) and N(3, 4) it is 3² + (1 - 2)² in each dimension; here with exactly these moments."""
    points = torch.tensor([[-1.0], [1.0]]).repeat(500, 1) * math.sqrt(999 / 1000)
    assert frechet_distance(points, 2 * points + 3) == pytest.approx(10.0, rel=1e-5)


def test_kernel_distance_by_its_definition() -> None:
    candidates, references = features(40, 0.0, 0), features(40, 0.3, 1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x.double() @ y.double()) / 6 + 1) ** 3

    def mean_of(rows: Tensor, others: Tensor, skip_same: bool) -> float:
        values = [kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(others) if not (skip_same and i == j)]
        return sum(values) / len(values)

    expected = mean_of(candidates, candidates, True) + mean_of(references, references, True)
    expected -= 2 * mean_of(candidates, references, False)
    state = torch.get_rng_state()
    # A subset of all images is all of them, whatever the order.
    assert kernel_distance(candidates, references, subset_size=40) == pytest.approx(expected, rel=1e-3)
    assert torch.equal(state, torch.get_rng_state())


def test_support_scores_by_loops() -> None:
    candidates, references, k = features(60, 0.0, 0), features(50, 1.0, 1), 3
    fake, real = candidates.double().numpy(), references.double().numpy()
    reach_real = [sorted(np.linalg.norm(real - r, axis=1))[k] for r in real]
    reach_fake = [sorted(np.linalg.norm(fake - f, axis=1))[k] for f in fake]
    inside = [[np.linalg.norm(f - r) <= reach for r, reach in zip(real, reach_real, strict=True)] for f in fake]
    recalled = [any(np.linalg.norm(r - f) <= reach for f, reach in zip(fake, reach_fake, strict=True)) for r in real]
    covered = [min(np.linalg.norm(fake - r, axis=1)) <= reach for r, reach in zip(real, reach_real, strict=True)]
    expected = {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean(recalled),
        "density": np.sum(inside) / (k * len(fake)),
        "coverage": np.mean(covered),
    }
    assert support_scores(candidates, references, k) == pytest.approx(expected)
    assert 0 < expected["coverage"] < 1


def test_nearest_and_mean_distance_by_brute_force() -> None:
    candidates, others = features(30, 0.0, 0), features(2500, 0.0, 1)
    expected = cdist(candidates.double().numpy(), others.double().numpy())
    distances, places = nearest_of(candidates.view(30, 1, 2, 3), others.view(-1, 1, 2, 3).split(700))
    assert places.tolist() == expected.argmin(1).tolist()
    assert torch.allclose(distances.double(), torch.from_numpy(expected.min(1)), atol=1e-3)
    assert mean_distance(others) == pytest.approx(pdist(others.double().numpy()).mean(), rel=1e-5)
    assert mean_distance(others[:1]) == 0


def test_parzen_window_by_densities() -> None:
    centres, images = features(20, 0.0, 0), features(10, 0.2, 1)
    densities = [
        np.mean([multivariate_normal.pdf(x.numpy(), c.numpy(), 0.5**2 * np.eye(6)) for c in centres]) for x in images
    ]
    assert log_likelihoods(centres, images, 0.5).tolist() == pytest.approx(np.log(densities).tolist(), rel=1e-4)
    found = parzen_window(centres, images[:5], images[5:])
    at_width = log_likelihoods(centres, images[5:], found["width"])
    assert found["mean"] == pytest.approx(at_width.mean().item())
    assert found["error"] == pytest.approx(at_width.std().item() / math.sqrt(5))
    by_width = {width: log_likelihoods(centres, images[:5], width).mean() for width in (0.1, 0.3, 0.9, found["width"])}
    assert max(by_width, key=lambda width: by_width[width]) == found["width"]


def test_scores_by_class_worked_by_hand() -> None:
    """Two classes on a line: fakes of class 0 are half as far apart as the real ones, one of four is misjudged."""
    line = torch.tensor([0.0, 2.0, 10.0, 14.0])[:, None]
    labels = torch.tensor([0, 0, 1, 1])
    references = Features(line, labels, torch.ones(4), labels)
    candidates = Features(
        torch.tensor([0.5, 1.5, 10.0, 14.0])[:, None], torch.tensor([0, 1, 1, 1]), torch.ones(4), labels
    )
    found = all_scores(candidates, references, num_classes=3)
    assert found["gan_test"] == 0.75
    assert found["gan_test_by_class"] == [0.5, 1.0, None]
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found["diversity_by_class"] == [0.5, 1.0, None]
    assert found["diversity"] == 0.75
    # Class 0: the means are equal, the deviations 0.5 · √2 and √2, so (√2 - √2 / 2)² = 0.5.
    assert found["judge_fid_by_class"] == [pytest.approx(0.5, abs=1e-6), pytest.approx(0.0, abs=1e-6), None]


# ---- where they must move ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> DigitsData:
    data = DigitsData()
    data.setup("test")
    return data


@pytest.fixture(scope="module")
def judge(digits: DigitsData) -> Judge:
    """The shipped one: nothing is trained."""
    found = get_judge(digits.in_order("train"), digits.in_order("validation"), 10, torch.device("cpu"))
    assert list(SHIPPED.glob("DigitsData.safetensors"))
    return found.judge


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield signed_from_pixels(images), labels


def test_scores_move_as_they_must(digits: DigitsData, judge: Judge) -> None:
    everything = digits.in_order("test")
    references = extract_features(judge, choose(everything, torch.arange(0, 360, 2)))
    real = choose(everything, torch.arange(1, 360, 2))
    assert isinstance(real.images, Tensor)
    floor = all_scores(extract_features(judge, real), references, 10)
    assert floor["gan_test"] > 0.95
    assert 0.8 < floor["diversity"] < 1.25

    shuffled = all_scores(extract_features(judge, batches(real.images, real.labels.roll(7))), references, 10)
    assert shuffled["gan_test"] < 0.3
    assert shuffled["judge_fid"] == pytest.approx(floor["judge_fid"], rel=1e-4)  # it does not look at labels
    assert min(shuffled["judge_fid_by_class"]) > max(floor["judge_fid_by_class"])  # these do

    first = torch.stack([real.images[real.labels == label][0] for label in real.labels.tolist()])
    repeated = all_scores(extract_features(judge, batches(first, real.labels)), references, 10)
    assert repeated["gan_test"] > 0.85
    assert repeated["diversity"] < 0.01
    assert repeated["coverage"] < 0.6 * floor["coverage"]
    assert repeated["recall"] < 0.1
    assert repeated["judge_fid"] > 1.3 * floor["judge_fid"]

    noise = torch.randint(0, 256, real.images.shape, dtype=torch.uint8)
    noisy = all_scores(extract_features(judge, batches(noise, real.labels)), references, 10)
    assert noisy["gan_test"] < 0.3
    assert noisy["judge_fid"] > 2 * floor["judge_fid"]
    assert noisy["judge_kid"] > 2 * abs(floor["judge_kid"])
    assert noisy["coverage"] < 0.5 * floor["coverage"]


def test_quick_scores_are_those_of_the_full_ones(digits: DigitsData, judge: Judge) -> None:
    references = extract_features(judge, digits.in_order("validation"))
    candidates = extract_features(judge, choose(digits.in_order("train"), torch.arange(100)))
    full = all_scores(candidates, references, 10)
    assert quick_scores(candidates, references) == {name: full[name] for name in ("gan_test", "judge_fid", "diversity")}


def test_a_copied_training_set_is_found(digits: DigitsData) -> None:
    train = digits.in_order("train")
    copies, _ = next(iter(train))
    distances, places = nearest_of(copies[:50], (images for images, _ in train))
    assert distances.max() < 1e-2  # float32 by way of a matrix product
    assert places.tolist() == list(range(50))
    test, _ = next(iter(digits.in_order("test")))
    assert nearest_of(test, (images for images, _ in train))[0].mean() > 1


def test_scores_of_a_single_class_and_of_too_few_images() -> None:
    alone = Features(
        torch.randn(3, 4), torch.zeros(3, dtype=torch.int64), torch.ones(3), torch.zeros(3, dtype=torch.int64)
    )
    assert all_scores(alone, alone, num_classes=1)["confusion"] == [[3]]
    one = Features(*(column[:1] for column in alone))
    few = all_scores(one, alone, num_classes=1)
    assert few["gan_test"] == 1.0
    assert all(math.isnan(few[name]) for name in ("judge_fid", "judge_kid", "precision", "coverage", "diversity"))


class Apple(Tensor):
    """A tensor on a device that has no float64; what comes from it stays there until it is asked for on the CPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return found.as_subclass(Tensor)
        if isinstance(found, Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return found


def test_devices_without_float64_measure_the_same() -> None:
    chance = torch.Generator().manual_seed(0)
    fakes, validation, test = (torch.rand(count, 1, 4, 4, generator=chance) for count in (30, 10, 20))
    on_apple = [images.as_subclass(Apple) for images in (fakes, validation, test)]
    with pytest.raises(TypeError, match="float64"):
        on_apple[0].double()
    assert parzen_window(*on_apple) == parzen_window(fakes, validation, test)
    assert log_likelihoods(*on_apple[:2], 0.3).dtype == torch.float64
    features = test.flatten(1)
    assert mean_distance(features.as_subclass(Apple)) == mean_distance(features)
    assert support_scores(on_apple[0].flatten(1), on_apple[2].flatten(1)) == support_scores(fakes.flatten(1), features)
    distances, places = nearest_of(on_apple[0], iter([on_apple[2]]))
    expected, expected_places = nearest_of(fakes, iter([test]))
    assert torch.equal(distances.cpu(), expected)
    assert torch.equal(places.cpu(), expected_places)
