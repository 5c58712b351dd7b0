"""`samples.gif`: the grids of a run, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image, ImageSequence
from quiet import quiet_trainer
from torch.utils.data import DataLoader

from lightning_cgan import ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating, SampleGrid

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
    """Makes one alternation of a small pair, whose pictures go to a folder."""
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
    with pytest.warns(UserWarning, match=r"samples\.gif was not written: .*directory.*\. Training goes on"):
        _draw(tmp_path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["samples", "samples.gif"]


class _Full(TensorBoardLogger):
    """Has no room for pictures."""

    @property
    def experiment(self) -> Any:
        raise OSError(28, "No space left on device")


class _Other(CSVLogger):
    """Takes pictures in a way of its own."""

    def log_image(self, picture: object) -> None:
        raise AssertionError


def test_training_goes_on_where_a_logger_takes_no_picture(tmp_path: Path) -> None:
    gan = ConditionalGAN(MLPGenerator(10, 1, 8, latent_dim=4), MLPDiscriminator(10, 1, 8), NonSaturating())
    trainer = quiet_trainer(1, logger=[_Other(tmp_path, version=""), _Full(tmp_path)])
    grid = SampleGrid()
    grid.setup(trainer, gan, "fit")
    expected = "The picture of samples for _Full was not written: [Errno 28] No space left on device. Training goes on"
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
