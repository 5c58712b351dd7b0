"""Images in folders, in memory and decoded as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from helpers.marks import ci_but_for
from helpers.pictures import opened_flat, reds, write_numbered
from lightning_cgan import ConditionalGAN, ImageFolderData, UsageError
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import signed_from_pixels
from lightning_cgan.data import OrderedLoader, ShufflingLoader
from lightning_cgan.data.image_files import ImageFiles

Fails = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, 24 and 12 colourful images of 12 x 8 pixels; 4 of each to test."""
    random = np.random.default_rng(0)
    for split, counts in (("train", {"cats": 24, "dogs": 12}), ("test", {"cats": 4, "dogs": 4})):
        for name, count in counts.items():
            place = tmp_path / "mine" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (12, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return tmp_path / "mine"


def opened(folder: Path, **options: Any) -> ImageFolderData:
    data = ImageFolderData(str(folder), **{"image_size": 8, "batch_size": 5, **options})
    data.setup("test")  # all splits
    return data


def test_pixels_are_those_of_pillow(folder: Path) -> None:
    data = opened(folder)
    assert (data.num_classes, data.class_names, data.image_channels) == (2, ("cats", "dogs"), 3)
    images, labels = data.splits["test"]
    expected = ImageFolder(str(folder / "test"))
    assert labels.tolist() == expected.targets
    assert isinstance(images, torch.Tensor)
    for pixels, (picture, _) in zip(images, expected, strict=True):
        middle = torch.from_numpy(np.array(picture.crop((0, 2, 8, 10)))).permute(2, 0, 1)  # 12 x 8 to 8 x 8
        assert torch.equal(pixels, middle)


def test_splits_keep_every_image_once(folder: Path) -> None:
    data = opened(folder, classes=["dogs"], validation_fraction=0.25)
    everything = torch.cat([data.splits[split][0] for split in ("train", "validation")])  # type: ignore[misc]
    assert len(torch.unique(everything.flatten(1), dim=0)) == 12
    assert data.splits["train"][1].unique().tolist() == [0]  # renumbered


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_of_memory(folder: Path, workers: int, balance: bool) -> None:
    torch.manual_seed(3)
    memory = opened(folder, balance=balance)
    torch.manual_seed(3)
    streamed = opened(folder, memory_budget=0, workers=workers, balance=balance)
    assert isinstance(streamed.splits["train"][0], ImageFiles)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        expected, got = getattr(memory, name)(), getattr(streamed, name)()
        for _ in range(2):  # two epochs
            for one, other in zip(expected, got, strict=True):
                assert torch.equal(one[0], other[0])
                assert torch.equal(one[1], other[1])


def test_streaming_resumes_where_it_was_although_workers_are_ahead(folder: Path) -> None:
    data = opened(folder, memory_budget=0)
    loader = ShufflingLoader(*data.splits["train"], batch_size=5, seed=1)
    wanted = [batch for _ in range(2) for batch in loader]
    first = ShufflingLoader(*data.splits["train"], batch_size=5, seed=1)
    iterator = iter(first)
    for _ in range(2):
        next(iterator)
    second = ShufflingLoader(*data.splits["train"], batch_size=5, seed=0)
    second.load_state_dict(first.state_dict())
    rest = [batch for _ in range(2) for batch in second]
    for (images, labels), (other_images, other_labels) in zip(wanted[2:], rest, strict=False):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_processes_share_a_streamed_batch(folder: Path) -> None:
    files, labels = opened(folder, memory_budget=0).splits["train"]
    whole = next(iter(ShufflingLoader(files, labels, batch_size=6)))
    shares = [next(iter(ShufflingLoader(files, labels, 6, rank, 2))) for rank in range(2)]
    assert torch.equal(torch.stack([share[0] for share in shares], 1).flatten(0, 1), whole[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_may_have_no_share_of_the_last_batch(folder: Path, workers: int) -> None:
    files = opened(folder, memory_budget=0, workers=workers).splits["train"][0].index_select(0, torch.arange(5))
    assert isinstance(files, ImageFiles)
    for rank, lengths in ((0, [2, 1]), (1, [2, 0])):
        streamed = list(OrderedLoader(files, torch.arange(5), 4, rank, 2))
        assert [len(images) for images, _ in streamed] == lengths
        for one, other in zip(OrderedLoader(files.load(), torch.arange(5), 4, rank, 2), streamed, strict=True):
            assert torch.equal(one[0], other[0])
            assert (one[0].shape, one[0].dtype) == (other[0].shape, other[0].dtype)
            assert torch.equal(one[1], other[1])


def test_files_of_any_shape_become_squares(tmp_path: Path) -> None:
    gray = np.tile(np.linspace(0, 255, 30, dtype=np.uint8), (10, 1))  # from black on the left to white
    Image.fromarray(gray).save(tmp_path / "wide.png")
    Image.fromarray(gray).convert("RGB").save(tmp_path / "wide.jpg", quality=95)
    for file in ("wide.png", "wide.jpg"):
        for channels in (1, 3):
            pixels = ImageFiles([tmp_path / file], channels, 5, workers=0)[0]
            assert pixels.shape == (channels, 5, 5)
            middle = torch.from_numpy(gray[:, 10:20]).float().mean(0).reshape(5, 2).mean(1)
            assert (pixels.float().mean(1) - middle).abs().max() < 3
    assert signed_from_pixels(pixels).abs().max() <= 1


def test_a_broken_file_is_named_in_one_line(folder: Path) -> None:
    (folder / "train" / "cats" / "07.png").write_bytes(b"nonsense")
    for options in ({"workers": 0}, {"workers": 1}):
        message = (
            rf"^--data.data_dir: expected images, got {folder}/train/cats/07.png, which cannot be read \(not an image"
        )
        with pytest.raises(UsageError, match=message) as raised:
            opened(folder, **options)
        assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("_quick_judge")
@pytest.mark.parametrize("budget", ci_but_for(["0", "1"], "0"))
def test_trains_from_the_command_line(folder: Path, tmp_path: Path, budget: str) -> None:
    main(
        [
            *("fit", "--data", "ImageFolderData", "--data.data_dir", str(folder), "--data.image_size", "8"),
            *("--data.memory_budget", budget, "--data.batch_size", "8", "--trainer.max_steps", "6"),
            *("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator"),
            *("--model.loss", "NonSaturating", "--trainer.accelerator", "cpu"),
        ]
    )
    (checkpoint,) = tmp_path.glob("runs/run/*/checkpoints/last.ckpt")
    images = ConditionalGAN.load_from_checkpoint(checkpoint).generate([0, 1], seed=0)
    assert images.shape == (2, 3, 8, 8)


def test_what_is_missing_is_told(folder: Path, fails: Fails, tmp_path: Path) -> None:
    common = ("--data.image_size", "8", "--model.generator", "MLPGenerator", "--model.discriminator")
    networks = ("MLPDiscriminator", "--model.loss", "NonSaturating")
    fit = ("fit", "--data", "ImageFolderData", "--data.data_dir")
    message = fails(*fit, "nowhere", *common, *networks)
    assert message.startswith("error: --data.data_dir: no such folder: nowhere; check the path")
    message = fails(*fit, str(folder), *common, *networks, "--data.image_channels", "17")
    assert message == (
        "error: --data.image_channels: expected 1 (gray), 3 (colour) or up to 16, got 17; give one of these"
    )
    for size, got in (("0", "0"), ("[24, 0]", "0")):
        message = fails(*fit, str(folder), *common, *networks, "--data.image_size", size)
        assert message == f"error: --data.image_size: expected 1 or more, got {got}; give a positive number"
    message = fails(*fit, str(folder), *common, *networks, "--data.memory_budget", "-1")
    assert message.startswith("error: --data.memory_budget: expected 0 or more GiB, got -1.0")
    message = fails(*fit, str(folder), *common, *networks, "--data.test_fraction", "1")
    assert message.startswith("error: --data.test_fraction: expected a number between 0 and 1, got 1.0; a tenth is")
    (folder / "test" / "dogs").rename(folder / "test" / "wolves")
    message = fails(*fit, str(folder), *common, *networks)
    assert message.startswith(
        "error: --data.data_dir: expected the same classes in train and test, got dogs, wolves in"
    )
    (folder / "test").rename(folder / "validation")
    message = fails(*fit, str(folder), *common, *networks)
    assert message == (
        f"error: --data.data_dir: expected a folder for each class in {folder}, or train and test and nothing else, got "
        f"train, validation, with folders in train; remove the others, or give {folder}/train to hold out a test split "
        "of it"
    )


# ---- a test split of one's own ----------------------------------------------------------------------------------------


def test_a_test_split_is_held_out_of_each_class(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 28, "b": 14, "c": 3})
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "a" / "._000.png").write_bytes(b"what a Mac leaves on a stick")
    data = opened_flat(folder)
    assert (data.class_names, data.image_size, data.image_channels) == (("a", "b", "c"), 8, 3)
    assert data.splits["test"][1].bincount().tolist() == [4, 2, 1]  # a seventh, and at least one
    test, rest = reds(data, "test"), reds(data, "train") + reds(data, "validation")
    assert sorted(test + rest) == list(range(45))
    torch.manual_seed(7)
    again = opened_flat(folder)
    assert [reds(again, split) for split in again.splits] == [reds(data, split) for split in data.splits]
    assert reds(opened_flat(folder, classes=["c", "a"]), "test") == [red for red in test if red < 28 or red >= 42]
    assert opened_flat(folder, test_fraction=0.5).splits["test"][1].bincount().tolist() == [14, 7, 2]


def test_a_class_too_small_to_hold_out_of_is_refused(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 8, "b": 1})
    message = "^--data.test_fraction: expected training images of each class besides 1 for testing, got 1 of b; add"
    with pytest.raises(UsageError, match=message):
        opened_flat(folder)
    assert len(opened_flat(folder, classes=["a"]).splits["test"][1]) == 1
