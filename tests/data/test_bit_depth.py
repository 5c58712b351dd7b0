"""Images of 16 bits that use fewer of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import opened_flat
from lightning_cgan import UsageError
from lightning_cgan.core.images import array_from_pixels
from lightning_cgan.data.bit_depth import all_bits, bits_for
from lightning_cgan.data.image_files import ImageFiles
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.judge import fingerprint_of


def write(place: Path, values: np.ndarray, kind: str) -> None:
    """Writes an image of 4 x 4 values, gray or coloured, with 16 bits, or 32 for `tif32`."""
    if kind.startswith("png"):
        place.with_suffix(".png").write_bytes(_png(values, {"png": 0, "png of colours": 2}[kind]))
    elif kind == "pgm":
        place.with_suffix(".pgm").write_bytes(b"P5 4 4 65535\n" + values.astype(">u2").tobytes())
    else:
        dtype = {"tif": "<u2", "tif, big-endian": ">u2", "tif32": "<i4"}[kind]
        Image.fromarray(values.astype(dtype)).save(place.with_suffix(".tif"))


def _png(values: np.ndarray, colour: int) -> bytes:
    """A PNG file with 16 bits, after its specification: Pillow writes none of colours."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    size = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def folder_of(place: Path, top: int, kind: str, count: int = 6) -> Path:
    """Two classes of images with values from 0 to a fraction of the top; the brightest of all is the last one."""
    for number in range(2 * count):
        (place / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        values = np.linspace(0, top * (number + 1) // (2 * count), 16).astype(np.int64).reshape(4, 4)
        write(place / "ab"[number % 2] / f"{number:02d}", values, kind)
    return place


def pixels_of(data: Any) -> torch.Tensor:
    return torch.cat(
        [images if isinstance(images, torch.Tensor) else images.load() for images, _ in data.splits.values()]
    )


@pytest.mark.parametrize("kind", ["png", "tif", "tif, big-endian", "tif32", "pgm"])
@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_the_brightest_value_is_white_and_the_others_in_proportion(
    tmp_path: Path, kind: str, top: int, bits: int
) -> None:
    folder = folder_of(tmp_path / "deep", top, kind)
    data = opened_flat(folder, test_fraction=0.2, bit_depth=8)
    assert data._bits == (bits, 8)
    expected = sorted(
        (np.linspace(0, top * (number + 1) // 12, 16).astype(np.int64) * 256 // 2**bits).tolist()
        for number in range(12)
    )
    assert sorted(pixels_of(data).flatten(1).tolist()) == expected
    lazily = opened_flat(folder, test_fraction=0.2, bit_depth=8, memory_budget=0)
    assert torch.equal(pixels_of(lazily), pixels_of(data))


@pytest.mark.parametrize("kind", ["png", "tif", "tif, big-endian", "tif32", "pgm"])
@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_every_bit_is_kept_where_all_images_are_deep(tmp_path: Path, kind: str, top: int, bits: int) -> None:
    folder = folder_of(tmp_path / "deep", top, kind)
    data = opened_flat(folder, test_fraction=0.2)
    assert data._bits == (bits, 8 if bits == 8 else 16)
    values = np.concatenate([array_from_pixels(pixels_of(data)).flatten()]).astype(np.int64)
    expected = np.concatenate([np.linspace(0, top * (number + 1) // 12, 16).astype(np.int64) for number in range(12)])
    shift = 0 if bits == 8 else 16 - bits
    assert sorted((values >> shift).tolist()) == sorted(expected.tolist())
    assert values.max() == (255 if bits == 8 else 65535)  # the brightest value is white
    lazily = opened_flat(folder, test_fraction=0.2, memory_budget=0)
    assert torch.equal(pixels_of(lazily), pixels_of(data))
    (lazy, _), (loaded, _) = lazily.splits["train"], data.splits["train"]
    assert isinstance(lazy, ImageFiles)
    assert isinstance(loaded, torch.Tensor)
    assert lazy.nbytes == loaded.nbytes


def test_a_preview_does_not_decide_which_bits_are_in_use(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "deep", 4095, "tif")
    for file in folder.rglob("*.tif"):
        with Image.open(file) as image:
            image.load()
        preview = Image.fromarray(np.full((2, 2), 65535, dtype=np.uint16))
        image.save(file, save_all=True, append_images=[preview])
    data = opened_flat(folder)
    assert data._bits == (12, 16)
    assert data.image_channels == 1


def test_all_bits_by_hand() -> None:
    assert all_bits(np.array([0, 1, 0x800, 0xABC, 0xFFF, 0x1000]), 12).tolist() == [
        0, 0x0010, 0x8008, 0xABCA, 0xFFFF, 0xFFFF
    ]  # fmt: skip
    assert all_bits(np.array([0, 1, 255]), 8).tolist() == [0, 257, 65535]
    assert all_bits(np.array([0, 1, 65535]), 16).tolist() == [0, 1, 65535]
    assert all_bits(np.array([1, 513, 1023]), 10).tolist() == [0x0040, 0x8060, 0xFFFF]


def test_8_bits_among_deep_images_keep_their_brightness(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "deep", 65535, "png")
    Image.new("L", (4, 4), 77).save(folder / "a" / "x.png")
    data = opened_flat(folder, image_channels=1, bit_depth=16)
    assert (array_from_pixels(pixels_of(data)).reshape(-1, 16) == 77 * 257).all(1).sum() == 1
    assert opened_flat(folder)._bits == (16, 8)
    resized = opened_flat(folder_of(tmp_path / "other", 60000, "png"), image_size=2)
    whole = opened_flat(tmp_path / "other")
    for split in ("train", "test"):
        images = [array_from_pixels(data.splits[split][0]).astype(float) for data in (whole, resized)]  # type: ignore[arg-type]
        assert np.abs(images[0].mean((2, 3)) - images[1].mean((2, 3))).max() < 2000  # of 65,535


def test_the_training_split_decides_for_all_splits(tmp_path: Path) -> None:
    for split, top in (("train", 4095), ("test", 255)):
        folder_of(tmp_path / split, top, "png")
    for options in ({}, {"image_size": 4, "image_channels": 1}, {"corrupt": "skip"}):
        data = opened_flat(tmp_path, bit_depth=8, **options)
        assert data._bits == (12, 8)
        assert int(data.splits["test"][0].max()) == 255 * 256 // 4096  # type: ignore[union-attr]
    first_of_all = opened_flat(tmp_path, bit_depth=8)
    assert int(first_of_all.read("test")[0].load().max()) == 15


def test_images_of_8_bits_may_lie_among_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "deep", 4095, "png")
    Image.new("L", (4, 4), 77).save(folder / "a" / "x.png")
    Image.new("L", (4, 4), 77).save(folder / "b" / "x.jpg")
    assert (pixels_of(opened_flat(folder, image_channels=1)).flatten(1) == 77).all(1).sum() == 2
    for file in folder.glob("*/[0-9]*.png"):
        file.unlink()
    for number in range(4):
        for name in "ab":
            Image.new("L", (4, 4), number).save(folder / name / f"{number}.png")
    data = opened_flat(folder)  # dark, but of 8 bits
    assert sorted(set(pixels_of(data).flatten().tolist())) == [0, 1, 2, 3, 77]


def test_what_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    for values, range_ in ((np.full((4, 4), 70_000), "70,000 to 70,000"), (np.full((4, 4), -3), "-3 to -3")):
        write(tmp_path / "x", values, "tif32")
        with pytest.raises(UsageError) as raised:
            ImageFiles([tmp_path / "x.tif"], 1, 4, workers=0).load()
        assert f"x.tif, which cannot be read (values from {range_}, which 16 bits cannot hold); fix" in str(
            raised.value
        )


def test_colours_of_16_bits_must_use_them(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 48).astype(np.int64).reshape(4, 12)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.png").write_bytes(_png_of_colours(values * (1 if number > 2 else 16)))
    data = opened_flat(tmp_path)
    assert (data._bits, data.image_channels) == ((16, 8), 3)
    for name in "ab":
        for number in range(3):
            (tmp_path / name / f"{number}.png").unlink()
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path)
    first = next(number for number in (3, 4, 5) if f"/a/{number}.png" in str(raised.value))  # one is held out
    assert str(raised.value) == (
        f"--data.data_dir: expected colours of 8 bits, or of 16 that are all in use, got '{tmp_path}/a/{first}.png' with values up "
        "to 4,095 in 16 bits, of which Pillow reads the upper 8; save such files with 8 bits"
    )


def _png_of_colours(values: np.ndarray) -> bytes:
    """Three values of a row make a pixel."""
    made = _png(values, 2)
    size = struct.pack(">IIBBBBB", values.shape[1] // 3, values.shape[0], 16, 2, 0, 0, 0)
    return made[:16] + size + struct.pack(">I", zlib.crc32(b"IHDR" + size)) + made[33:]


def test_bits_and_fingerprints(tmp_path: Path) -> None:
    tops = (0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535)
    assert [bits_for(top) for top in tops] == [8, 8, 10, 10, 12, 12, 14, 14, 16, 16]
    write(tmp_path / "x", np.full((4, 4), 300), "png")
    labels = torch.zeros(1, dtype=torch.int64)
    files = [ImageFiles([tmp_path / "x.png"], 1, 4, 0, bits) for bits in (16, 12, 10)]
    assert [int(some.load().max()) for some in files] == [1, 18, 75]
    assert len({fingerprint_of(OrderedLoader(some, labels, 1)) for some in files}) == 3
    assert files[1].index_select(0, labels).bits == 12
