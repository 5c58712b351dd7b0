"""Lightning's own options and tools that cut what is seen of the data, or look for a batch size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.tuner import Tuner
from torch import Tensor

from helpers.labelled import Numbered, numbers
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.data import OrderedLoader
from lightning_cgan.data.loader import RepeatingLoader


class Features(Callback):
    """The numbers of the images of each batch, by epoch; of training and of validation."""

    def __init__(self) -> None:
        self.trained: list[list[list[int]]] = []
        self.validated: list[list[list[int]]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained.append([])

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated.append([])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.trained[-1].append(_numbers(batch))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.validated[-1].append(_numbers(batch))


def _numbers(batch: tuple[Tensor, Tensor]) -> list[int]:
    return numbers((batch[0] + 1) * 127.5)


def gan(classes: int = 3, size: int = 2, **options: Any) -> ConditionalGAN:
    generator = MLPGenerator(classes, 1, size, latent_dim=4, hidden=(8,))
    return ConditionalGAN(generator, MLPDiscriminator(classes, 1, size, hidden=(8,)), NonSaturating(), **options)


def fit(data: Any = None, module: ConditionalGAN | None = None, **options: Any) -> Features:
    seen = Features()
    torch.manual_seed(0)
    options = {"max_epochs": 3, "num_sanity_val_steps": 0, **options}
    quiet_trainer(-1, callbacks=[seen], **options).fit(module or gan(), data or Numbered(batch_size=64))
    return seen


@pytest.mark.parametrize(("share", "count"), [(2, 2), (0.25, 4), (1.0, 17), (100, 17)])
def test_overfit_batches_are_the_same_in_each_epoch(share: float, count: int) -> None:
    first = fit(max_epochs=1, overfit_batches=0).trained[0]
    seen = fit(overfit_batches=share)
    assert seen.trained == [first[:count]] * 3  # of the shuffled order: files lie in the order of their classes
    assert seen.validated == [seen.validated[0]] * 3  # whose first batches are seen, as Lightning has it
    assert [len(batch) for batch in seen.validated[0]] == [25 if share == 0.25 else 100]


def test_a_repeating_loader_goes_on_where_another_stood() -> None:
    data = Numbered()
    data.setup("fit")
    images, labels = data.splits["train"]

    def loader(seed: int) -> RepeatingLoader:
        return RepeatingLoader(3, images=images, labels=labels, batch_size=64, seed=seed)

    def batches(of: RepeatingLoader, count: int) -> list[list[int]]:
        return [_numbers(batch) for _, batch in zip(range(count), of, strict=False)]

    whole, first, second = loader(1), loader(1), loader(2)
    wanted = batches(whole, 3)
    assert batches(first, 2) == wanted[:2]
    second.load_state_dict(first.state_dict())
    assert batches(second, 1) + batches(second, 3) == [wanted[2], *wanted]


def test_a_part_of_the_training_batches_makes_a_shorter_epoch() -> None:
    seen = fit(limit_train_batches=0.5, max_epochs=2)
    assert [len(epoch) for epoch in seen.trained] == [8, 8]  # of 17
    every = [number for epoch in seen.trained for batch in epoch for number in batch]
    assert len(set(every)) == len(every) == 16 * 64  # what was not seen in the first half is seen in the second


@pytest.mark.parametrize(
    ("share", "batch_size", "expected"),
    [(1.0, 64, [100]), (1, 64, [100]), (0.5, 64, [50]), (0.5, 20, [20, 20]), (0.1, 64, [10]), (0.07, 64, [7])],
)
def test_a_part_of_the_validation_batches_is_a_part_of_the_images(
    share: float, batch_size: int, expected: list[int]
) -> None:
    """100 images, which are one batch where all are looked at."""
    whole = fit(max_epochs=1).validated[0][0]
    seen = fit(Numbered(batch_size=batch_size), max_epochs=1, limit_val_batches=share).validated
    assert [len(batch) for batch in seen[0]] == expected
    assert [number for batch in seen[0] for number in batch] == whole[: sum(expected)]


def test_a_part_of_the_test_batches() -> None:
    trainer = quiet_trainer(1, limit_test_batches=0.3)
    (scores,) = trainer.test(gan(), Numbered(batch_size=16), verbose=False)
    assert scores
    assert len(trainer.test_dataloaders) == 4  # type: ignore[arg-type]
    assert [len(labels) for _, labels in trainer.test_dataloaders] == [16, 16, 16, 12]  # type: ignore[union-attr]


def test_processes_share_small_batches_too() -> None:
    data = Numbered(batch_size=64)
    data.setup("fit")
    data.__dict__["_rank_and_world_size"] = lambda: (1, 8)
    loader = data._evaluation_loader("validation", 0.3)
    assert isinstance(loader, OrderedLoader)
    assert (loader.batch_size, loader.rank, loader.world_size) == (24, 1, 8)


def state_of(module: ConditionalGAN) -> dict[str, Any]:
    counts = {"images_seen": module.ema.images_seen, "seed": module.seed, "sums": str(module.scalars.sums)}
    return {**{name: value.clone() for name, value in module.state_dict().items()}, **counts}


@pytest.mark.ci
@pytest.mark.parametrize(
    "options", [{}, {"discriminator_steps": 2}, {"generator_accumulation": 4, "ema_half_life": 9.0}]
)
def test_a_batch_size_is_found_and_nothing_else_changes(options: dict[str, Any]) -> None:
    """Nothing runs out of memory here: the largest is that of all images, as Lightning has it for other data, too."""
    module, data = gan(10, 8, **options), DigitsData(batch_size=64)
    torch.manual_seed(5)
    before = state_of(module)
    tuner = Tuner(quiet_trainer(-1, max_epochs=1))
    found = tuner.scale_batch_size(module, datamodule=data, init_val=16, steps_per_trial=1)
    steps = options.get("discriminator_steps", 1)
    unit = options.get("generator_accumulation", 1)
    assert found == data.batch_size == 1317 // steps // unit * unit  # of 1,437 a twelfth is held out
    after = state_of(module)
    before["seed"] = after["seed"]  # which a run fixes
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name], name


@pytest.mark.ci
def test_a_search_that_ends_early_and_one_by_halves() -> None:
    data = DigitsData()
    found = Tuner(quiet_trainer(-1, max_epochs=1)).scale_batch_size(
        gan(10, 8), datamodule=data, init_val=4, max_trials=3, steps_per_trial=1
    )
    assert found == data.batch_size == 16
    found = Tuner(quiet_trainer(-1, max_epochs=1)).scale_batch_size(
        gan(10, 8), datamodule=data, init_val=100, mode="binsearch", steps_per_trial=1, margin=0.1
    )
    assert found == data.batch_size == int(1317 * 0.9)


@pytest.mark.ci
def test_memory_that_runs_out_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ConditionalGAN.training_step

    def small(self: ConditionalGAN, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if len(batch[0]) > 200:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        step(self, batch, batch_idx)

    monkeypatch.setattr(ConditionalGAN, "training_step", small)
    data = DigitsData()
    found = Tuner(quiet_trainer(-1, max_epochs=1)).scale_batch_size(
        gan(10, 8), datamodule=data, init_val=32, steps_per_trial=1
    )
    assert found == data.batch_size == 128


@pytest.mark.ci
def test_a_run_goes_on_with_the_size_that_was_found() -> None:
    data, sizes = DigitsData(), []

    class Sizes(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            sizes.append(len(batch[1]))

    finder = BatchSizeFinder(init_val=8, max_trials=3, steps_per_trial=1)
    module = gan(10, 8)
    trainer = quiet_trainer(4, callbacks=[finder, Sizes()])
    trainer.fit(module, data)
    assert (finder.optimal_batch_size, sizes, trainer.global_step) == (32, [32] * 4, 4)
    assert module.ema.images_seen == 4 * 32
