"""Optimizers and schedules of every form that Lightning takes, and what its callbacks make of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.optim import LBFGS, SGD, Adam, RMSprop, SparseAdam
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    LambdaLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from helpers.pairs import largest_difference, mlp
from helpers.quiet import quiet_trainer
from lightning_cgan import Checkpoints, ConditionalGAN, DigitsData, NonSaturating, UsageError

Made = Callable[[Any, Any], Any]

# What `configure_optimizers` may return of the optimizers of the generator and of the discriminator
FORMS: dict[str, Made] = {
    "list": lambda g, d: [g, d],
    "tuple": lambda g, d: (g, d),
    "lists, without schedules": lambda g, d: ([g, d], []),
    "lists": lambda g, d: ([g, d], [StepLR(d, 2), StepLR(g, 3)]),
    "lists, with an interval": lambda g, d: ([g, d], [{"scheduler": StepLR(g, 2), "interval": "step"}]),
    "dictionaries": lambda g, d: [{"optimizer": g, "lr_scheduler": StepLR(g, 1)}, {"optimizer": d}],
    "dictionaries of dictionaries": lambda g, d: (
        {"optimizer": g, "lr_scheduler": {"scheduler": StepLR(g, 1), "interval": "step", "frequency": 3}},
        {"optimizer": d, "lr_scheduler": {"scheduler": StepLR(d, 1), "interval": "epoch", "frequency": 2}},
    ),
}


class OwnGAN(ConditionalGAN):
    """A user's own module, with optimizers of its own."""

    made: Made
    rates = 0.1, 0.2

    def configure_optimizers(self) -> Any:
        weights = self.generator.parameters(), self.discriminator.parameters()
        return type(self).made(*(SGD(of, lr=rate, momentum=0.5) for of, rate in zip(weights, self.rates, strict=True)))


def own(made: Made, rates: tuple[float, float] = (0.1, 0.2)) -> ConditionalGAN:
    torch.manual_seed(0)
    return type("OwnGAN", (OwnGAN,), {"made": staticmethod(made), "rates": rates})(*mlp(), NonSaturating())  # type: ignore[no-any-return]


def gan(**options: Any) -> ConditionalGAN:
    return ConditionalGAN(*mlp(), NonSaturating(), **options)


def fit(module: ConditionalGAN, steps: int, last: Path | None = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    trainer = quiet_trainer(steps, **options)
    trainer.fit(module, DigitsData(batch_size=256), ckpt_path=last)  # an epoch has five batches
    return trainer


@pytest.mark.parametrize("form", FORMS)
def test_a_run_with_optimizers_of_its_own_goes_on(form: str, tmp_path: Path) -> None:
    whole, rest = own(FORMS[form]), own(FORMS[form])
    midway = ModelCheckpoint(tmp_path, "a", every_n_train_steps=4)
    expected = fit(whole, 7, callbacks=[midway], enable_checkpointing=True)
    got = fit(rest, 7, tmp_path / "a.ckpt")
    assert largest_difference(whole, rest) == 0
    states = [str([of.state_dict() for of in trainer.optimizers]) for trainer in (got, expected)]
    assert states[0] == states[1]


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append([round(optimizer.param_groups[0]["lr"], 6) for optimizer in trainer.optimizers])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        # by hand: a tenth after every third epoch, and after every second one; an epoch has five steps
        ("lists", [[0.1, 0.2]] * 10 + [[0.1, 0.02]] * 3),
        ("lists, with an interval", [[0.1 / 10 ** (step // 2), 0.2] for step in range(8)]),
        ("dictionaries", [[0.1, 0.2]] * 5 + [[0.01, 0.2]] * 5 + [[0.001, 0.2]]),
        (
            "dictionaries of dictionaries",
            [[0.1 / 10 ** (step // 3), 0.2 if step < 10 else 0.02] for step in range(12)],
        ),
    ],
)
def test_schedules_count_what_they_say(form: str, expected: list[list[float]]) -> None:
    rates = Rates()
    fit(own(FORMS[form]), len(expected), callbacks=[rates])
    assert rates.seen == [[round(rate, 6) for rate in pair] for pair in expected]


def test_an_epoch_that_ends_early_counts() -> None:
    rates = Rates()
    module = own(lambda g, d: [{"optimizer": g, "lr_scheduler": StepLR(g, 1)}, {"optimizer": d}])
    fit(module, 5, callbacks=[rates], limit_train_batches=2)
    assert [rate for rate, _ in rates.seen] == [0.1, 0.1, 0.01, 0.01, 0.001]


def test_new_rates_of_own_optimizers_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(own(FORMS["list"]), 2).save_checkpoint(tmp_path / "a.ckpt")
    with caplog.at_level("INFO"):
        trainer = fit(own(FORMS["list"], (0.1, 0.05)), 3, tmp_path / "a.ckpt")
    assert trainer.optimizers[1].param_groups[0]["lr"] == 0.05
    assert "configure_optimizers, discriminator_optimizer.lr: 0.2 → 0.05 from step 2" in caplog.messages


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda g, d: [g], "configure_optimizers: expected two optimizers, that of the generator first, got 1; return"),
        (lambda g, d: [g, d, g], "expected two optimizers, that of the generator first, got 3; return one for each"),
        (lambda g, d: [d, g], "generator_optimizer: expected an optimizer of the generator only, got weights of the"),
        (
            lambda g, d: ([g, d], [{"scheduler": ReduceLROnPlateau(d)}]),
            "configure_optimizers, discriminator_scheduler: expected a scheduler that counts steps, got Reduce",
        ),
        (
            lambda g, d: [SGD([*g.param_groups[0]["params"], *d.param_groups[0]["params"]], lr=1), d],
            "generator_optimizer: expected an optimizer of the generator only, got weights of the discriminator; return",
        ),
    ],
)
def test_optimizers_that_do_not_fit_are_refused(made: Made, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(own(made), 1)


class Closed(SGD):
    """A user's own optimizer that cannot do without a closure."""

    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        return closure()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator_optimizer": LBFGS}, "--model.generator_optimizer: .* got LBFGS, which needs gradients more than"),
        ({"discriminator_optimizer": partial(Closed, lr=1)}, "--model.discriminator_optimizer: .* got Closed, which"),
        ({"generator_optimizer": SparseAdam}, "got SparseAdam, which needs sparse gradients; choose another, such as"),
        (
            {"discriminator_optimizer": partial(Adam, lr=-1)},
            r"--model.discriminator_optimizer: .*Invalid learning rate",
        ),
        ({"generator_scheduler": partial(OneCycleLR, max_lr=1)}, "--model.generator_scheduler: .*You must define"),
        ({"generator_scheduler": partial(LambdaLR, lr_lambda=abs)}, "--model.generator_scheduler: .*builtin_function"),
        (
            {"discriminator_scheduler": partial(StepLR, step_size=0)},
            "expected a schedule for the whole run, .* step 1 ",
        ),
        (
            {"generator_scheduler": partial(OneCycleLR, max_lr=1, total_steps=4)},
            "--model.generator_scheduler.total_steps: expected at least the 6 steps of the run, got 4; give 6, or shorten",
        ),
        (
            {
                "discriminator_scheduler": lambda of: ChainedScheduler(
                    [ConstantLR(of), OneCycleLR(of, max_lr=1, total_steps=5)]
                )
            },
            "--model.discriminator_scheduler.total_steps: expected at least the 6 steps of the run, got 5; give 6",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:ConditionalGAN. the checkpoint cannot say")
def test_what_cannot_move_a_network_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(gan(**options), 6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has it since 2.9")
def test_muon_is_refused_for_what_has_biases() -> None:
    with pytest.raises(UsageError, match=r"--model.generator_optimizer: .*\(Muon only supports 2D parameters"):
        fit(gan(generator_optimizer=torch.optim.Muon), 1)


def test_a_cycle_as_long_as_the_run_is_fine() -> None:
    rates = Rates()
    fit(gan(generator_scheduler=partial(OneCycleLR, max_lr=1.0, total_steps=6)), 6, callbacks=[rates])
    reference = SGD([torch.zeros(1)], 1.0, momentum=0.5)
    OneCycleLR(reference, 1.0, 6)
    assert rates.seen[0][0] == round(reference.param_groups[0]["lr"], 6)


def test_a_run_that_goes_on_behind_its_schedule_is_told(tmp_path: Path) -> None:
    decay = partial(PolynomialLR, total_iters=2)
    fit(gan(discriminator_scheduler=decay), 2).save_checkpoint(tmp_path / "a.ckpt")
    message = (
        "--model.discriminator_scheduler: the learning rate is 0 from step 2 on, where the schedule has ended; make"
    )
    with pytest.warns(UserWarning, match=message):
        fit(gan(discriminator_scheduler=decay), 3, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (lambda: gan(), ["lr-discriminator", "lr-generator"]),
        (
            lambda: gan(discriminator_scheduler=partial(StepLR, step_size=1)),
            ["lr-discriminator", "lr-generator"],
        ),
        (lambda: own(FORMS["list"]), ["lr-discriminator", "lr-generator"]),
        (
            lambda: gan(
                generator_optimizer=lambda weights: SGD([{"params": [of]} for of in list(weights)[:2]], lr=0.1),
                discriminator_optimizer=RMSprop,
            ),
            ["lr-discriminator", "lr-generator/pg1", "lr-generator/pg2"],
        ),
        (
            lambda: own(lambda g, d: ([g, d], [{"scheduler": StepLR(d, 1), "name": "mine", "interval": "step"}])),
            ["lr-generator", "mine"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:ConditionalGAN. the checkpoint cannot say")
def test_learning_rates_have_the_names_of_their_networks(
    module: Callable[[], ConditionalGAN], expected: list[str], tmp_path: Path
) -> None:
    monitor = LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    logger = CSVLogger(tmp_path, name="", version="")
    fit(module(), 2, callbacks=[monitor], logger=logger, log_every_n_steps=1)
    names = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    logged = {name for name in names if name.startswith(("lr", "mine"))}
    assert logged == {f"{name}{end}" for name in expected for end in ("", "-momentum", "-weight_decay")}
    assert all(len(values) == 2 for values in monitor.lrs.values())


@pytest.mark.parametrize("interval", [timedelta(0), timedelta(days=1)])
def test_checkpoints_by_the_clock_are_saved(interval: timedelta, tmp_path: Path) -> None:
    by_time = ModelCheckpoint(tmp_path, "{step}", train_time_interval=interval, save_top_k=-1)
    fit(gan(), 3, callbacks=[by_time], enable_checkpointing=True)
    saved = {file.name for file in tmp_path.glob("*.ckpt")}
    assert saved == ({f"step={step}.ckpt" for step in (1, 2, 3)} if interval == timedelta(0) else set())


def test_other_checkpoints_are_not_saved_by_the_clock(tmp_path: Path) -> None:
    by_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    fit(
        gan(),
        3,
        callbacks=[by_step, Checkpoints(every_n_train_steps=10)],
        default_root_dir=tmp_path,
        enable_checkpointing=True,
    )
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"step=2.ckpt"}
