"""Folders of images, with a folder for each class, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from lightning_cgan import ImageFolderData

SHAPES = ("circles", "crosses", "rings", "squares", "triangles")
_COLOURS = ((220, 40, 40), (40, 170, 60), (60, 90, 230), (230, 190, 30), (170, 60, 190))


def write_shapes(folder: Path, each: int = 50, size: int = 32) -> None:
    """Writes PNG files of each class: its shape in its colour, of random size and place, on a dark ground."""
    chance = np.random.default_rng(0)
    for label, name in enumerate(SHAPES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture = Image.new("RGB", (size, size), tuple(chance.integers(0, 50, 3).tolist()))
            radius = float(chance.uniform(0.25, 0.4) * size)
            x, y = chance.uniform(radius, size - radius, 2).tolist()
            colour = tuple((np.array(_COLOURS[label]) + chance.integers(-20, 21, 3)).clip(0, 255).tolist())
            _draw(ImageDraw.Draw(picture), name, x, y, radius, colour)
            picture.save(folder / name / f"{number:03d}.png")


def _draw(pen: ImageDraw.ImageDraw, name: str, x: float, y: float, r: float, colour: tuple[int, ...]) -> None:
    box = (x - r, y - r, x + r, y + r)
    if name == "circles":
        pen.ellipse(box, fill=colour)
    elif name == "rings":
        pen.ellipse(box, outline=colour, width=max(2, int(r / 2.5)))
    elif name == "squares":
        pen.rectangle(box, fill=colour)
    elif name == "triangles":
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=colour)
    else:
        pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=colour)
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)


def write_numbered(place: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """A folder for each class with so many images; the red of an image tells it from all others of the folder."""
    number = 0
    for name, count in counts.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.new("RGB", size, (number, 0, 0)).save(place / name / f"{number:03d}.png")
            number += 1
    return place


def reds(data: ImageFolderData, split: str) -> list[int]:
    """The numbers of the images of a split in memory."""
    images, _ = data.splits[split]
    assert isinstance(images, torch.Tensor)
    return images[:, 0, 0, 0].tolist()  # type: ignore[no-any-return]


def opened_flat(folder: Path, **options: Any) -> ImageFolderData:
    """The images of a folder, with all splits read."""
    data = ImageFolderData(str(folder), **{"batch_size": 2, "workers": 0, **options})
    data.prepare_data()
    data.setup("test")
    return data
