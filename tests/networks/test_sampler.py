"""What `generate` takes, from Python, and what it refuses in one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating, UsageError


@pytest.fixture(scope="module")
def gan() -> ConditionalGAN:
    return ConditionalGAN(MLPGenerator(3, 1, 8, latent_dim=4), MLPDiscriminator(3, 1, 8), NonSaturating())


LATENTS = torch.linspace(-1, 1, 8).reshape(2, 4)


@pytest.mark.parametrize("labels", [(2, 0), range(2, -1, -2), np.array([2, 0], np.uint8), list(torch.tensor([2, 0]))])
def test_labels_of_other_kinds(gan: ConditionalGAN, labels: Any) -> None:
    assert torch.equal(gan.generate(labels, LATENTS), gan.generate(torch.tensor([2, 0]), LATENTS))


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_mixtures_of_other_kinds(gan: ConditionalGAN, kind: torch.dtype) -> None:
    codes = torch.tensor([[0, 0, 1], [1, 0, 0]], dtype=kind)
    assert torch.allclose(gan.generate(codes, LATENTS), gan.generate([2, 0], LATENTS), atol=1e-6)
    if kind.is_floating_point:
        gan.generate(torch.full((2, 3), 1 / 3, dtype=kind), LATENTS)


def test_no_labels_are_no_images(gan: ConditionalGAN) -> None:
    assert gan.generate([]).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ("7", "'7'"),
        (None, "None"),
        (10**30, "1000000000000000000000000000000"),
        ([1, "a"], "[1, 'a']"),
        ([[1, 0, 0], [0]], "[[1, 0, 0], [0]]"),
        (1.5, "torch.float32 of shape ()"),
        ([0.0, 1.0], "torch.float32 of shape (2,)"),
        ([True, False], "torch.bool of shape (2,)"),
        ([[0.5, 0.5]], "torch.float32 of shape (1, 2)"),
        (torch.zeros(1, 3, 1), "torch.float32 of shape (1, 3, 1)"),
        ([[0.5, 0.5, 0.5]], "[0.5, 0.5, 0.5]"),
        ([[1.0, 0.0, 0.0], [1.5, -0.5, 0.0]], "[1.5, -0.5, 0.0]"),
        ([[math.nan, 0.5, 0.5]], "[nan, 0.5, 0.5]"),
        ([[math.inf, 0.0, 0.0]], "[inf, 0.0, 0.0]"),
    ],
)
def test_labels_that_are_none(gan: ConditionalGAN, labels: Any, got: str) -> None:
    with pytest.raises(UsageError) as caught:
        gan.generate(labels)
    assert str(caught.value) == (
        "labels: expected class numbers, or mixtures (N, 3) whose rows are 0 or more and add up to 1, "
        f"got {got}; give classes of the model"
    )


@pytest.mark.parametrize(
    ("latents", "got"),
    [(LATENTS[:1], "(1, 4)"), (LATENTS[:, :3], "(2, 3)"), (LATENTS.flatten(), "(8,)"), ([[0.0] * 4] * 2, "list")],
)
def test_latents_of_another_shape(gan: ConditionalGAN, latents: Any, got: str) -> None:
    with pytest.raises(UsageError) as caught:
        gan.generate([2, 0], latents)
    expected = f"latents: expected a tensor of shape (2, 4), got {got}; sample_latents returns such a tensor"
    assert str(caught.value) == expected


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 1.5, "1"])
def test_seeds_that_do_not_fit(gan: ConditionalGAN, seed: Any) -> None:
    with pytest.raises(UsageError, match=rf"seed: expected a whole number of 64 bits, got {seed}; give another"):
        gan.generate([2, 0], seed=seed)
    assert gan.generate([2], seed=2**63 - 1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "labels", [[2, 0], (2, 0, 2), "2,0", "2, 0", ["2", "0"], np.array([2, 0]), torch.tensor([2, 0])]
)
def test_a_sheet_of_labels_of_other_kinds(gan: ConditionalGAN, labels: Any) -> None:
    assert gan.sheet(labels, count=3).tobytes() == gan.sheet([2, 0], count=3).tobytes()


def test_a_sheet_has_a_row_for_each_class(gan: ConditionalGAN) -> None:
    assert gan.sheet(count=5).size == (5 * 58 + 2, 3 * 58 + 2)  # 8 pixels, seven times as large, and two between
    assert gan.sheet(2).tobytes() == gan.sheet([2]).tobytes() == gan.sheet().crop((0, 116, 466, 176)).tobytes()
    assert gan.sheet(seed=1).tobytes() != gan.sheet().tobytes()
    assert gan.sheet(truncation=0.1).tobytes() != gan.sheet().tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 3]}, "labels: expected names or numbers of classes, got 3; choose from 0, 1, 2"),
        ({"labels": "bag"}, "labels: expected names or numbers of classes, got bag; choose from 0, 1, 2"),
        ({"labels": [0.5]}, "labels: expected names or numbers of classes, got 0.5; choose from 0, 1, 2"),
        ({"labels": 1.5}, "labels: expected names or numbers of classes, got 1.5; choose from 0, 1, 2"),
        ({"labels": []}, "labels: expected classes, got none; name some, or omit them for all"),
        ({"count": 0}, "count: expected 1 or more, got 0; give a positive number"),
        ({"seed": 2**63}, "seed: expected a whole number of 64 bits, got 9223372036854775808; give another"),
        ({"truncation": 0}, "truncation: expected a number above 0, got 0; 1 keeps two thirds of latents"),
    ],
)
def test_what_a_sheet_cannot_show(gan: ConditionalGAN, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        gan.sheet(**options)
    assert str(caught.value) == message


def test_others_move_with_a_generator_and_are_no_part_of_its_weights() -> None:
    def make(ema: float | None) -> ConditionalGAN:
        networks = MLPGenerator(3, 1, 8, latent_dim=4), MLPDiscriminator(3, 1, 8)
        return ConditionalGAN(*networks, NonSaturating(), ema_half_life=ema)

    module, other, averaged = make(None), make(None), make(10.0)
    before = module.state_dict().keys()
    module.others = (other, averaged)
    assert module.generators == (module, other, averaged)
    assert module.state_dict().keys() == before
    assert len(list(module.parameters())) == len(list(other.parameters()))
    module.bfloat16()
    assert averaged.generator_ema is not None
    kinds = [next(one.parameters()).dtype for one in (other.generator, averaged.generator, averaged.generator_ema)]
    assert kinds == [torch.bfloat16, torch.bfloat16, torch.float32]
