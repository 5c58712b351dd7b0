"""How long a run must be for compiled steps to pay off."""

from __future__ import annotations

import math
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary

from helpers.pairs import PAIRS
from helpers.small_gan import gan
from lightning_cgan import R1, R2, MLPGenerator, NonSaturating, ProgressBar, Translation
from lightning_cgan.objectives.objectives import Objectives
from lightning_cgan.training.compile_choice import count_graphs, is_dense, is_known, steps_to_repay


@pytest.mark.parametrize(
    ("gflop", "dense", "graphs", "steps"),
    [
        (0.0023, True, 1, 6_000),
        (0.15, True, 1, 6_000),  # of mnist_mlp, which has 100,000
        (0.24, True, 1, 6_000),
        (1.53, True, 1, 38_250),  # of mnist_mlp_batchnorm, which has 42,900
        (4.0, True, 2, 200_000),
        (0.1, False, 1, 30_000),
        (0.1, False, 3, 90_000),
        (0.16, False, 1, math.inf),
        (13.28, False, 2, math.inf),  # of mnist
    ],
)
def test_steps_that_repay_a_compilation(gflop: float, dense: bool, graphs: int, steps: float) -> None:
    assert steps_to_repay(gflop, dense, graphs) == pytest.approx(steps)


def test_networks_without_convolutions() -> None:
    assert {name for name, make in PAIRS.items() if is_dense(*make())} == {"mlp", "mlp with batch norm"}
    assert not is_dense(PAIRS["mlp"]()[0], PAIRS["dcgan"]()[1])


def test_each_interval_of_penalties_has_a_graph() -> None:
    assert count_graphs(gan()) == 1
    assert count_graphs(gan(penalties=[R1(0.5), R2(0.5)])) == 1
    assert count_graphs(gan(penalties=[R1(0.5, interval=8), R2(0.5, interval=8)])) == 2
    assert count_graphs(gan(penalties=[R1(0.5, interval=8), R2(0.5, interval=4)])) == 3
    assert count_graphs(gan(penalties=[R1(0.5, interval=2), R2(0.5, interval=3)])) == 4  # none, each, both


class OwnGenerator(MLPGenerator):
    pass


class OwnLoss(NonSaturating):
    pass


class OwnPenalty(R1):
    pass


class OwnAugmentation(Translation):
    pass


class OwnCallback(Callback):
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"generator": OwnGenerator(10, 1, 8, latent_dim=4)},
        {"loss": OwnLoss()},
        {"penalties": [R1(0.5), OwnPenalty(0.5)]},
        {"augmentations": [OwnAugmentation()]},
    ],
)
def test_parts_from_elsewhere_are_not_compiled_unasked(options: dict[str, Any]) -> None:
    assert not is_known(gan(**options), [])


def test_parts_and_callbacks_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    module = gan(penalties=[R1(0.5)], augmentations=[Translation()])
    assert is_known(module, [ProgressBar(), ModelSummary()])
    assert not is_known(module, [ProgressBar(), OwnCallback()])
    module.discriminator.layers.append(OwnGenerator(10, 1, 8))  # type: ignore[operator, union-attr]
    assert not is_known(module, [])
    monkeypatch.setattr(Objectives, "__module__", "elsewhere")
    assert not is_known(gan(), [])
