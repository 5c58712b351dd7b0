"""Scores and alarms as a run goes on."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import WandbLogger

from helpers.paths import DIGITS, FIXED_DECAY
from lightning_cgan import ConditionalGAN, DigitsData, TrainingAlarms
from lightning_cgan.evaluation.fakes import at_most
from lightning_cgan.evaluation.judge import get_judge
from lightning_cgan.evaluation.scores import extract_features, frechet_distance

Run = Callable[..., Path]
SMALL = ("--data.image_size", "8", "--trainer.check_val_every_n_epoch", "1")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_validation_has_scores_and_the_best_state_is_kept(run: Run) -> None:
    folder = run(*SMALL, "--trainer.max_steps", "60", "--scores.images", "100")
    scored = [row for row in rows(folder) if row["val_judge_fid"]]
    assert [int(row["step"]) for row in scored] == [20, 40, 60]
    assert all(0 <= float(row["val_gan_test"]) <= 1 and float(row["val_diversity"]) > 0 for row in scored)
    best = min(scored, key=lambda row: float(row["val_judge_fid"]))
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == int(best["step"])

    validation = digits().in_order("validation")
    expected = distance_by_hand(folder / "checkpoints" / "best.ckpt", at_most(validation, 100).labels)
    assert float(best["val_judge_fid"]) == pytest.approx(expected, rel=1e-3)


def test_more_images_are_scored_than_there_are_for_validation(run: Run) -> None:
    folder = run(*SMALL, "--trainer.max_steps", "20", "--scores.images", "300")
    labels = digits().in_order("validation").labels
    assert 2 * len(labels) < 300 < 3 * len(labels)
    expected = distance_by_hand(folder / "checkpoints" / "last.ckpt", torch.cat([labels, labels, labels])[:300])
    assert float(rows(folder)[-1]["val_judge_fid"]) == pytest.approx(expected, rel=1e-3)


def digits() -> DigitsData:
    data = DigitsData()
    data.setup("validate")
    return data


def distance_by_hand(checkpoint: Path, labels: torch.Tensor) -> float:
    """The score of a state, put together from the saved module."""
    module = ConditionalGAN.load_from_checkpoint(checkpoint, map_location="cpu")
    data = digits()
    validation = data.in_order("validation")
    judge = get_judge(data.in_order("train"), validation, 10, torch.device("cpu")).judge
    images = module.generate(labels, module.sample_latents(len(labels), 0))
    pixels = images.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)
    with torch.no_grad():
        return frechet_distance(judge.features(pixels), extract_features(judge, validation).features)


@pytest.mark.ci
def test_scores_can_be_left_out_and_change_nothing(run: Run) -> None:
    weights = []
    for images in ("0", "50"):
        folder = run(
            *SMALL, "--trainer.max_steps", "25", "--scores.images", images, "--model.discriminator.dropout", "0.3"
        )
        checkpoints = {file.name for file in (folder / "checkpoints").iterdir()}
        assert ("best.ckpt" in checkpoints) == (images != "0")
        assert ("val_judge_fid" in rows(folder)[0]) == (images != "0")
        weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.ci
def test_run_goes_on_from_its_best_state(run: Run) -> None:
    whole = run(*SMALL, *FIXED_DECAY, "--trainer.max_steps", "60")
    part = run(*SMALL, *FIXED_DECAY, "--trainer.max_steps", "40")
    best = max((part / "checkpoints").glob("best.ckpt"))
    resumed = run(*SMALL, *FIXED_DECAY, "--trainer.max_steps", "60", "--ckpt_path", str(best))
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, resumed))
    assert one["global_step"] == other["global_step"] == 60
    scores = [
        next(s["best_model_score"] for k, s in c["callbacks"].items() if "val_judge_fid" in k) for c in (one, other)
    ]
    assert scores[0] == scores[1]  # also where no later validation was as good
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_bad_options(fails: Callable[..., str]) -> None:
    assert fails("fit", "--config", DIGITS, "--scores.images", "-1").startswith(
        "error: --scores.images: expected 0 or more, got -1; 0 disables scores"
    )


# ---- alarms ------------------------------------------------------------------------------------------------------------


class FakeTrainer(SimpleNamespace):
    log_every_n_steps = 1
    is_global_zero = True


def told(
    scalars: list[dict[str, float]],
    recwarn: pytest.WarningsRecorder,
    monitor: TrainingAlarms | None = None,
    every: int = 1,
) -> list[tuple[int, str]]:
    """The alarms of a run whose scalars are these, with the steps at which they came."""
    monitor = monitor or TrainingAlarms(patience=2)
    trainer = FakeTrainer(global_step=0, loggers=[], callback_metrics={})
    found: list[tuple[int, str]] = []
    for step, reported in enumerate(scalars, start=1):
        trainer.global_step = step * every
        training = {name: value for name, value in reported.items() if not name.startswith("val_")}
        monitor.on_train_batch_end(trainer, SimpleNamespace(reported=training))  # type: ignore[arg-type]
        trainer.callback_metrics = {name: torch.tensor(value) for name, value in reported.items()}
        if len(training) < len(reported):
            monitor.on_validation_end(trainer, None)  # type: ignore[arg-type]
        found += [(step, str(warning.message)) for warning in recwarn.list]
        recwarn.clear()
    return found


def test_a_healthy_run_is_not_disturbed(recwarn: pytest.WarningsRecorder) -> None:
    healthy = {"discriminator_loss": 1.2, "real_logits": 3.0, "fake_logits": -3.0, "val_diversity": 0.9}
    assert told([healthy] * 10, recwarn) == []


def test_losses_that_are_no_numbers(recwarn: pytest.WarningsRecorder) -> None:
    ((step, message),) = told(
        [{"generator_loss": 1.0}, {"generator_loss": math.nan}, {"generator_loss": math.inf}], recwarn
    )
    assert step == 2  # and not once more while it lasts
    assert message.startswith("Step 2: generator_loss: not a finite number. Updates with such gradients are skipped")


def test_a_discriminator_that_has_won(recwarn: pytest.WarningsRecorder) -> None:
    wide, narrow = {"real_logits": 9.0, "fake_logits": -9.0}, {"real_logits": 1.0, "fake_logits": -1.0}
    alarms = told([wide, narrow, wide, wide, wide, narrow, wide, wide], recwarn)
    assert [step for step, _ in alarms] == [4, 8]  # for long, and again after it was over
    assert alarms[0][1].startswith(
        "Step 4: The discriminator is too strong: its mean logits of real and generated images"
    )
    assert "are 18.0 apart" in alarms[0][1]
    assert "--model.penalties+ R1 --model.penalties.gamma 1" in alarms[0][1]


def test_updates_that_are_skipped_again_and_again(recwarn: pytest.WarningsRecorder) -> None:
    counts = [0, 2, 2, 3, 5, 5]
    alarms = told([{"generator_skipped_steps": float(count)} for count in counts], recwarn, every=10)
    assert [step for step, _ in alarms] == [5]
    assert "generator_skipped_steps 5. Try --trainer.precision bf16-mixed" in alarms[0][1]


def test_collapse(recwarn: pytest.WarningsRecorder) -> None:
    alarms = told([{"x": 1.0, "val_diversity": diversity} for diversity in (0.8, 0.3, 0.2, 0.7, 0.4)], recwarn)
    assert [step for step, _ in alarms] == [2, 5]
    assert "their distance is 0.30 times that of real ones. Early in a run this is temporary" in alarms[0][1]


def test_alarms_reach_weights_and_biases(recwarn: pytest.WarningsRecorder) -> None:
    sent: list[dict[str, str]] = []

    class Logger(WandbLogger):
        def __init__(self) -> None:
            pass

        experiment = SimpleNamespace(alert=lambda **alert: sent.append(alert))  # type: ignore[assignment]

    trainer: Any = FakeTrainer(global_step=7, loggers=[Logger()], callback_metrics={"val_diversity": torch.tensor(0.1)})
    TrainingAlarms().on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert [alert["title"] for alert in sent] == ["lightning_cgan: collapse"]
    assert sent[0]["text"].startswith("Step 7: Images of a class")


def test_a_run_of_the_command_line_is_watched(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    run(*SMALL, "--trainer.max_steps", "20", "--alarms.smallest_diversity", "100", "--trainer.log_every_n_steps", "5")
    assert any("Images of a class are too similar" in str(warning.message) for warning in recwarn.list)
