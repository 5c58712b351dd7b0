"""`samples.gif`: the grids of a run, one after the other."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image, ImageSequence
from torch.utils.data import DataLoader

from helpers.paths import FIXED_DECAY
from helpers.quiet import quiet_trainer
from lightning_cgan import (
    ConditionalGAN,
    DigitsData,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    SampleGrid,
    UsageError,
)

Run = Callable[..., Path]


def frames(file: Path) -> list[Image.Image]:
    with Image.open(file) as film:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]


def grids(folder: Path) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in sorted(folder.glob("samples/*.png"))]


def test_frames_are_the_grids_also_those_before_a_stop(run: Run, tmp_path: Path) -> None:
    options = ("--samples.every_n_steps", "2", "--samples.columns", "3")
    folder = run(*options, "--trainer.max_steps", "4")
    with Image.open(folder / "samples.gif") as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0  # without end
        seconds = [frame.info["duration"] / 1000 for frame in ImageSequence.Iterator(film)]
    assert seconds == [0.2, 0.2, 2.0]
    again = run(*options, "--trainer.max_steps", "8", "--ckpt_path", "last")
    assert again == folder
    assert len(grids(folder)) == 5
    assert [frame.tobytes() for frame in frames(folder / "samples.gif")] == [g.tobytes() for g in grids(folder)]


def _draw(folder: Path, **options: int) -> None:
    """Makes one step of a small pair, whose pictures go to a folder."""
    gan = ConditionalGAN(MLPGenerator(10, 1, 8, latent_dim=4), MLPDiscriminator(10, 1, 8), NonSaturating())
    trainer = quiet_trainer(1, callbacks=[SampleGrid(1000, **options)], default_root_dir=str(folder))
    trainer.fit(gan, DigitsData(batch_size=16))


def test_of_many_grids_sixty_are_shown(tmp_path: Path) -> None:
    _draw(tmp_path, columns=1)
    last = Image.open(tmp_path / "samples" / "00000001.png")
    for step in range(2, 200):  # as if they had been drawn before
        Image.new("RGB", last.size, (step, step, step)).save(tmp_path / "samples" / f"{step:08d}.png")
    _draw(tmp_path, columns=1)
    shown = [frame.getpixel((5, 5))[0] for frame in frames(tmp_path / "samples.gif")]  # type: ignore[index]
    assert len(shown) == 60
    assert shown[-1] == 199
    assert frames(tmp_path / "samples.gif")[0].tobytes() == grids(tmp_path)[0].tobytes()
    steps = {later - earlier for earlier, later in pairwise(shown[1:])}
    assert steps == {3, 4}  # 199 / 59 = 3.4


def test_grids_of_another_size_are_left_out(tmp_path: Path) -> None:
    _draw(tmp_path, columns=1)
    (tmp_path / "samples" / "00000000.png").replace(tmp_path / "samples" / "00000000_before.png")
    _draw(tmp_path, columns=2)
    assert len(frames(tmp_path / "samples.gif")) == 2


def test_training_goes_on_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "samples.gif").mkdir()
    (tmp_path / "samples").mkdir()
    with pytest.warns(UserWarning, match=r"samples\.gif was not written: .*directory.*\. Training continues"):
        _draw(tmp_path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["samples", "samples.gif"]


class _Full(TensorBoardLogger):
    """Has no room for pictures."""

    @property
    def experiment(self) -> Any:
        raise OSError(28, "No space left on device")


class _Other(CSVLogger):
    """Takes pictures in a way of its own."""

    def log_picture(self, picture: object) -> None:
        raise AssertionError


class _Taking(CSVLogger):
    """Takes pictures as `WandbLogger` does."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.taken = (key, images, step)


def test_a_custom_logger_gets_the_grids(tmp_path: Path) -> None:
    gan = ConditionalGAN(MLPGenerator(10, 1, 8, latent_dim=4), MLPDiscriminator(10, 1, 8), NonSaturating())
    logger = _Taking(tmp_path, name="", version="")
    trainer = quiet_trainer(1, logger=logger)
    grid = SampleGrid()
    grid.setup(trainer, gan, "fit")
    grid.on_train_start(trainer, gan)
    key, (image,), step = logger.taken
    assert (key, step) == ("samples", 0)
    assert image.tobytes() == Image.open(tmp_path / "samples" / "00000000.png").tobytes()


def test_training_goes_on_where_a_logger_takes_no_picture(tmp_path: Path) -> None:
    gan = ConditionalGAN(MLPGenerator(10, 1, 8, latent_dim=4), MLPDiscriminator(10, 1, 8), NonSaturating())
    trainer = quiet_trainer(1, logger=[_Other(tmp_path, version=""), _Full(tmp_path)])
    grid = SampleGrid()
    grid.setup(trainer, gan, "fit")
    expected = "The grid of samples for _Full was not written: [Errno 28] No space left on device. Training continues"
    with pytest.warns(UserWarning, match=re.escape(expected)):
        grid.on_train_start(trainer, gan)
    assert len(list(tmp_path.rglob("00000000.png"))) == 1


def test_a_damaged_grid_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "00000000_1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"samples\.gif was not written: cannot identify"):
        _draw(tmp_path)


def test_colours_come_near(tmp_path: Path) -> None:
    gan = ConditionalGAN(MLPGenerator(2, 3, 8, latent_dim=4), MLPDiscriminator(2, 3, 8), NonSaturating())
    images = DataLoader([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 8, 8), 1)], batch_size=2)  # type: ignore[arg-type]
    quiet_trainer(1, callbacks=[SampleGrid()], default_root_dir=str(tmp_path)).fit(gan, images)
    for shown, grid in zip(frames(tmp_path / "samples.gif"), grids(tmp_path), strict=True):
        error = (torch.tensor(list(shown.tobytes())).float() - torch.tensor(list(grid.tobytes())).float()).abs()
        assert error.mean() < 16  # of 255; any two shades are 85 apart on average


def _many(folder: Path, classes: int, image_size: int = 8, **options: Any) -> list[Image.Image]:
    """The film of a run with so many classes."""
    networks = MLPGenerator(classes, 1, image_size, 4, (8,)), MLPDiscriminator(classes, 1, image_size, (8,))
    images = DataLoader([(torch.zeros(1, image_size, image_size), label) for label in range(4)], batch_size=4)  # type: ignore[arg-type]
    trainer = quiet_trainer(1, callbacks=[SampleGrid(**options)], default_root_dir=str(folder))
    trainer.fit(ConditionalGAN(*networks, NonSaturating()), images)
    return frames(folder / "samples.gif")


@pytest.mark.parametrize(("classes", "rows"), [(100, 1), (1300, 1), (4000, 2)])
def test_of_many_classes_a_hundred_are_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, classes: int, rows: int
) -> None:
    caplog.set_level("INFO")
    film = _many(tmp_path, classes, columns=1, rows=rows)
    assert film[-1].size == (56 + 4, 100 * rows * 58 + 2)
    told = f"The grids of samples show 100 evenly spaced classes of {classes:,}; --samples.labels chooses others"
    assert [record.getMessage() for record in caplog.records].count(told) == int(classes > 100)
    numbers = _numbers(SampleGrid(), _Fake(classes))
    assert (numbers[:2], numbers[-1]) == ([0, {100: 1, 1300: 13, 4000: 40}[classes]], classes - 1)


class _Fake:
    """A module whose generator makes images of a size."""

    def __init__(self, num_classes: int, image_size: int = 8) -> None:
        self.num_classes = num_classes
        self.generator = SimpleNamespace(image_shape=(1, image_size, image_size))


def _set_up(samples: SampleGrid, module: _Fake) -> None:
    samples.setup(SimpleNamespace(log_dir=None, fast_dev_run=False), module, "fit")  # type: ignore[arg-type]


def _numbers(samples: SampleGrid, module: _Fake) -> list[int]:
    _set_up(samples, module)
    return samples._numbers


@pytest.mark.parametrize(
    ("options", "most", "rows"),
    [
        ({"labels": list(range(1130)), "columns": 1}, "1 by at most 1,129", "1,130"),  # a GIF has 65,535 pixels
        ({"labels": [1] * 100, "rows": 30, "columns": 24}, "24 by at most 990", "3,000"),
        ({"columns": 1200}, "1,200 by at most 0", "1"),
    ],
)
def test_pictures_that_nobody_can_open_are_refused_before_training(
    options: dict[str, Any], most: str, rows: str
) -> None:
    with pytest.raises(UsageError) as raised:
        _set_up(SampleGrid(**options), _Fake(2000))
    assert str(raised.value) == (
        f"--samples.rows: expected a grid of {most} images, got {rows} rows; name fewer --samples.labels, or choose "
        "smaller --samples.rows and --samples.columns"
    )


def test_large_images_have_fewer_classes() -> None:
    module = _Fake(1000, 512)
    assert len(_numbers(SampleGrid(), module)) == 80_000_000 // (10 * 514) // 514
    assert _numbers(SampleGrid(rows=16), module) == [999]
    _set_up(SampleGrid(rows=30), _Fake(1000, 512))


def test_a_film_of_large_grids_has_fewer_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_cgan.callbacks.samples._MOST_PIXELS_OF_GIF", 3 * (58 + 2) * (580 + 2) + 1)
    (tmp_path / "samples").mkdir()
    for step in range(2, 12):
        Image.new("RGB", (60, 582), (step, step, step)).save(tmp_path / "samples" / f"{step:08d}.png")
    _draw(tmp_path, columns=1)
    assert len(frames(tmp_path / "samples.gif")) == 3


@pytest.mark.ci
def test_a_run_that_goes_on_has_the_grids_of_one_that_was_never_stopped(run: Run) -> None:
    options = ("--samples.every_n_steps", "2", "--samples.columns", "1", "--scores.images", "0", *FIXED_DECAY)
    options += ("--trainer.max_steps",)
    folder = run(*options, "3")
    (folder / "samples" / "00000003.png").unlink()  # a run that is killed has not drawn it
    for later in ("00000004.png", "00000006.png"):  # but made more steps than its checkpoint knows of
        Image.new("RGB", grids(folder)[0].size, "red").save(folder / "samples" / later)
    (folder / "samples" / "000000_mine.png").write_bytes(b"")
    assert run(*options, "5", "--ckpt_path", "last") == folder
    names = ["000000_mine.png", *(f"{step:08d}.png" for step in (0, 2, 4, 5))]
    assert sorted(file.name for file in (folder / "samples").iterdir()) == sorted(names)
    (folder / "samples" / "000000_mine.png").unlink()
    whole = run(*options, "5")
    assert [grid.tobytes() for grid in grids(folder)] == [grid.tobytes() for grid in grids(whole)]


@pytest.mark.parametrize("error", [OSError(30, "Read-only"), ValueError("no picture"), struct.error("too large")])
def test_no_picture_is_worth_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("lightning_cgan.callbacks.samples.save_gif", fail)
    monkeypatch.setattr("lightning_cgan.callbacks.samples.save_png", fail)
    said = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    with pytest.warns(UserWarning, match=re.escape(f"The grid of samples was not written: {said}. Training continues")):
        _draw(tmp_path)
