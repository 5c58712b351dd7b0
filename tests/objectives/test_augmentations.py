"""Augmentations against loops over images and pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cgan import Augmentation, Color, Cutout, Translation, UsageError

JUST_BELOW_ONE = 1 - 2**-24


def shifted(image: Tensor, down: int, right: int, fill: float) -> Tensor:
    channels, height, width = image.shape
    out = torch.full_like(image, fill)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                if 0 <= i - down < height and 0 <= j - right < width:
                    out[c, i, j] = image[c, i - down, j - right]
    return out


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 5)])
def test_translation_is_a_loop_over_pixels(height: int, width: int) -> None:
    images, chance = torch.rand(6, 2, height, width), torch.rand(6, 2)
    chance[0], chance[1] = 0.0, JUST_BELOW_ONE
    out = Translation(ratio=0.25, fill=-1.0)(images, chance)
    for image, (first, second), got in zip(images, chance.tolist(), out, strict=True):
        largest = (height // 4, width // 4)
        down, right = (int(u * (2 * most + 1)) - most for u, most in zip((first, second), largest, strict=True))
        assert torch.equal(got, shifted(image, down, right, -1.0))
    assert torch.equal(out[0], shifted(images[0], -(height // 4), -(width // 4), -1.0))
    assert torch.equal(out[1], shifted(images[1], height // 4, width // 4, -1.0))


def test_every_shift_is_equally_likely() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 4, 4] = 1
    out = Translation(ratio=0.25)(image.expand(5000, -1, -1, -1), torch.rand(5000, 2))
    counts = out.mean(0)[0, 2:7, 2:7]
    assert counts.sum().item() == pytest.approx(1)
    assert ((counts - 1 / 25).abs() < 0.015).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 5), (6, 7)])
def test_cutout_is_a_loop_over_pixels(height: int, width: int) -> None:
    images, chance = torch.rand(6, 2, height, width) + 1, torch.rand(6, 2)
    chance[0], chance[1] = 0.0, JUST_BELOW_ONE
    out = Cutout(ratio=0.5, fill=0.0)(images, chance)
    for image, chances, got in zip(images, chance.tolist(), out, strict=True):
        expected = image.clone()
        for i in range(height):
            for j in range(width):
                inside = True
                for place, size, u in ((i, height, chances[0]), (j, width, chances[1])):
                    side = size // 2
                    middles = [m / 2 for m in range(2 * size + 1) if m % 2 == side % 2]  # on a pixel, or between two
                    inside &= abs(place + 0.5 - middles[int(u * len(middles))]) < side / 2
                if inside:
                    expected[:, i, j] = 0
        assert torch.equal(got, expected)


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_treats_opposite_borders_alike(side: int) -> None:
    images = torch.ones(1000, 1, 8, 8)
    evenly = (torch.arange(1000) + 0.5) / 1000
    blank = 1 - Cutout(ratio=side / 8)(images, torch.stack([evenly, torch.full_like(evenly, 0.5)], dim=1))
    frequencies = blank.amax(3).mean(0)[0]
    assert torch.allclose(frequencies, frequencies.flip(0), atol=0.005)
    assert (blank.amax(3).sum(2) >= side // 2).all()  # at a border half of it remains, or more


def test_a_shift_stays_within_its_ratio() -> None:
    image = torch.arange(28.0).view(1, 1, 28, 1).expand(1, 1, 28, 28)
    out = Translation()(image, torch.full((1, 2), JUST_BELOW_ONE))
    assert out[0, 0, :5, 27].tolist() == [0, 0, 0, 0, 1]  # 28 / 8 is 3.5: down by three


@pytest.mark.parametrize("channels", [1, 3])
def test_color_is_a_loop_over_images(channels: int) -> None:
    images, chance = torch.rand(4, channels, 5, 6) * 2 - 1, torch.rand(4, 3)
    chance[0] = 0.5  # nothing changes
    out = Color(brightness=0.5, saturation=1.0, contrast=0.5)(images, chance)
    assert torch.allclose(out[0], images[0], atol=1e-6)
    for image, (first, second, third), got in zip(images, chance.tolist(), out, strict=True):
        changed = image + (first - 0.5)  # from -0.5 to 0.5
        if channels == 3:
            gray = (changed[0] + changed[1] + changed[2]) / 3
            changed = torch.stack([gray + (plane - gray) * (2 * second) for plane in changed])  # from 0 to 2
        changed = (changed - changed.mean()) * (third + 0.5) + changed.mean()  # from 0.5 to 1.5
        assert torch.allclose(got, changed, atol=1e-6)


@pytest.mark.parametrize("augmentation", [Translation(), Cutout(), Color()])
def test_gradients_reach_the_images(augmentation: Augmentation) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    chance = torch.rand(2, augmentation.num_uniforms)
    assert torch.autograd.gradcheck(lambda images: augmentation(images, chance), images)
    assert augmentation(images.bfloat16(), chance).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Translation, {"ratio": 1.5}, "ratio: expected a number from 0 to 1, got 1.5"),
        (Cutout, {"ratio": -0.1}, "ratio: expected a number from 0 to 1, got -0.1"),
        (Color, {"contrast": 2.0}, "contrast: expected a number from 0 to 1, got 2.0"),
    ],
)
def test_amounts_out_of_range(cls: Any, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cls(**options)
