"""What is looked at in folders of classes, and what is not."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from helpers.pictures import opened_flat, reds, write_numbered
from lightning_cgan import ImageFolderData, UsageError
from lightning_cgan.data.image_files import ImageFiles


def every_red(folder: Path) -> list[int]:
    data = opened_flat(folder)
    return sorted(red for split in data.splits for red in reds(data, split))


def test_hidden_folders_within_a_class_are_passed_over(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 10, "b": 10})
    shutil.copytree(folder / "a", folder / "a" / ".ipynb_checkpoints")
    (folder / "a" / "more" / ".deep").mkdir(parents=True)
    shutil.copy(folder / "a" / "000.png", folder / "a" / "more" / ".deep")
    shutil.move(folder / "a" / "001.png", folder / "a" / "more")
    assert every_red(folder) == list(range(20))


def test_an_image_is_there_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 10, "b": 10})
    (folder / "a" / "loop").symlink_to(".")
    (folder / "a" / "up").symlink_to("..")  # its images of b are none of a
    (folder / "b" / "inner").mkdir()
    (folder / "b" / "inner" / "x.png").symlink_to("../010.png")
    (folder / "b" / "again").symlink_to("inner")
    assert every_red(folder) == list(range(20))
    write_numbered(tmp_path / "store", {"c": 3})
    (folder / "c").symlink_to(tmp_path / "store" / "c")  # links that lead elsewhere are followed
    assert every_red(folder) == sorted([*range(20), 0, 1, 2])


def test_files_are_in_the_order_of_torchvision(tmp_path: Path) -> None:
    """The test split depends on it."""
    from torchvision.datasets import ImageFolder

    folder = write_numbered(tmp_path / "flat", {"b": 3, "a/z": 2, "a/B": 2, "a": 3, "a/B/c": 2, "a/B-c": 2, "a/00": 1})
    listed, labels = ImageFolderData(str(folder))._listed(folder)
    assert list(zip(listed.tolist(), labels.tolist(), strict=True)) == ImageFolder(str(folder)).samples


@pytest.mark.parametrize("corrupt", ["refuse", "skip"])
def test_classes_that_are_not_kept_need_not_be_in_order(tmp_path: Path, corrupt: str) -> None:
    whole = write_numbered(tmp_path / "whole", {"a": 14, "b": 14, "c": 14})
    expected = opened_flat(whole, classes=["c", "a"])
    odd = shutil.copytree(whole, tmp_path / "odd")
    (odd / "empty").mkdir()
    for file in (odd / "b").iterdir():
        file.write_bytes(b"nonsense")
    data = opened_flat(odd, classes=["c", "a"], corrupt=corrupt)
    assert (data.class_names, data.image_size, data.image_channels) == (("c", "a"), 8, 3)
    assert [reds(data, split) for split in data.splits] == [reds(expected, split) for split in data.splits]
    message = (
        f"^--data.data_dir: expected images of each class in {odd}, got none of empty; add .*, or list only the other"
    )
    with pytest.raises(UsageError, match=message):
        opened_flat(odd, classes=["a", "empty"])


def test_colour_is_that_of_the_classes_that_are_kept(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 4, "b": 4})
    for file in (folder / "a").iterdir():
        Image.open(file).convert("L").save(file)
    assert [ImageFolderData(str(folder), classes=[name]).image_channels for name in "ab"] == [1, 3]


def test_a_class_of_one_split_need_not_be_in_the_other_if_it_is_not_kept(tmp_path: Path) -> None:
    write_numbered(tmp_path / "two" / "train", {"a": 4, "b": 4, "c": 4})
    write_numbered(tmp_path / "two" / "test", {"b": 2, "c": 2})
    assert len(opened_flat(tmp_path / "two", classes=["c", "b"]).splits["test"][1]) == 4
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "two", classes=["a", "b"])
    assert str(raised.value) == (
        f"--data.data_dir: expected the same classes in train and test, got a in one of them only; fix the folders in "
        f"{tmp_path}/two, or list only the other classes in --data.classes"
    )


def test_splits_in_capitals_are_refused(tmp_path: Path) -> None:
    for split in ("Train", "TEST"):
        write_numbered(tmp_path / "two" / split, {"a": 4, "b": 4})
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "two")
    assert str(raised.value) == (
        f"--data.data_dir: expected train and test in {tmp_path}/two, or a folder for each class, got TEST, Train; "
        "rename the folders of the splits to train and test, in lower case"
    )
    write_numbered(tmp_path / "two", {"notes": 1})
    with pytest.raises(UsageError, match="got TEST, Train, notes, with folders in Train; remove the others, or give"):
        opened_flat(tmp_path / "two")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_of_an_odd_name_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    (tmp_path / "x\ny.png").write_bytes(b"nonsense")
    with pytest.raises(UsageError) as raised:
        ImageFiles([tmp_path / "x\ny.png"], 1, 8, workers).load()
    assert str(raised.value) == (
        rf"--data.data_dir: expected images, got {tmp_path}/x\ny.png, which cannot be read (not an image format that Pillow "
        "knows); fix or remove it, or skip such files with --data.corrupt skip"
    )


# ---- what is passed over ---------------------------------------------------------------------------------------------


def warnings_of(folder: Path, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened_flat(folder, **options)
    return [str(one.message) for one in caught if "--data" in str(one.message)]


def test_files_that_are_passed_over_are_counted_by_their_kinds(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 6, "b": 6})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x.gif"):
        (folder / "a" / name).write_bytes(b"of a system")
    (folder / "__MACOSX" / "a").mkdir(parents=True)
    assert warnings_of(folder) == []
    (folder / "a" / "more").mkdir()
    for name in ("x.GIF", "more/y.gif", "z.heic", "labels.csv", "README", "q.npy"):
        (folder / "a" / name).write_bytes(b"of the user")
    (folder / "b" / "x.avif").write_bytes(b"of another class")
    os.mkfifo(folder / "a" / "pipe.png")  # which nobody writes to: reading it would never end
    Image.new("RGB", (8, 8), (90, 0, 0)).save(folder / "a" / "x.jfif", format="JPEG", quality=100)
    Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / "b" / "x.JPE", format="JPEG", quality=100)
    assert warnings_of(folder) == [
        f"--data.data_dir: skipped 8 files in {folder}: 2 .gif, 1 .avif, 1 .csv, 1 .heic, 1 .npy, …; convert images among them to one of "
        ".jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp, .jfif, .jpe"
    ]
    (only_b,) = warnings_of(folder, classes=["b"])
    assert only_b.startswith(
        f"--data.data_dir: skipped 1 files in {folder}: 1 .avif; convert images among them to one of .jpg, "
    )
    assert every_red(folder)[-2:] == [90, 99]


def test_images_beside_the_folders_of_classes_are_told(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 6, "b": 6})
    for name in ("y.png", "x.jpg", "labels.csv"):
        (folder / name).write_bytes(b"")
    assert warnings_of(folder) == [
        f"--data.data_dir: {folder}/labels.csv is not used, since it is no table with the columns file and label",
        f"--data.data_dir: skipped 2 images in {folder} outside the folders of classes, such as 'x.jpg'; move each "
        "into the folder of its class",
    ]


def test_a_folder_too_many_is_told(tmp_path: Path) -> None:
    write_numbered(tmp_path / "root" / "archive", {"b": 6, "a": 6})
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "root")
    assert str(raised.value) == (
        f"--data.data_dir: expected a folder for each class in {tmp_path}/root, got archive alone, with the folders a, b; "
        f"give {tmp_path}/root/archive, or, if that is the one class, name it in --data.classes"
    )
    assert opened_flat(tmp_path / "root" / "archive").class_names == ("a", "b")
    assert opened_flat(tmp_path / "root", classes=["archive"]).class_names == ("archive",)
    write_numbered(tmp_path / "root" / "archive", {".": 1})  # the class has images of its own
    assert opened_flat(tmp_path / "root").class_names == ("archive",)
    for split in ("train", "test"):
        write_numbered(tmp_path / "two" / split / "deep", {"a": 2, "b": 2})
    with pytest.raises(UsageError, match=f"class in {tmp_path}/two/train, got deep alone, with the folders a, b; give"):
        opened_flat(tmp_path / "two")
    for split in ("training", "validation"):
        write_numbered(tmp_path / "named" / split, {"a": 6, "b": 6})
    assert warnings_of(tmp_path / "named") == [
        f"--data.data_dir: the classes in {tmp_path}/named are training, validation, and each has the same folders, a, b; "
        f"if those are the classes, give {tmp_path}/named/training"
    ]


def test_no_folder_and_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_numbered(tmp_path / "pictures", {"a": 6, "b": 6})
    for wrong, message in (
        ("picture", f"no such folder: {tmp_path}/picture; did you mean pictures?"),
        ("pictures/a/000.png", f"expected a folder, got {folder}/a/000.png, which is a file; unpack archives first"),
    ):
        with pytest.raises(UsageError) as raised:
            opened_flat(tmp_path / wrong)
        assert str(raised.value) == f"--data.data_dir: {message}"
    scandir = os.scandir

    def refusing(place: Any) -> Any:
        if str(place).endswith("/a"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)  # as for a folder of another user
    with pytest.raises(UsageError) as raised:
        opened_flat(folder)
    assert str(raised.value) == (
        f"--data.data_dir: expected folders that can be read, got '{folder}/a' (Permission denied); change its permissions, or "
        "remove it"
    )
    assert opened_flat(folder, classes=["b"]).class_names == ("b",)


def test_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(name: str) -> str:
        with pytest.raises(UsageError) as raised:
            ImageFiles([tmp_path / name], 1, 8, workers=0).load()
        return str(raised.value).partition("which cannot be read (")[2].partition("); fix or remove it")[0]

    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "f.tif")
    assert reason("f.tif") == "floating-point pixels, whose range is unknown: save whole numbers"
    assert reason("none.png") == "No such file or directory"
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert reason("large.png") == "more than 800 pixels, the limit of Pillow: make it smaller"
    noise = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:200])
    assert "truncated" in reason("half.png")


def test_normal_forms_of_names_are_one(tmp_path: Path) -> None:
    """As a Mac and a Linux machine unpack the same archive."""
    cafe = normalize("NFD", "café")
    for split, name in (("train", cafe), ("test", "café")):
        write_numbered(tmp_path / "two" / split, {name: 3, "z": 3})
    data = opened_flat(tmp_path / "two", classes=["café"])
    assert data.class_names == ("café",)
    assert data.splits["test"][1].tolist() == [0, 0, 0]
    write_numbered(tmp_path / "two" / "train", {"café": 1})
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "two")
    assert str(raised.value) == (
        f"--data.data_dir: expected a name for each class in {tmp_path}/two/train, got café twice, in two Unicode forms; "
        "put the images into one folder"
    )
