"""What a space may hold, and what each option's values become on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_cgan.cli.search import _content
from lightning_cgan.core.errors import UsageError
from lightning_cgan.search.space import Choices, Range, read_space

SPACE = """
model.generator_optimizer.init_args.lr: {low: 1e-4, high: 1e-2, log: true}
model:
  penalties:
    gamma: {low: 0.0, high: 1.0, step: 0.1}
  loss: [NonSaturating, Hinge]
  ema_half_life: [null, 4000]
--data.batch_size: {low: 16, high: 64, step: 16}
data.init_args.balance: [true, false]
model.augmentations: [null, [{class_path: Flip, init_args: {probability: 0.5}}]]
"""


def test_each_kind_of_option(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE)
    assert read_space(str(file), _content(file)) == [
        Range("model.generator_optimizer.lr", 0.0001, 0.01, log=True),
        Range("model.penalties.gamma", 0.0, 1.0, step=0.1),
        Choices("model.loss", ("NonSaturating", "Hinge")),
        Choices("model.ema_half_life", ("null", "4000")),
        Range("data.batch_size", 16, 64, step=16),
        Choices("data.balance", ("true", "false")),
        Choices("model.augmentations", ("null", '[{"class_path": "Flip", "init_args": {"probability": 0.5}}]')),
    ]


@pytest.mark.parametrize(
    ("varied", "possible"),
    [
        (Range("x", 16, 64, step=16), {"16", "32", "48", "64"}),
        (Range("x", 3, 5), {"3", "4", "5"}),
        (Range("x", 1, 3, log=True), {"1", "2", "3"}),
        (Range("x", 0.0, 1.0, step=0.5), {"0.0", "0.5", "1.0"}),
        (Choices("x", ("null", "4000")), {"null", "4000"}),
    ],
)
def test_values_are_those_that_the_space_names(varied: Range | Choices, possible: set[str]) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {varied.suggest(study.ask()) for _ in range(100)} == possible


def test_a_range_of_fractions_stays_within_and_log_means_equal_factors() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = [float(Range("x", 1e-4, 1.0, log=True).suggest(study.ask())) for _ in range(400)]
    assert min(values) >= 1e-4
    assert max(values) <= 1.0
    below = sum(value < 1e-2 for value in values)
    assert 160 < below < 240  # half of them, with five standard deviations around


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--space: expected options with the values to try in s.yaml, got nothing; --help describes them"),
        ([1], "--space: expected options with the values to try in s.yaml, got [1]; --help describes them"),
        ({"x": []}, "--space: x: expected a list of values, or a mapping with low and high, got an empty list; give [1, 2] or {low: 1, high: 2}"),
        ({"x": 3}, "--space: x: expected a list of values, or a mapping with low and high, got 3; give [1, 2] or {low: 1, high: 2}"),
        ({"x": {}}, "--space: x: expected low and high, got no low; give it"),
        ({"x": {"low": 1}}, "--space: x: expected low and high, got no high; give it"),
        ({"x": {"low": 1, "high": 2, "mid": 3}}, "--space: x: expected low, high, log, step, got mid; remove it"),
        ({"x": {"low": "a", "high": 2}}, "--space: x.low: expected a number, got 'a'; give one"),
        ({"x": {"low": True, "high": 2}}, "--space: x.low: expected a number, got true; give one"),
        ({"x": {"low": 1, "high": float("inf")}}, "--space: x.high: expected a number, got Infinity; give one"),
        ({"x": {"low": 2, "high": 2}}, "--space: x: expected low to be below high, got 2 and 2; exchange or change them"),
        ({"x": {"low": 0, "high": 2, "log": True}}, "--space: x.low: expected a number above 0 with log: true, got 0; give one, or omit log"),
        ({"x": {"low": 1, "high": 2, "log": 1}}, "--space: x.log: expected true or false, got 1; give one of them"),
        ({"x": {"low": 1, "high": 2, "log": True, "step": 1}}, "--space: x.step: expected none with log: true, got 1; omit one of them"),
        ({"x": {"low": 1, "high": 2, "step": 0}}, "--space: x.step: expected a number above 0, got 0; give one"),
        ({"x": {"low": 1, "high": 2, "step": 0.5}}, "--space: x.step: expected a whole number, as low and high are, got 0.5; write 1.0"),
        ({"x": {"low": 16, "high": 60, "step": 16}}, "--space: x.high: expected low plus some steps, got 60; give 48, or another step"),
        ({"x": [1, 2, 1]}, "--space: x: expected different values, got 1 twice; remove one of them"),
        ({"x.y": [1], "x": {"y": [2]}}, "--space: expected each option once, got x.y twice; remove one of them"),
        ({"name": ["a"]}, "--space: expected options that may vary, got name, which does not change the generator; remove it"),
        ({"wandb.mode": ["a"]}, "--space: expected options that may vary, got wandb.mode, which does not change the generator; remove it"),
        ({"data.init_args.image_size": [8, 16]}, "--space: expected options that may vary, got data.image_size, which changes what the score measures; remove it"),
        ({"scores": {"images": [1, 2]}}, "--space: expected options that may vary, got scores.images, which changes what the score measures; remove it"),
    ],
)  # fmt: skip
def test_what_no_space_holds(content: Any, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_space("s.yaml", content)
    assert str(raised.value) == message


def test_a_step_counts_as_it_is_written() -> None:
    (found,) = read_space("s.yaml", {"x": {"low": 0.1, "high": 0.7, "step": 0.1}})  # 0.6 / 0.1 is below 6 in binary
    assert found == Range("x", 0.1, 0.7, step=0.1)


@pytest.mark.parametrize("name", ["seed_everything", "data.batch_size", "trainer.max_steps", "model.loss"])
def test_what_may_vary(name: str) -> None:
    assert read_space("s.yaml", {name: [1, 2]}) == [Choices(name, ("1", "2"))]
