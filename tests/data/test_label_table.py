"""Labels from `labels.csv`, next to images that are not sorted into folders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cgan import ImageFolderData
from lightning_cgan.cli.main import main

COUNT = 40
Fails = Callable[..., str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Images of 8 x 8 pixels, each of the shade of its number."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def write(folder: Path, *rows: str, header: str = "file,label", encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return folder


def labelled(folder: Path, **options: Any) -> dict[str, dict[int, str]]:
    """The class of each image by its shade, for each split."""
    data = ImageFolderData(str(folder), batch_size=5, **options)
    data.setup("test")
    found = {}
    for split, (images, labels) in data.splits.items():
        assert isinstance(images, torch.Tensor)
        names = [data.class_names[label] for label in labels.tolist()]
        found[split] = dict(zip(images[:, 0, 0, 0].tolist(), names, strict=True))
    return found


def name_of(number: int) -> str:
    return ("bee", "ant", "yak")[number % 3]


def test_each_image_has_the_label_of_its_row(pictures: Path) -> None:
    rows = [f"{number:02d}.png,{name_of(number)}" for number in reversed(range(COUNT))]
    found = labelled(write(pictures, *rows))
    everything = {shade: name for split in found.values() for shade, name in split.items()}
    assert sum(map(len, found.values())) == COUNT
    assert everything == {number: name_of(number) for number in range(COUNT)}
    assert set(found["test"].values()) == {"ant", "bee", "yak"}


def test_the_same_images_as_in_folders(pictures: Path, tmp_path: Path) -> None:
    """And the same splits, whatever the order of the table."""
    numbers = sorted(range(COUNT), key=lambda number: (name_of(number), number))
    for number in numbers:
        place = tmp_path / "folders" / name_of(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes((pictures / f"{number:02d}.png").read_bytes())
    expected = labelled(tmp_path / "folders")
    for order in (numbers, range(COUNT), [*reversed(range(COUNT))]):
        write(pictures, *(f"{number:02d}.png,{name_of(number)}" for number in order))
        assert labelled(pictures) == expected


@pytest.mark.parametrize(
    ("header", "row", "encoding"),
    [
        ("File;Label", "{:02d}.png;{}", "utf-8-sig"),  # as a spreadsheet writes it
        ("label\tid\tfile", "{1}\tx\t{0:02d}", "utf-8"),  # without the extension
        ("file,label", '"{:02d}.png"," {} "', "utf-8"),
        ('"file";"label, in English";"label"', '"{:02d}.PNG";"a;b,c";"{}"', "utf-8"),
        ("sep=;\nlabel;file", "{1};..\\pictures\\{0:02d}.png", "utf-8"),  # as Windows writes paths
    ],
)
def test_tables_as_programs_write_them(pictures: Path, header: str, row: str, encoding: str) -> None:
    rows = [row.format(number, name_of(number)) for number in range(COUNT)]
    found = labelled(write(pictures, *rows, "", header=header, encoding=encoding))
    assert {shade: name for split in found.values() for shade, name in split.items()} == {
        number: name_of(number) for number in range(COUNT)
    }


def test_numbers_of_classes_may_have_gaps_and_keep_their_order(pictures: Path) -> None:
    data = ImageFolderData(
        str(write(pictures, *(f"{number:02d}.png,{(10, 1, 2)[number % 3]}" for number in range(COUNT))))
    )
    assert data.class_names == ("1", "2", "10")


def test_a_table_may_say_which_images_are_for_testing(pictures: Path) -> None:
    rows = [f"{number:02d}.png,{name_of(number)},{'test' if number < 9 else 'train'}" for number in range(COUNT)]
    found = labelled(write(pictures, *rows, header="file,label,split"))
    assert sorted(found["test"]) == list(range(9))
    assert sorted([*found["train"], *found["validation"]]) == list(range(9, COUNT))


def test_files_in_folders(pictures: Path, tmp_path: Path) -> None:
    write(tmp_path, *(f"pictures/{number:02d}.png,{name_of(number)}" for number in range(COUNT)))
    assert sum(map(len, labelled(tmp_path).values())) == COUNT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_of_something_else_next_to_folders_is_not_read(
    pictures: Path, tmp_path: Path, encoding: str, recwarn: pytest.WarningsRecorder
) -> None:
    write(tmp_path, "1,2", header="a,b", encoding=encoding)
    assert ImageFolderData(str(tmp_path), classes=["pictures"]).class_names == ("pictures",)
    told = f"--data.data_dir: {tmp_path}/labels.csv is not used, since it is no table with the columns file and label"
    assert [str(warning.message) for warning in recwarn].count(told) == 1


def test_folders_of_the_splits_are_those_of_a_table_without_splits(pictures: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(COUNT):
        split = "test" if number < 9 else "train"
        (tmp_path / "all" / split).mkdir(parents=True, exist_ok=True)
        (pictures / f"{number:02d}.png").rename(tmp_path / "all" / split / f"{number:02d}.png")
        rows.append(f"{split}/{number:02d}.png,{name_of(number)}")
    found = labelled(write(tmp_path / "all", *rows))
    assert sorted(found["test"]) == list(range(9))


def test_an_image_with_two_paths_counts_once(pictures: Path, tmp_path: Path) -> None:
    (pictures / "link.png").symlink_to(pictures / "00.png")
    rows = [f"{number:02d}.png,{name_of(number)}" for number in range(COUNT)]
    write(pictures, *rows, f"../pictures/01.png,{name_of(1)}", f"link.png,{name_of(0)}")
    assert sum(map(len, labelled(pictures).values())) == COUNT


def test_what_is_told(pictures: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    caplog.set_level(logging.INFO)
    write(pictures, *(f"{number:02d}.png,{'few' if number < 3 else 'many'}" for number in range(COUNT - 2)))
    ImageFolderData(str(pictures))
    assert "--data.data_dir: labels.csv has 38 images of 2 classes" in caplog.messages
    told = [str(warning.message) for warning in recwarn if "labels.csv" in str(warning.message)]
    assert told == [
        "--data.data_dir: labels.csv has fewer than 20 images of 1 classes: few (3); --data.balance true repeats them, "
        "and --data.classes selects others",
        f"--data.data_dir: skipped 2 images in {pictures} that labels.csv does not name, such as '{pictures}/38.png'",
    ]


def test_a_run_trains_on_it(pictures: Path, tmp_path: Path) -> None:
    write(pictures, *(f"{number:02d}.png,{name_of(number)}" for number in range(COUNT)))
    short = (
        "--trainer.max_steps",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--scores.images",
        "0",
        "--data.batch_size",
        "8",
    )
    main(["fit", "--config", "images", "--data.data_dir", str(pictures), *short])
    (checkpoint,) = tmp_path.glob("runs/images/*/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["lightning_cgan"]["data"]["classes"] == ["ant", "bee", "yak"]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,kind", ["00.png,a"], "expected the columns file and label in the first line, got name,kind; name the"),
        ("", [], "expected the columns file and label in the first line, got an empty table; name the columns so"),
        ("file,label", [], "expected a row for each image, got none; add them"),
        ("file,label", ["00.png,a", "01.png"], "expected 2 cells in each line, as in the first, got 1 in line 3; put"),
        (
            "file,label",
            ["00.png,a", "01.png,"],
            "expected a file and a label in each line, got line 3 without one; add",
        ),
        (
            "file,label",
            ["00.png,a", "00.png,b"],
            "expected one label of {}/00.png, got a in line 2 and b in line 3; remove",
        ),
        (
            "file,label",
            [f"x{number}.png,a" for number in range(7)],
            "expected files in {}, got x0.png (line 2), x1.png (line 3), x2.png (line 4), x3.png (line 5), x4.png (line "
            "6), … (7 files), which are not there; give their paths in this folder",
        ),
        ("file,label,split", ["00.png,a,val"], "expected train or test in the column split, got val in line 2; write"),
        ("file,label,split", ["00.png,a,"], "expected train or test in the column split, got nothing in line 2; write"),
        (
            "file,label",
            ['00.png,"a'],
            "expected a table, got unexpected end of data in line 2; put texts with quotes in",
        ),
        ("file,label", ["labels.csv,a"], "expected images (.jpg, "),
        ("file,label", [f"{'x' * 5000},a"], "expected files in {}, got xxx"),
    ],
)
def test_bad_tables(pictures: Path, fails: Fails, header: str, rows: list[str], message: str) -> None:
    table = write(pictures, *rows, header=header) / "labels.csv"
    told = fails("fit", "--config", "images", "--data.data_dir", str(pictures))
    assert told.startswith(f"error: --data.data_dir: {table}: {message.format(pictures)}")


def test_a_class_in_one_of_the_splits_only(pictures: Path, fails: Fails) -> None:
    rows = ["00.png,a,train", "01.png,b,train", "02.png,a,test"]
    write(pictures, *rows, header="file,label,split")
    told = fails("fit", "--config", "images", "--data.data_dir", str(pictures))
    assert told.startswith(
        f"error: --data.data_dir: expected images of each class in {pictures}/labels.csv/test, got none of b; add rows "
        "with images of them, or list only the other classes in --data.classes"
    )
