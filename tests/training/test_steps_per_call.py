"""Several steps in one call of `training_step`, against one step in each: the run is the same to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from helpers.commands import Typed
from helpers.marks import ci_but_for
from helpers.paths import DIGITS, FIXED_DECAY
from helpers.run_files import rows_of
from helpers.small_gan import fit, gan
from lightning_cgan import Augmentation, ConditionalGAN, DigitsData, UsageError
from lightning_cgan.data import ShufflingLoader
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.fused_adam import GraphAdam
from lightning_cgan.training.fused_step import FusedStep

Run = Callable[..., Path]

SHORT = ("--trainer.max_steps", "47", "--data.image_size", "8", "--scores.images", "50", "--page.every_n_seconds", "0")
# No number of steps divides these; an epoch has 20.
UNLIKE = (
    "--trainer.log_every_n_steps",
    "6",
    "--samples.every_n_steps",
    "15",
    "--checkpoints.every_n_train_steps",
    "14",
)
KEEP = ("--checkpoints.save_top_k", "-1", "--trainer.check_val_every_n_epoch", "1")
OPTIONS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "two discriminator steps": ("--model.discriminator_steps", "2", "--data.batch_size", "32"),
    "part of each epoch": ("--trainer.limit_train_batches", "9"),
    "validation within epochs": ("--trainer.val_check_interval", "8"),
    "an epoch as the end": ("--trainer.max_steps", "-1", "--trainer.max_epochs", "2"),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which calls of `training_step` begin."""
    begun: list[int] = []
    training_step = ConditionalGAN.training_step

    def noted(module: ConditionalGAN, batch: Any, batch_idx: int) -> None:
        begun.append(module.global_step)
        training_step(module, batch, batch_idx)

    monkeypatch.setattr(ConditionalGAN, "training_step", noted)
    return begun


def checkpoints_of(folder: Path) -> dict[str, dict[str, Any]]:
    """All checkpoints of a run, without the option under test, and times and paths."""
    found = {}
    for file in sorted((folder / "checkpoints").glob("*.ckpt")):
        checkpoint = torch.load(file, weights_only=True)
        del checkpoint["hyper_parameters"]["steps_per_call"], checkpoint["callbacks"]
        checkpoint["lightning_cgan"].pop("scalars", None)  # sums: compared through the table
        found[file.name] = checkpoint
    return found


def assert_same_tree(one: Any, other: Any, path: str = "") -> None:
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same_tree(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same_tree(*pair, f"{path}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


@pytest.mark.parametrize("most", ["auto", "7"])
@pytest.mark.parametrize("name", ci_but_for(OPTIONS, "defaults"))
def test_a_run_is_the_same(run: Run, calls: list[int], name: str, most: str) -> None:
    options = (*SHORT, *UNLIKE, *KEEP, *OPTIONS[name])
    one = run(*options, "--model.steps_per_call", "1", "--name", "one")
    assert calls == list(range(len(calls)))
    steps = len(calls)
    calls.clear()
    several = run(*options, "--model.steps_per_call", most, "--name", "several")
    assert 0 < len(calls) < steps
    assert rows_of(several) == rows_of(one)
    assert_same_tree(checkpoints_of(several), checkpoints_of(one))
    names = [sorted(file.name for file in (folder / "samples").iterdir()) for folder in (several, one)]
    assert names[0] == names[1]


def test_a_call_makes_as_many_steps_as_it_may(run: Run, calls: list[int]) -> None:
    run(*SHORT, *UNLIKE, *KEEP, "--model.steps_per_call", "5")
    # Multiples of 6 are logged, of 15 have samples, of 14 checkpoints; epochs end after 20 and 40 steps, the run after 47.
    assert calls == [0, 5, 6, 11, 12, 14, 15, 18, 20, 24, 28, 30, 35, 36, 40, 42, 45]


def test_a_run_that_resumes_within_a_call_is_the_same(run: Run, calls: list[int]) -> None:
    options = (*SHORT, *FIXED_DECAY, "--trainer.log_every_n_steps", "10", "--model.steps_per_call", "5")
    whole = run(*options, "--name", "whole", "--threads", "1")
    run(*options, "--trainer.max_steps", "23", "--name", "part", "--threads", "1")
    calls.clear()
    rest = run(*options, "--name", "part", "--ckpt_path", "last")
    assert calls[:3] == [23, 28, 30]
    assert rows_of(rest) == rows_of(whole)
    expected, got = (checkpoints_of(folder)["last.ckpt"] for folder in (whole, rest))
    assert_same_tree(got["state_dict"], expected["state_dict"])
    assert_same_tree(got["optimizer_states"], expected["optimizer_states"])


@pytest.mark.ci
def test_two_processes_make_several_steps(tmp_path: Path) -> None:
    found = []
    for most in ("1", "5"):
        # The page of the first process is due at other times than after a call of five steps.
        options = (
            "--page.every_n_seconds",
            "0.1",
            "--trainer.devices",
            "2",
            "--trainer.accelerator",
            "cpu",
            "--runs_dir",
            str(tmp_path / most),
        )
        training = Typed("fit", "--config", DIGITS, *SHORT, *UNLIKE, *options, "--model.steps_per_call", most)
        shown = training.wait()
        assert training.returncode == 0, shown
        (folder,) = (tmp_path / most).glob("*/*")
        found.append(checkpoints_of(folder))
    assert_same_tree(*found)


class CountsBatches(Callback):
    """A user's callback, which wants to see every batch."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(trainer.global_step)


class Saves(CountsBatches):
    """One that says when it has to be called."""

    def is_due(self, trainer: Any) -> bool:
        return trainer.global_step % 4 == 0


def test_callbacks_of_others_see_every_batch() -> None:
    callback = CountsBatches()
    fit(gan(steps_per_call=5), 9, callbacks=[callback], log_every_n_steps=100)
    assert callback.seen == list(range(1, 10))


def test_callbacks_may_say_when_they_are_called() -> None:
    callback = Saves()
    fit(gan(steps_per_call=5), 9, callbacks=[callback], log_every_n_steps=100)
    assert callback.seen == [4, 8, 9]


def test_hooks_of_an_instance_see_every_batch() -> None:
    seen: list[int] = []
    callback = LambdaCallback(on_train_batch_end=lambda trainer, *_: seen.append(trainer.global_step))
    fit(gan(steps_per_call=5), 3, callbacks=[callback], log_every_n_steps=100)
    assert seen == [1, 2, 3]


def test_a_subclass_that_replaces_a_hook_sees_every_batch() -> None:
    class Every(Saves):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.seen.append(-trainer.global_step)

    callback = Every()
    fit(gan(steps_per_call=5), 3, callbacks=[callback], log_every_n_steps=100)
    assert callback.seen == [-1, -2, -3]


def test_a_training_step_of_ones_own_gets_every_batch() -> None:
    class Counting(ConditionalGAN):
        batches_seen = 0

        def training_step(self, batch: Any, batch_idx: int) -> None:
            Counting.batches_seen += 1
            super().training_step(batch, batch_idx)

    plain = gan()
    fit(Counting(plain.generator, plain.discriminator, plain.loss, steps_per_call=5), 9)
    assert Counting.batches_seen == 9


class Darkens:
    """A hook for batches, which Lightning calls after it has moved one."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = batch
        return images * 0.5 - 0.5, labels


class DarkeningGAN(Darkens, ConditionalGAN):
    pass


class DarkDigits(Darkens, DigitsData):
    pass


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("owner", ["nobody", "module", "data", "instance"])
def test_batches_are_moved_and_changed_as_without_further_steps(owner: str, precision: Any) -> None:
    def weights(most: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        plain = gan()
        kind = DarkeningGAN if owner == "module" else ConditionalGAN
        module = kind(plain.generator, plain.discriminator, plain.loss, steps_per_call=most)
        if owner == "instance":
            module.on_after_batch_transfer = Darkens().on_after_batch_transfer
        data = (DarkDigits if owner == "data" else DigitsData)(batch_size=16)
        return fit(module, 6, data, precision=precision, log_every_n_steps=100).state_dict()

    one, several = weights(1), weights(5)
    for name, expected in one.items():
        assert torch.equal(several[name], expected), name


# ---- what is checked once in a call ----------------------------------------------------------------------------------


class Fading(Augmentation):
    """Darkens images."""

    num_uniforms = 0

    def __init__(self) -> None:
        self.strength = 0.0

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        return images - self.strength


class FadingLoader(ShufflingLoader):
    """Changes an augmentation, two times."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fading = Fading()

    def __iter__(self) -> Any:
        for number, batch in enumerate(super().__iter__()):
            self.fading.strength = 0.0 if number < 3 else 0.5 if number < 6 else 1.0
            yield batch


def graph_run(
    monkeypatch: pytest.MonkeyPatch, most: int, is_foreign: bool = False, **options: Any
) -> tuple[dict[str, Tensor], list[bool]]:
    """Trains ten steps with uncompiled graphs: the weights, and for which steps nothing was checked again."""
    continued: list[bool] = []
    run = FusedStep.run

    def noted(self: FusedStep, parts: Any, inputs: Any, penalties: Any, continues: bool) -> Any:
        continued.append(continues)
        return run(self, parts, inputs, penalties, continues)

    torch.manual_seed(0)
    data: Any = DigitsData(batch_size=16)
    augmentations: list[Augmentation] = []
    if is_foreign:
        data.prepare_data()
        data.setup("fit")
        data = FadingLoader(*data.splits["train"], batch_size=16, seed=3)
        augmentations = [data.fading]
    module = gan(compile="step", steps_per_call=most, augmentations=augmentations, **options)
    with monkeypatch.context() as patched:
        patched.setattr(Compilation, "has_compiler", lambda self: False)
        patched.setattr(FusedStep, "run", noted)
        fit(module, 10, data, log_every_n_steps=100)
    return module.state_dict(), continued


def test_what_nobody_can_have_changed_is_checked_once_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, continued = graph_run(monkeypatch, most=5)
    assert continued == [False, True, True, True, True] * 2
    expected, continued = graph_run(monkeypatch, most=1)
    assert continued == [False] * 10
    assert_same_tree(weights, expected)


def test_code_of_others_may_change_what_graphs_hold_within_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, continued = graph_run(monkeypatch, most=5, is_foreign=True)
    assert continued == [False] * 10
    expected, _ = graph_run(monkeypatch, most=1, is_foreign=True)
    assert_same_tree(weights, expected)


class Own(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self) -> list[float]:
        return [0.001 for _ in self.optimizer.param_groups]


def chained(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.SequentialLR:
    parts = [Own(optimizer), torch.optim.lr_scheduler.ConstantLR(optimizer)]
    return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [3])


@pytest.mark.parametrize(
    "schedule",
    [
        partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0),
        partial(
            torch.optim.lr_scheduler.CyclicLR, base_lr=0.1, max_lr=1.0, scale_fn=lambda x: 1.0, cycle_momentum=False
        ),
        Own,
        chained,
    ],
)
def test_schedules_may_call_code_of_others(schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, continued = graph_run(monkeypatch, most=5, discriminator_scheduler=schedule)
    assert continued == [False] * 10


def test_numbers_within_a_cuda_graph_are_checked_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where betas are part of a graph: OneCycleLR changes them, and soon there are no more graphs."""
    adam = GraphAdam.__init__

    def fixing(self: GraphAdam, optimizer: Any, names: Any, skipped: Any, fixes_numbers: bool = False) -> None:
        adam(self, optimizer, names, skipped, fixes_numbers=True)

    monkeypatch.setattr(GraphAdam, "__init__", fixing)
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=20)
    expected, of_one = graph_run(monkeypatch, most=1, generator_scheduler=schedule)
    weights, of_five = graph_run(monkeypatch, most=5, generator_scheduler=schedule)
    assert len(of_five) == len(of_one) < 10
    assert_same_tree(weights, expected)


@pytest.mark.parametrize("value", [0, -1, "all"])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=f"steps_per_call: expected 1 or more, or auto, got {value}; give one of them"):
        gan(steps_per_call=value)
