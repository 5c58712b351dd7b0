"""Pixel ranges and grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lightning_cgan.core.images import (
    array_from_pixels,
    bytes_from_signed,
    cell_size,
    grid,
    pil_image,
    pixels_from_array,
    pixels_from_signed,
    save_png,
    signed_from_pixels,
    signed_from_unit,
    unit_from_signed,
)


def test_ranges() -> None:
    pixels = torch.arange(256).to(torch.uint8)
    signed = signed_from_pixels(pixels)
    assert (signed[0], signed[-1], signed.dtype) == (-1, 1, torch.float32)
    assert torch.equal(bytes_from_signed(signed), pixels)
    assert bytes_from_signed(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
    assert torch.equal(signed_from_unit(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(unit_from_signed(signed), pixels / 255)


def test_ranges_of_16_bits() -> None:
    values = np.arange(65536).astype(np.uint16)
    pixels = pixels_from_array(values)
    signed = signed_from_pixels(pixels)
    assert (signed[0], signed[-1], signed.dtype) == (-1, 1, torch.float32)
    by_hand = values.astype(np.float64) / 65535 * 2 - 1
    assert np.abs(signed.double().numpy() - by_hand).max() < 1e-7
    assert torch.equal(pixels_from_signed(signed, 16), pixels)
    assert (array_from_pixels(pixels) == values).all()
    assert array_from_pixels(pixels_from_signed(torch.tensor([-3.0, 3.0]), 16)).tolist() == [0, 65535]


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize("count", [1, 7])
def test_channels_that_no_display_has_are_sheets_of_gray(channels: int, count: int) -> None:
    images = torch.rand(count, channels, 20, 30) * 2 - 1
    picture = grid(images, 3)
    top = 0
    for channel in range(channels):
        sheet = grid(images[:, [channel]], 3)
        assert torch.equal(picture[:, top : top + sheet.shape[1]], sheet)
        top += sheet.shape[1]
        assert (picture[:, top : top + 2] == 255).all()
        top += 2
    assert picture.shape[1] == top - 2


def test_a_cell_is_the_distance_between_images() -> None:
    for shape in ((1, 28, 28), (3, 24, 40), (5, 8, 100)):
        one, four = (grid(torch.zeros(count, *shape), 2) for count in (2, 4))
        height, width = cell_size(shape)
        assert four.shape[1] - one.shape[1] == height
        assert grid(torch.zeros(3, *shape), 3).shape[2] - one.shape[2] == width


def test_grid_has_images_in_rows_and_magnifies_small_ones(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, -1.0])
    picture = grid(values.view(6, 1, 1, 1).expand(6, 1, 4, 4), columns=3, smallest_cell=6)
    save_png(picture, tmp_path / "new" / "grid.png")
    image = Image.open(tmp_path / "new" / "grid.png").convert("L")
    assert image.size == (3 * (8 + 2) + 2, 2 * (8 + 2) + 2)  # 4 pixels, twice as large, between borders of 2
    shades = [image.getpixel((2 + 10 * column + 3, 2 + 10 * row + 3)) for row in range(2) for column in range(3)]
    assert shades == [0, 64, 128, 191, 255, 0]
    assert image.getpixel((0, 0)) == 255


@pytest.mark.parametrize(
    ("count", "columns", "channels", "size"), [(7, 3, 1, 60), (4, 4, 3, 57), (2, 5, 3, 56), (1, 4, 1, 70)]
)
def test_a_grid_is_that_of_torchvision(count: int, columns: int, channels: int, size: int) -> None:
    images = torch.rand(count, channels, size, size + 3) * 2 - 1
    expected = make_grid(bytes_from_signed(images), nrow=columns, padding=2, pad_value=255)
    assert torch.equal(grid(images, columns), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_that_of_torchvision(channels: int) -> None:
    picture = torch.randint(256, (channels, 5, 7), dtype=torch.uint8)
    found, expected = pil_image(picture), to_pil_image(picture)
    assert (found.mode, found.size, found.tobytes()) == (expected.mode, expected.size, expected.tobytes())
