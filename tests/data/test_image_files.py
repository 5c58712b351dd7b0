"""Files of images: of all kinds, sizes and colours, and broken ones."""

from __future__ import annotations

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import opened_flat, reds, write_numbered
from lightning_cgan import ImageFolderData, UsageError
from lightning_cgan.core.images import ImageSize, height_and_width
from lightning_cgan.data.image_files import ImageFiles, to_size

# ---- size and colour from headers ------------------------------------------------------------------------------------


def test_sizes_and_colours_are_those_of_the_images(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 4, "b": 4}, size=(6, 6))
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert [opened_flat(folder).image_size, opened_flat(folder).image_channels] == [6, 1]
    for place in ("b/x.png", "a/000.png"):  # the last one, or the first
        Image.new("RGB", (6, 6)).save(folder / place)
        assert opened_flat(folder).image_channels == 3
        Image.new("L", (6, 6)).save(folder / place)
    for width, height in ((9, 6), (7, 7)):
        Image.new("L", (width, height)).save(folder / "b" / "x.png")
        message = (
            rf"^--data.image_size: expected images of one size, got {folder}/a/000.png of 6 x 6 and {folder}/b/x.png "
            rf"of {width} x {height} pixels; give a size to resize them to, such as --data.image_size 6$"
        )
        with pytest.raises(UsageError, match=message):
            opened_flat(folder)
    assert opened_flat(folder, image_size=5).splits["test"][0].shape == (2, 1, 5, 5)  # type: ignore[union-attr]


def test_headers_are_not_looked_at_where_nothing_is_asked_of_them(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 4})
    (folder / "a" / "000.png").write_bytes(b"nonsense")
    ImageFolderData(str(folder), image_size=8, image_channels=3)
    for known in ({"image_size": 8}, {"image_channels": 3}):
        with pytest.raises(UsageError, match=rf"^--data.data_dir: expected images, got {folder}/a/000.png, which"):
            ImageFolderData(str(folder), **known)  # type: ignore[arg-type]


def write_pages(file: Path, pages: int, seed: int = 0, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (pages, *size), dtype=np.uint8)
    first, *others = map(Image.fromarray, values)
    file.parent.mkdir(parents=True, exist_ok=True)
    first.save(file, save_all=True, append_images=others)
    return values


def test_pages_of_a_tiff_file_are_channels(tmp_path: Path) -> None:
    written = [write_pages(tmp_path / "flat" / "ab"[n % 2] / f"{n}.tif", 5, n) for n in range(8)]
    for budget in (4.0, 0.0):
        data = opened_flat(tmp_path / "flat", memory_budget=budget)
        assert (data.image_channels, data.image_size) == (5, (6, 9))
        splits = [images if isinstance(images, torch.Tensor) else images.load() for images, _ in data.splits.values()]
        found = torch.cat(splits).numpy()
        assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in written)
    gray = opened_flat(tmp_path / "flat", image_channels=1, image_size=(6, 9)).splits["test"][0]
    assert {image.tobytes() for image in gray.numpy()} <= {image[0].tobytes() for image in written}  # type: ignore[union-attr]


def test_channels_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    for number in range(4):
        write_pages(tmp_path / "flat" / "ab"[number % 2] / f"{number}.tif", 5)
    Image.new("RGB", (9, 6)).save(tmp_path / "flat" / "b" / "x.png")
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "flat")
    assert str(raised.value) == (
        f"--data.image_channels: expected images with the same channels, got {tmp_path}/flat/b/x.png with 3 and "
        f"{tmp_path}/flat/a/0.tif with 5; convert one of them, or give --data.image_channels 1 for all"
    )
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "flat", image_channels=5)
    assert str(raised.value) == (
        f"--data.data_dir: expected images, got {tmp_path}/flat/b/x.png, which cannot be read (3 of 5 channels: save a "
        "TIFF file with a gray page for each); fix or remove it, or skip such files with --data.corrupt skip"
    )
    write_pages(tmp_path / "flat" / "b" / "x.tif", 17)
    (tmp_path / "flat" / "b" / "x.png").unlink()
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "flat")
    assert str(raised.value) == (
        f"--data.image_channels: expected at most 16, got {tmp_path}/flat/b/x.tif with 17 gray pages; to read the first "
        "page of each file, give --data.image_channels 1"
    )


def test_transparency_is_a_channel_if_asked_for(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    read = ImageFiles([tmp_path / "x.png"], 4, (8, 6), workers=0)[0]
    assert np.array_equal(read.permute(1, 2, 0).numpy(), pixels)
    with_gray = ImageFiles([tmp_path / "x.png"], 2, (8, 6), workers=0)[0]
    assert np.array_equal(with_gray[1].numpy(), pixels[..., 3])
    assert np.array_equal(with_gray[0].numpy(), np.asarray(Image.fromarray(pixels[..., :3]).convert("L")))


@pytest.mark.parametrize("size", [(4, 4), (4, 10), (10, 4), (30, 20), 7])
@pytest.mark.parametrize("given", [(8, 8), (20, 30), (30, 20), (5, 40)])
def test_a_size_is_covered_and_the_rest_is_cut_off(size: ImageSize, given: tuple[int, int]) -> None:
    """A ramp along each axis: the middle of what is left is the middle of what was given."""
    height, width = height_and_width(size)
    for axis, length in enumerate(given):
        ramp = torch.linspace(0, 255, length)[:, None].expand(given) if axis == 0 else torch.linspace(0, 255, length)
        resized = to_size(ramp.expand(1, *given).contiguous(), size)
        assert resized.shape == (1, height, width)
        assert resized.mean().item() == pytest.approx(127.5, abs=255 / min(length, 2 * (height, width)[axis]))
        scale = max(height / given[0], width / given[1])
        kept = (height, width)[axis] / scale / length  # of this axis
        assert kept <= 1.01
        spread = (resized.amax() - resized.amin()).item()
        assert spread == pytest.approx(255 * kept, abs=2 * 255 / min(length, (height, width)[axis]))


# ---- files of all kinds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_files_that_lose_nothing_are_read_as_they_were_written(tmp_path: Path, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"x.{ending}", **({"lossless": True} if ending == "webp" else {}))
    read = ImageFiles([tmp_path / f"x.{ending}"], 3, 8, workers=0)[0]
    assert np.array_equal(read.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_photos_are_turned_upright(tmp_path: Path, ending: str) -> None:
    upright = np.zeros((16, 16, 3), dtype=np.uint8)
    upright[:8] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is the right side of what is stored: turned clockwise, it stands
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / f"x.{ending}", exif=exif)
    read = ImageFiles([tmp_path / f"x.{ending}"], 1, 16, workers=0)[0].float()
    assert read[0, :7].mean() > 245
    assert read[0, 9:].mean() < 10


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_the_size_of_photos_is_that_of_upright_ones(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.tile(np.linspace(0, 255, 48, dtype=np.uint8)[:, None], (1, 32))  # from black above to white
    for number in range(6):
        (tmp_path / "flat" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rot90(upright).copy()).save(
            tmp_path / "flat" / "ab"[number % 2] / f"{number}.{ending}", exif=exif
        )
    data = opened_flat(tmp_path / "flat")
    assert data.image_size == (48, 32)
    images = data.splits["train"][0]
    assert isinstance(images, torch.Tensor)
    assert (images[0, 0].float() - torch.from_numpy(upright).float()).abs().mean() < 3  # nothing is cut off
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "flat" / "b" / f"x.{ending}")  # lies on its side
    with pytest.raises(UsageError, match=r"of 32 x 48 and .* of 48 x 32 pixels; give a size to resize them to"):
        opened_flat(tmp_path / "flat")


def test_a_preview_in_a_tiff_file_is_no_channel(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
    for number in range(6):
        (tmp_path / "flat" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        preview = [Image.new("L", (3, 2), 255), Image.new("RGB", (9, 6))][number % 2]  # smaller, or in colour
        file = tmp_path / "flat" / "ab"[number % 2] / f"{number}.tif"
        Image.fromarray(values).save(file, save_all=True, append_images=[preview])
    data = opened_flat(tmp_path / "flat")
    assert (data.image_channels, data.image_size) == (1, (6, 9))
    assert np.array_equal(data.splits["train"][0][0, 0].numpy(), values)  # type: ignore[index]


def test_a_large_photo_is_decoded_to_less_and_shows_the_same(tmp_path: Path) -> None:
    """Against Pillow's own resizing of the whole photo: sine waves, in each colour another one."""
    rows, columns = np.mgrid[:600, :800] / 40
    waves = [np.sin(rows), np.sin(columns), np.sin(rows + columns)]
    Image.fromarray((np.stack(waves, axis=2) * 120 + 128).astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    read = ImageFiles([tmp_path / "x.jpg"], 3, 30, workers=0)[0]
    whole = Image.open(tmp_path / "x.jpg").resize((40, 30), Image.Resampling.BILINEAR).crop((5, 0, 35, 30))
    assert np.abs(read.permute(1, 2, 0).numpy().astype(int) - np.array(whole)).max() <= 8


def test_transparency_palettes_and_16_bits(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    Image.fromarray(colours, "RGBA").save(tmp_path / "a.png")
    read = ImageFiles([tmp_path / "a.png"], 3, 4, workers=0)[0]
    assert np.array_equal(read.permute(1, 2, 0).numpy(), colours[..., :3])  # the colour that lies under it
    indexed = Image.new("P", (4, 4), 1)
    indexed.putpalette([0, 0, 0, 10, 200, 30])
    indexed.save(tmp_path / "p.png", transparency=b"\x00\x80")
    assert ImageFiles([tmp_path / "p.png"], 3, 4, workers=0)[0].flatten(1).unique(dim=1).tolist() == [[10], [200], [30]]
    deep = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000
    Image.fromarray(deep).save(tmp_path / "d.png")
    read = ImageFiles([tmp_path / "d.png"], 1, 4, workers=0)[0]
    assert read.flatten().tolist() == [number * 4000 // 256 for number in range(16)]


# ---- corrupt files -----------------------------------------------------------------------------------------------------


def spoil(folder: Path) -> None:
    """One file without a header, and one that ends behind it."""
    (folder / "a" / "003.png").write_bytes(b"nonsense")
    whole = (folder / "b" / "012.png").read_bytes()
    (folder / "b" / "012.png").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"image_size": 8, "image_channels": 3}])
def test_corrupt_files_are_left_out_where_that_is_wanted(tmp_path: Path, workers: int, options: dict[str, int]) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 10, "b": 10})
    spoil(folder)
    with pytest.raises(UsageError, match=r"which cannot be read \(not an image format that Pillow knows\); fix or"):
        opened_flat(folder, workers=workers, **options)
    with pytest.warns(UserWarning, match="^--data.corrupt") as warned:
        data = opened_flat(folder, corrupt="skip", workers=workers, **options)
    (said,) = [str(one.message) for one in warned if "--data.corrupt" in str(one.message)]
    assert said == f"--data.corrupt: skipped files that cannot be read: {folder}/a/003.png, {folder}/b/012.png"
    everything = [red for split in ("train", "validation", "test") for red in reds(data, split)]
    assert sorted(everything) == sorted({*range(20)} - {3, 12})
    with pytest.warns(UserWarning, match="^--data.corrupt"):
        other_process = opened_flat(folder, corrupt="skip", memory_budget=0, workers=workers, **options)
    for split in data.splits:
        files = other_process.splits[split][0]
        assert isinstance(files, ImageFiles)
        assert [int(Path(path).stem) for path in files.paths] == reds(data, split)


def test_a_corrupt_file_ends_the_processes_that_decode(tmp_path: Path) -> None:
    """At once, not when garbage is collected: that may happen in a thread of theirs, which closes others' files."""
    folder = write_numbered(tmp_path / "flat", {"a": 10, "b": 10})
    spoil(folder)
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        with pytest.raises(UsageError, match="which cannot be read"):
            opened_flat(folder, workers=2, image_size=8, image_channels=3)
        assert set(multiprocessing.active_children()) == before
    finally:
        gc.enable()


def test_many_corrupt_files_are_counted_and_an_empty_class_is_refused(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 10, "b": 9})
    for number in range(1200, 1208):
        (folder / "a" / f"{number}.png").write_bytes(b"nonsense")
    named = ", ".join(f"{folder}/a/{number}.png" for number in range(1200, 1205))
    with pytest.warns(UserWarning, match=rf"cannot be read: {named}, … \(8 files\)$"):
        opened_flat(folder, corrupt="skip")
    for file in (folder / "b").iterdir():
        file.write_bytes(b"nonsense")
    message = f"^--data.data_dir: expected images of each class in {folder}, got none of b; fix its files, which cannot be read"
    with pytest.warns(UserWarning, match="^--data.corrupt"), pytest.raises(UsageError, match=message):
        opened_flat(folder, corrupt="skip")
    for file in (folder / "a").iterdir():
        file.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="^--data.data_dir: expected images, got no file that can be read"):
        opened_flat(folder, corrupt="skip")
