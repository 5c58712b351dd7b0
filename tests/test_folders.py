"""What is looked at in folders of classes, and what is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pictures import opened_flat, reds, write_numbered
from PIL import Image

from lightning_cgan import ImageFolderData, UsageError
from lightning_cgan.data.files import ImageFiles


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
    message = f"^--data.data_dir: expected images of each class in {odd}, got none of empty; put .*, or name the other"
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
        f"--data.data_dir: expected the same classes in train and test, got a in one of them only; mend the folders in "
        f"{tmp_path}/two, or name the other classes in --data.classes"
    )


def test_splits_in_capitals_are_refused(tmp_path: Path) -> None:
    for split in ("Train", "TEST"):
        write_numbered(tmp_path / "two" / split, {"a": 4, "b": 4})
    with pytest.raises(UsageError) as raised:
        opened_flat(tmp_path / "two")
    assert str(raised.value) == (
        f"--data.data_dir: expected train and test in {tmp_path}/two, or a folder for each class, got TEST, Train; "
        "rename the folders of the splits to train and test, in small letters"
    )
    write_numbered(tmp_path / "two", {"notes": 1})
    with pytest.raises(
        UsageError, match="got TEST, Train, notes, with folders in Train; take the others away, or give"
    ):
        opened_flat(tmp_path / "two")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_of_an_odd_name_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    (tmp_path / "x\ny.png").write_bytes(b"nonsense")
    with pytest.raises(UsageError) as raised:
        ImageFiles([tmp_path / "x\ny.png"], 1, 8, workers).load()
    assert str(raised.value) == (
        rf"--data.data_dir: expected images, got '{tmp_path}/x\ny.png', which cannot be read; mend it or take it away, "
        "or leave out such files with --data.corrupt skip"
    )
