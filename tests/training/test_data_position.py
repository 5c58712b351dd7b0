"""A run resumes with the next batch of the epoch that it is in, whatever hook its checkpoint was written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from helpers.marks import ci_but_for
from lightning_cgan import Checkpoints, ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating, UsageError
from lightning_cgan.data import LabelledImages, ShufflingLoader
from lightning_cgan.data.base import Split


class Few(LabelledImages):
    """Images of noise, of which 36 are trained on: four batches of eight in an epoch, and a rest."""

    all_class_names = ("a", "b")
    image_channels = 1
    native_image_size = 4
    count = 40

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 256, (self.count, 1, 4, 4), generator=torch.Generator().manual_seed(5))
        return pixels.to(torch.uint8), torch.arange(self.count) % 2


class Fewer(Few):
    count = 30


class Record(Callback):
    """Notes what a run meets, and saves it in each hook."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.batches: list[tuple[int, int, int, float]] = []
        self.epochs: list[tuple[int, int]] = []
        self.validations: list[int] = []

    def save(self, trainer: Trainer, hook: str) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{hook}-{trainer.global_step}.ckpt")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "start")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "epoch_start")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((trainer.current_epoch, batch_idx, trainer.global_step, batch[0].double().sum().item()))
        self.save(trainer, "batch_start")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *others: Any) -> None:
        pl_module.log("noted", float(trainer.global_step))
        self.save(trainer, "batch_end")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validations.append(trainer.global_step)
        self.save(trainer, "validation_end")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append((trainer.current_epoch, trainer.global_step))
        self.save(trainer, "epoch_end")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "end")


class Axis(Logger):
    """Notes at which step Lightning hands over what was noted after which."""

    name = "axis"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[float, int | None]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Takes nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "noted" in metrics:
            self.rows.append((metrics["noted"], step))


class Run:
    """A run in a process of its own, as far as chance is concerned, of a module that is new if it is not given."""

    def __init__(
        self,
        data: Any = None,
        ckpt_path: Path | None = None,
        save: Path | None = None,
        module: ConditionalGAN | None = None,
        callbacks: tuple[Callback, ...] = (),
        seed: int = 3,
        **options: Any,
    ) -> None:
        torch.manual_seed(7)
        self.module = module or gan()
        self.record, self.axis = Record(save), Axis()
        settings = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        settings |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "logger": self.axis, **options}
        self.trainer = Trainer(accelerator="cpu", callbacks=[self.record, *callbacks], **settings)
        torch.manual_seed(seed)
        self.fit(data, ckpt_path)
        if save is not None:
            self.record.save(self.trainer, "after")

    def fit(self, data: Any = None, ckpt_path: Path | None = None) -> None:
        self.trainer.fit(self.module, data or Few(batch_size=8), ckpt_path=ckpt_path)

    def state(self) -> dict[str, Any]:
        optimizers = [optimizer.state_dict()["state"] for optimizer in self.trainer.optimizers]
        return {**self.module.state_dict(), "optimizers": str(optimizers)}


def gan(kind: type[ConditionalGAN] = ConditionalGAN, **options: Any) -> ConditionalGAN:
    networks = MLPGenerator(2, 1, 4, 2, (4,)), MLPDiscriminator(2, 1, 4, (4,))
    return kind(*networks, NonSaturating(), **options)


def assert_same_end(whole: Run, rest: Run, since: int) -> None:
    """Compares all that came after a step, and how it ended."""
    assert rest.record.batches == [batch for batch in whole.record.batches if batch[2] >= since]
    ends = [[end for end in run.record.epochs if end[1] > since] for run in (whole, rest)]
    assert ends[0] == ends[1]
    validations = [[step for step in run.record.validations if step > since] for run in (whole, rest)]
    assert validations[0] == validations[1]
    assert rest.axis.rows == [row for row in whole.axis.rows if row[0] > since]
    assert rest.trainer.current_epoch == whole.trainer.current_epoch
    expected, got = whole.state(), rest.state()
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]) if isinstance(value, Tensor) else value == got[name], name


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


STYLES = [{"max_epochs": 3}, {"max_steps": 12}, {"max_epochs": 3, "max_steps": 1000}]


@pytest.mark.parametrize("style", ci_but_for(STYLES, {"max_steps": 12}), ids=str)
def test_from_every_hook(tmp_path: Path, style: dict[str, int]) -> None:
    whole = Run(save=tmp_path, **style)
    assert [end[1] for end in whole.record.epochs] == whole.record.validations == [4, 8, 12]
    saved = ["start-0", "batch_start-0", "batch_start-6", "batch_end-6", "batch_end-8", "validation_end-8"]
    for name in (*saved, "epoch_end-8", "epoch_start-8", "batch_start-8"):
        rest = Run(ckpt_path=tmp_path / f"{name}.ckpt", seed=99, **style)
        assert_same_end(whole, rest, int(name.rpartition("-")[2]))


@pytest.mark.parametrize(
    "options",
    [
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 0.5},
        {"limit_val_batches": 0},
        {"limit_train_batches": 3},
        {"limit_train_batches": 0.5},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("style", STYLES[:2], ids=str)
def test_with_other_epochs_and_validations(tmp_path: Path, style: dict[str, int], options: dict[str, Any]) -> None:
    whole = Run(save=tmp_path, **style, **options)
    end = whole.record.epochs[0][1]
    for name in (f"batch_end-{end}", f"epoch_end-{end}", f"batch_end-{end + 1}"):
        rest = Run(ckpt_path=tmp_path / f"{name}.ckpt", seed=99, **style, **options)
        assert_same_end(whole, rest, int(name.rpartition("-")[2]))


@pytest.mark.parametrize("early", [{"max_epochs": 2}, {"max_steps": 8}, {"max_steps": 6}], ids=str)
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_a_run_that_ended_early(tmp_path: Path, early: dict[str, int], style: dict[str, int]) -> None:
    whole, part = Run(**style), Run(save=tmp_path, **early)
    step = part.trainer.global_step
    for hook in ("epoch_end", "end", "after"):
        assert_same_end(whole, Run(ckpt_path=tmp_path / f"{hook}-{step}.ckpt", seed=99, **style), step)


class StopAt(Callback):
    """Stops in the middle of an epoch."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *others: Any) -> None:
        trainer.should_stop = trainer.global_step == 6


STOPS: list[Callable[[], Callback]] = [
    partial(EarlyStopping, "val_generator_loss", min_delta=1e9, patience=1),  # behind the second epoch
    partial(EarlyStopping, "val_generator_loss", min_delta=1e9, patience=1, check_on_train_epoch_end=True),
    StopAt,
]


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_a_callback_ended_goes_on_as_one_without_that_callback(
    tmp_path: Path, stop: Callable[[], Callback]
) -> None:
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    part = Run(callbacks=(stop(), Checkpoints(every_n_train_steps=100)), max_epochs=3, **options)
    step = 6 if stop is StopAt else 8
    assert part.trainer.global_step == step
    last = next(tmp_path.rglob("last.ckpt"))
    assert_same_end(Run(max_epochs=3), Run(ckpt_path=last, seed=99, max_epochs=3), step)


def test_from_the_default_checkpoint_of_lightning(tmp_path: Path) -> None:
    whole, last = Run(max_epochs=3), None
    for epochs in (1, 2, 3):
        keeps = ModelCheckpoint(tmp_path / str(epochs))
        rest = Run(ckpt_path=last, callbacks=(keeps,), enable_checkpointing=True, seed=2 + epochs, max_epochs=epochs)
        last = Path(keeps.best_model_path)
    assert_same_end(whole, rest, 8)


def test_more_updates_of_the_discriminator(tmp_path: Path) -> None:
    def run(epochs: int, **others: Any) -> Run:
        torch.manual_seed(2)
        return Run(Few(batch_size=4), module=gan(discriminator_steps=2), max_epochs=epochs, **others)

    run(2, save=tmp_path)
    assert_same_end(run(3), run(3, ckpt_path=tmp_path / "after-8.ckpt", seed=99), 8)


def test_a_loader_without_its_data_module(tmp_path: Path) -> None:
    def loader() -> ShufflingLoader:
        data = Few(batch_size=8)
        data.setup("fit")
        return data.train_dataloader()

    torch.manual_seed(3)
    Run(loader(), save=tmp_path, max_epochs=2)
    torch.manual_seed(3)
    whole = Run(loader(), max_epochs=3)
    torch.manual_seed(4)
    assert_same_end(whole, Run(loader(), ckpt_path=tmp_path / "epoch_end-8.ckpt", max_epochs=3), 8)


@pytest.mark.parametrize("other_data", [False, True])
def test_a_second_fit_of_one_trainer(other_data: bool) -> None:
    def run(epochs: int) -> Run:
        torch.manual_seed(2)
        plain = partial(SGD, lr=0.1)  # Lightning makes new optimizers for each fit
        module = gan(generator_optimizer=plain, discriminator_optimizer=plain)
        return Run(module=module, max_epochs=epochs)

    whole, parts = run(3), run(1)
    parts.trainer.fit_loop.max_epochs = 3
    parts.fit(Fewer(batch_size=8) if other_data else None)
    if other_data:  # from the beginning of an epoch of those
        data = Fewer(batch_size=8)
        data.setup("fit")
        loader = ShufflingLoader(*data.splits["train"], 8, seed=3)
        loader.epoch = 1
        expected = [images.double().sum().item() for _ in range(2) for images, _ in loader]
        assert [batch[3] for batch in parts.record.batches[4:]] == expected
    else:
        assert parts.record.batches == whole.record.batches
        assert all(torch.equal(value, whole.state()[name]) for name, value in parts.module.state_dict().items())


def test_another_trainer_begins_anew() -> None:
    first = Run(max_epochs=1)
    second = Run(max_epochs=1, module=first.module)
    assert [batch[:3] for batch in second.record.batches] == [batch[:3] for batch in first.record.batches]
    assert second.record.batches != first.record.batches  # in an order of its own


def test_a_checkpoint_without_the_place(tmp_path: Path) -> None:
    Run(save=tmp_path, max_epochs=2)
    checkpoint = torch.load(tmp_path / "epoch_end-8.ckpt", weights_only=True)
    del checkpoint["lightning_cgan"]["order"], checkpoint["lightning_cgan"]["numerics"]
    loops = checkpoint["loops"]["fit_loop"]
    loops["state_dict"]["combined_loader"] = [{"seed": 3, "images_seen": 64}]  # as older versions wrote it
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert_same_end(Run(max_epochs=3), Run(ckpt_path=tmp_path / "old.ckpt", seed=99, max_epochs=3), 8)


@pytest.mark.parametrize("order", ["seven", {"seed": 3}, {"seed": 3, "images_seen": 64, "epoch": -1}])
def test_a_place_that_is_none_is_refused(tmp_path: Path, order: Any) -> None:
    Run(save=tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "after-4.ckpt", weights_only=True)
    checkpoint["lightning_cgan"]["order"] = order
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(UsageError, match="^the checkpoint: expected a value such as .* for .*order"):
        Run(ckpt_path=tmp_path / "bad.ckpt", max_epochs=2)


class Overrides(ConditionalGAN):
    """As the pages of Lightning write hooks: without a call of those of the class above."""

    def on_train_epoch_start(self) -> None:
        """Does something else."""

    def on_train_epoch_end(self) -> None:
        """Does something else."""


def test_a_subclass_with_hooks_of_its_own(tmp_path: Path) -> None:
    def run(**options: Any) -> Run:
        torch.manual_seed(2)
        return Run(module=gan(Overrides), max_epochs=3, reload_dataloaders_every_n_epochs=1, **options)

    whole = run(save=tmp_path)
    for name in ("batch_end-4", "epoch_end-4"):
        assert_same_end(whole, run(ckpt_path=tmp_path / f"{name}.ckpt", seed=99), 4)


def test_a_loader_of_ones_own_stays_as_it_is(tmp_path: Path) -> None:
    images, labels = torch.linspace(-1, 1, 32 * 16).view(32, 1, 4, 4), torch.arange(32) % 2
    batches = DataLoader(TensorDataset(images, labels), batch_size=8)
    Run(batches, save=tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "after-4.ckpt", weights_only=True)
    assert checkpoint["lightning_cgan"]["order"] is None
    rest = Run(batches, ckpt_path=tmp_path / "after-4.ckpt", max_epochs=2)
    assert [batch[:3] for batch in rest.record.batches] == [(1, index, 4 + index) for index in range(4)]


@pytest.mark.parametrize(("before", "after"), [(6, 4), (4, 6), (5, 7), (12, 5)])
def test_another_size_of_batches_goes_on_in_the_epoch(before: int, after: int) -> None:
    pixels, labels = torch.arange(30).view(-1, 1, 1, 1).to(torch.uint8), torch.zeros(30, dtype=torch.int64)

    def numbers(loader: ShufflingLoader, batches: int) -> list[int]:
        return [
            round(float(i + 1) * 127.5) for _, (images, _) in zip(range(batches), loader, strict=False) for i in images
        ]

    epochs = [torch.cat([image for image, _ in [*ShufflingLoader(pixels, labels, 30, seed=3)]])]
    first = ShufflingLoader(pixels, labels, before, seed=3)
    seen = numbers(first, 2)
    then = ShufflingLoader(pixels, labels, after, rank=0, seed=0)
    then.load_state_dict(first.state_dict())
    seen += numbers(then, (30 - 2 * before) // after)
    order = [round(float(i + 1) * 127.5) for i in epochs[0].flatten()]
    assert seen == order[: len(seen)]
    following = ShufflingLoader(pixels, labels, after, seed=3)
    following.load_state_dict({**first.state_dict(), "epoch": 1, "offset": 0})
    assert numbers(then, 2) == numbers(following, 2)


def test_another_number_of_processes_goes_on_at_the_end_of_an_epoch() -> None:
    pixels, labels = torch.arange(30).view(-1, 1, 1, 1).to(torch.uint8), torch.zeros(30, dtype=torch.int64)
    one = ShufflingLoader(pixels, labels, 8, seed=3)
    for _ in one:
        pass
    shares = [ShufflingLoader(pixels, labels, 8, rank, 2, seed=rank) for rank in range(2)]
    for share in shares:
        share.load_state_dict(one.state_dict())
    for (whole, _), (even, _), (odd, _) in zip(one, *shares, strict=True):
        assert torch.equal(torch.stack([even, odd], 1).flatten(), whole.flatten())
