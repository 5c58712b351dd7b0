"""Linear decay as long as the run: its rates, its length, and what a resumed run makes of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LinearLR, PolynomialLR, SequentialLR
from torch.utils.data import DataLoader, IterableDataset

from helpers.pairs import largest_difference, mlp
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DigitsData, LinearDecay, NonSaturating, UsageError
from lightning_cgan.training import schedules

Schedule = Callable[[Optimizer], Any]
BATCHES = 5  # in an epoch of the digits, by 256


class Rates(Callback):
    """The rate of the generator, or of another network, in each step."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(trainer.optimizers[self.number].param_groups[0]["lr"])


def gan(schedule: Schedule | None = LinearDecay, rate: float = 0.3, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    optimizer = partial(SGD, lr=rate)
    return ConditionalGAN(
        *mlp(), NonSaturating(), generator_optimizer=optimizer, generator_scheduler=schedule, **options
    )


def fit(
    module: ConditionalGAN, steps: int = -1, last: Path | None = None, data: Any = None, **options: Any
) -> list[float]:
    """The generator's rate in each step of a fit."""
    torch.manual_seed(0)
    rates = Rates()
    options["callbacks"] = [*options.pop("callbacks", []), rates]
    data = {"datamodule": DigitsData(batch_size=256)} if data is None else {"train_dataloaders": data}
    quiet_trainer(steps, **options).fit(module, ckpt_path=last, **data)
    return rates.seen


def stepped(schedule: Schedule, steps: int, rate: float = 0.3) -> list[float]:
    """The rates that a schedule gives an optimizer outside of any run, in each step."""
    optimizer = SGD([torch.zeros(1)], lr=rate)
    scheduler = schedule(optimizer)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would have a `SequentialLR` do without what it calls itself
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return seen


def linear(total_iters: int) -> Schedule:
    """PyTorch's own, as the reference."""
    return partial(PolynomialLR, total_iters=total_iters, power=1)


# ---- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.3), (7, 0.3), (1000, 0.004), (6006, 0.002)])
def test_the_rates_are_those_of_pytorch_to_the_last_bit(steps: int, rate: float) -> None:
    decay = partial(LinearDecay, total_iters=steps)
    assert stepped(decay, steps + 3, rate) == stepped(linear(steps), steps + 3, rate)


def test_the_rates_by_hand() -> None:
    assert stepped(partial(LinearDecay, total_iters=4), 6, 1.0) == [1, 0.75, 0.5, 0.25, 0, 0]


def test_states_are_those_of_pytorch() -> None:
    ours, theirs = (make(SGD([torch.zeros(1)], lr=0.3)) for make in (partial(LinearDecay, total_iters=7), linear(7)))
    for scheduler in (ours, theirs):
        scheduler.optimizer.step()
        scheduler.step()
    assert ours.state_dict() == theirs.state_dict()
    other = LinearDecay(SGD([torch.zeros(1)], lr=0.3))
    other.load_state_dict(theirs.state_dict())
    assert (other.total_iters, other.last_epoch, other.follows_run) == (7, 1, True)
    other.optimizer.step()
    other.step()  # it knows a length now
    assert copy.deepcopy(other).state_dict() == other.state_dict()


def test_without_a_length_there_is_no_step() -> None:
    message = (
        "LinearDecay: expected a length before its first step, got none; ConditionalGAN sets it when a fit starts, "
        "elsewhere give total_iters"
    )
    with pytest.raises(UsageError, match=message):
        stepped(LinearDecay, 1)
    with pytest.raises(UsageError, match=message):
        stepped(lambda of: SequentialLR(of, [ConstantLR(of), LinearDecay(of)], [1]), 1)


@pytest.mark.parametrize("total_iters", [0, -3])
def test_a_length_below_one_is_refused(total_iters: int) -> None:
    with pytest.raises(
        UsageError, match=f"^total_iters: expected 1 or more, got {total_iters}; give a positive number"
    ):
        LinearDecay(SGD([torch.zeros(1)], lr=0.3), total_iters)
    message = f"^--model.generator_scheduler.total_iters: expected 1 or more, got {total_iters}; give a positive number"
    with pytest.raises(UsageError, match=message):
        fit(gan(partial(LinearDecay, total_iters=total_iters)), 1)


# ---- the length of the run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "length"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2}, 2 * BATCHES),
        ({"max_steps": 7, "max_epochs": 2}, 7),
        ({"max_steps": 99, "max_epochs": 2}, 2 * BATCHES),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.6}, 6),
        ({"max_epochs": 4, "overfit_batches": 2}, 8),
        ({"max_steps": 7, "max_epochs": 4, "overfit_batches": 2}, 7),
        ({"fast_dev_run": 3}, 3),
        ({"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1}, 2 * BATCHES),
        ({"max_epochs": 2, "max_time": {"hours": 1}}, 2 * BATCHES),
    ],
    ids=str,
)
def test_the_decay_is_as_long_as_the_run(limits: dict[str, Any], length: int) -> None:
    assert fit(gan(), **{"steps": limits.pop("max_steps", -1), **limits}) == stepped(linear(length), length)


def test_parts_of_an_update_are_no_steps() -> None:
    module = gan(generator_accumulation=2, discriminator_accumulation=4, discriminator_steps=2)
    seen = fit(module, max_epochs=3)
    assert len(seen) == 3 * 2  # of 1,317 images, 512 each
    assert seen == stepped(linear(6), 6)


def test_the_discriminators_too() -> None:
    rates = Rates(1)
    fit(
        gan(None, discriminator_optimizer=partial(SGD, lr=0.3), discriminator_scheduler=LinearDecay),
        4,
        callbacks=[rates],
    )
    assert rates.seen == stepped(linear(4), 4)


def test_a_given_length_stays() -> None:
    assert fit(gan(partial(LinearDecay, total_iters=4)), 6) == stepped(linear(4), 6)
    assert fit(gan(partial(LinearDecay, total_iters=9)), max_epochs=1) == stepped(linear(9), 5)


def test_a_run_of_no_step_needs_no_length() -> None:
    assert fit(gan(), max_epochs=2, limit_train_batches=0) == []
    assert fit(gan(), 0) == []


def test_a_further_fit_begins_a_decay_of_what_is_left() -> None:
    rates = Rates()
    module, trainer = gan(), quiet_trainer(4, callbacks=[rates])
    trainer.fit(module, DigitsData(batch_size=256))
    trainer.fit_loop.epoch_loop.max_steps = 10
    trainer.fit(module, DigitsData(batch_size=256))
    assert rates.seen == stepped(linear(4), 4) + stepped(linear(6), 6)


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches without an end, whose number nobody knows."""

    def __iter__(self) -> Any:
        while True:
            yield torch.zeros(16, 1, 8, 8), torch.zeros(16, dtype=torch.int64)


@pytest.mark.parametrize(
    ("limits", "got"),
    [
        ({"max_epochs": -1}, "--trainer.max_steps -1 and --trainer.max_epochs -1;"),
        (
            {"max_time": {"hours": 1}},
            "--trainer.max_steps -1 and --trainer.max_epochs -1, which only --trainer.max_time",
        ),
        ({"max_epochs": 2, "data": DataLoader(Endless(), batch_size=None)}, "epochs of unknown length; give"),
    ],
    ids=["endless", "timed", "of unknown length"],
)
def test_a_run_without_an_end_is_refused(limits: dict[str, Any], got: str) -> None:
    message = f"--model.generator_scheduler: expected a run with an end for LinearDecay, got {got}"
    with pytest.raises(UsageError, match=message) as caught:
        fit(gan(), **limits)
    assert str(caught.value).endswith("; give --trainer.max_steps, or total_iters")


def test_a_run_without_an_end_needs_a_length_of_its_own() -> None:
    loader = DataLoader(Endless(), batch_size=None)
    decay = partial(LinearDecay, total_iters=4)
    options: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 3}
    assert fit(gan(decay), data=loader, **options) == stepped(linear(4), 3)
    assert fit(gan(), data=loader, **options) == stepped(linear(3), 3)  # its epoch has an end
    assert fit(gan(), 4, data=loader) == stepped(linear(4), 4)


@pytest.mark.ci
def test_a_search_for_a_batch_size_is_no_part_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """1,317 images, of which 32 are a batch in the end."""
    caplog.set_level("INFO")
    finder = BatchSizeFinder(init_val=8, max_trials=3, steps_per_trial=1)
    seen = fit(gan(), max_epochs=1, callbacks=[finder])
    assert finder.optimal_batch_size == 32
    assert seen == stepped(linear(1317 // 32), 1317 // 32)
    assert not [message for message in caplog.messages if "→" in message]


# ---- forms -------------------------------------------------------------------------------------------------------------


def warm(total_iters: int | None = None, last: type[PolynomialLR] = LinearDecay) -> Schedule:
    """Three steps of warm-up, then linear decay."""

    def make(of: Optimizer) -> Any:
        decay = last(of) if total_iters is None else last(of, total_iters)
        return SequentialLR(of, [LinearLR(of, 0.1, total_iters=3), decay], [3])

    return make


def test_behind_a_warm_up_it_takes_the_rest_of_the_run() -> None:
    seen = fit(gan(warm()), 10)
    assert seen == stepped(warm(7, PolynomialLR), 10)
    assert seen[3:] == stepped(linear(7), 7)  # by hand: from the whole rate on
    # a run that is over before is none to complain of
    assert fit(gan(warm()), 2) == stepped(warm(7, PolynomialLR), 2)


def test_before_another_schedule_it_takes_its_part() -> None:
    def make(decay: Schedule) -> Schedule:
        return lambda of: SequentialLR(of, [decay(of), ConstantLR(of, 0.5, 3)], [4])

    assert fit(gan(make(LinearDecay)), 8) == stepped(make(linear(4)), 8)
    assert fit(gan(make(LinearDecay)), 3) == stepped(linear(3), 3)


def test_side_by_side_with_another_it_takes_the_run() -> None:
    def make(decay: Schedule) -> Schedule:
        return lambda of: ChainedScheduler([ConstantLR(of, 0.5, 2), decay(of)])

    assert fit(gan(make(LinearDecay)), 6) == stepped(make(linear(6)), 6)


class OwnGAN(ConditionalGAN):
    """A user's own module, with an optimizer of its own for each network."""

    made: Callable[[Any, Any], Any]

    def configure_optimizers(self) -> Any:
        return type(self).made(*(SGD(of.parameters(), lr=0.3) for of in (self.generator, self.discriminator)))


def own(made: Callable[[Any, Any], Any]) -> ConditionalGAN:
    torch.manual_seed(0)
    return type("OwnGAN", (OwnGAN,), {"made": staticmethod(made)})(*mlp(), NonSaturating())  # type: ignore[no-any-return]


def by(interval: str, frequency: int = 1) -> ConditionalGAN:
    """With a decay that is stepped at this pace."""

    def made(g: Any, d: Any) -> Any:
        pace = {"scheduler": LinearDecay(g), "interval": interval, "frequency": frequency}
        return {"optimizer": g, "lr_scheduler": pace}, {"optimizer": d}

    return own(made)


@pytest.mark.parametrize(
    ("module", "limits", "length", "pace"),
    [
        (lambda: own(lambda g, d: ([g, d], [LinearDecay(g)])), {"max_epochs": 3}, 3, BATCHES),  # Lightning's interval
        (
            lambda: own(lambda g, d: [{"optimizer": g, "lr_scheduler": LinearDecay(g)}, {"optimizer": d}]),
            {"steps": 12},
            3,
            5,
        ),
        (lambda: by("epoch"), {"steps": 10, "max_epochs": 9}, 2, BATCHES),
        (lambda: by("epoch", 2), {"max_epochs": 3}, 2, 2 * BATCHES),
        (lambda: by("step", 3), {"steps": 10}, 4, 3),
        (lambda: by("step"), {"max_epochs": 2}, 10, 1),
    ],
)
def test_optimizers_of_ones_own(
    module: Callable[[], ConditionalGAN], limits: dict[str, Any], length: int, pace: int
) -> None:
    seen = fit(module(), **limits)
    expected = [rate for rate in stepped(linear(length), length) for _ in range(pace)]
    assert seen == expected[: len(seen)]
    assert len(seen) > len(expected) - pace  # none of them at a rate of nothing


def test_an_endless_run_of_optimizers_of_ones_own_is_refused() -> None:
    message = (
        "configure_optimizers, generator_scheduler: expected a run with an end for LinearDecay, got --trainer.max_st"
    )
    with pytest.raises(UsageError, match=message):
        fit(by("step"), max_epochs=-1)


# ---- resuming ----------------------------------------------------------------------------------------------------------


class Saves(Callback):
    def __init__(self, step: int, file: Path) -> None:
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)


def saved_at(step: int, folder: Path, module: ConditionalGAN, **options: Any) -> list[float]:
    """The rates of a run that leaves a checkpoint, `a.ckpt`, after a step."""
    return fit(module, callbacks=[Saves(step, folder / "a.ckpt")], **options)


@pytest.mark.parametrize("limits", [{"steps": 9}, {"max_epochs": 2}, {"steps": 9, "max_epochs": 3}], ids=str)
@pytest.mark.parametrize("schedule", [LinearDecay, warm()], ids=["decay", "warm-up"])
def test_a_resumed_run_is_the_uninterrupted_one(schedule: Schedule, limits: dict[str, Any], tmp_path: Path) -> None:
    whole, rest = gan(schedule), gan(schedule)
    expected = saved_at(6, tmp_path, whole, **limits)
    assert fit(rest, last=tmp_path / "a.ckpt", **limits) == expected[6:]
    assert largest_difference(whole, rest) == 0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "→" in message]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"steps": 4}, {"steps": 8}, "4 → 8"),
        ({"steps": 8}, {"steps": 5}, "8 → 5"),
        ({"steps": 6}, {"max_epochs": 2}, "6 → 10"),
        ({"max_epochs": 1}, {"max_epochs": 3}, "5 → 15"),
    ],
    ids=str,
)
def test_a_resumed_run_takes_up_another_length(
    before: dict[str, Any], after: dict[str, Any], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    length = int(told.split(" → ")[1])
    saved_at(4, tmp_path, gan(), **before)
    caplog.set_level("INFO")
    assert fit(gan(), last=tmp_path / "a.ckpt", **after) == stepped(linear(length), length)[4:]
    assert lines(caplog) == [f"--model.generator_scheduler.total_iters: {told} from step 4"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(linear(9), LinearDecay), (LinearDecay, linear(9)), (warm(6, PolynomialLR), warm())],
    ids=["before", "after", "warm-up"],
)
def test_a_linear_schedule_of_pytorch_is_the_same(
    before: Schedule, after: Schedule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, rest = gan(before), gan(after)
    expected = saved_at(4, tmp_path, whole, steps=9)
    caplog.set_level("INFO")
    assert fit(rest, 9, tmp_path / "a.ckpt") == expected[4:]
    assert largest_difference(whole, rest) == 0
    assert lines(caplog) == []


def test_another_power_is_taken_up_as_an_option(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_at(4, tmp_path, gan(partial(PolynomialLR, total_iters=9, power=2.0)), steps=9)
    caplog.set_level("INFO")
    assert fit(gan(), 9, tmp_path / "a.ckpt") == stepped(linear(9), 9)[4:]
    assert lines(caplog) == ["--model.generator_scheduler.power: 2.0 → 1.0 from step 4"]


def test_other_schedules_are_still_refused(tmp_path: Path) -> None:
    saved_at(4, tmp_path, gan(), steps=5)
    message = (
        "--model.generator_scheduler: expected LinearDecay, as the run had it, got ConstantLR; give the former, or"
    )
    with pytest.raises(UsageError, match=message):
        fit(gan(ConstantLR), 6, tmp_path / "a.ckpt")


class Counting(DataLoader[Any]):
    """A user's own loader that knows its place."""

    loaded = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state["place"]


def test_loaders_of_ones_own_get_their_states_back(tmp_path: Path) -> None:
    """To count the batches of an epoch, the loader is asked for before the checkpoint's states are there."""
    pairs = [(torch.zeros(1, 8, 8), 0)] * 80
    saved_at(2, tmp_path, gan(), max_epochs=1, data=Counting(pairs, batch_size=16))
    rest = Counting(pairs, batch_size=16)
    seen = fit(gan(), last=tmp_path / "a.ckpt", max_epochs=1, data=rest)
    assert seen == stepped(linear(5), 5)[2:]
    assert rest.loaded == 3


# ---- descriptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "described"),
    [
        (LinearDecay, {"class_path": "lightning_cgan.LinearDecay"}),
        (
            partial(LinearDecay, total_iters=7),
            {"class_path": "lightning_cgan.LinearDecay", "init_args": {"total_iters": 7}},
        ),
    ],
)
def test_a_checkpoint_describes_it(schedule: Schedule, described: dict[str, Any], tmp_path: Path) -> None:
    trainer = quiet_trainer(2)
    trainer.fit(gan(schedule), DigitsData(batch_size=256))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    module = ConditionalGAN.load_from_checkpoint(tmp_path / "a.ckpt")
    assert module.hparams["generator_scheduler"] == described
    expected = stepped(linear(7) if "init_args" in described else linear(3), 3)
    assert fit(module, 3) == expected


def test_a_rate_as_a_tensor() -> None:
    rates = []
    for schedule in (partial(LinearDecay, total_iters=4), linear(4)):
        optimizer = Adam([torch.zeros(1)], lr=torch.tensor(0.5), foreach=False)
        scheduler = schedule(optimizer)
        for _ in range(4):
            optimizer.step()
            scheduler.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
    assert rates[:4] == rates[4:]


def test_epochs_are_counted_where_they_matter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of so many steps asks for its loader when it always did."""
    trainer = quiet_trainer(6)
    monkeypatch.setattr(trainer.fit_loop, "setup_data", lambda: pytest.fail("the loader was asked for"))
    trainer.fit_loop.max_epochs = -1
    assert schedules.length_of_run(trainer, "step") == 6
