"""Splits, classes, sizes, and the order of batches."""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from helpers.idx_files import write_idx
from helpers.labelled import Numbered, numbers, ready
from lightning_cgan import DigitsData, FashionMNISTData, KMNISTData, LabelledImages, MNISTData, UsageError
from lightning_cgan.data import OrderedLoader, ShufflingLoader
from lightning_cgan.data.base import Split


def test_splits_never_mix() -> None:
    data = ready(Numbered())
    train, validation = numbers(data.splits["train"][0]), numbers(data.splits["validation"][0])
    assert len(validation) == 100  # a twelfth of the training split
    assert sorted(train + validation) == list(range(1200))
    assert len(data.splits["test"][1]) == 60


def test_validation_images_are_the_same_in_every_run_and_for_every_choice_of_classes() -> None:
    everything = ready(Numbered())
    torch.manual_seed(7)
    two = ready(Numbered(classes=["two", "zero"]))
    held_out, held_out_of_two = numbers(everything.splits["validation"][0]), numbers(two.splits["validation"][0])
    assert held_out_of_two == [number for number in held_out if number % 3 != 1]


def test_classes_keep_their_names_and_get_new_numbers() -> None:
    data = ready(Numbered(classes=["two", 0]))
    assert (data.class_names, data.num_classes) == (("two", "zero"), 2)
    for split in ("train", "validation", "test"):
        pixels, labels = data.splits[split]
        assert [number % 3 for number in numbers(pixels)] == [{0: 2, 1: 0}[label] for label in labels.tolist()]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["tow"], r"--data.classes: expected names or numbers of classes, got tow; did you mean two\?$"),
        ([3], r"--data.classes: .*got 3; choose from 0 \(zero\), 1 \(one\), 2 \(two\)$"),
        ([0, "zero"], r"--data.classes: expected one or more different classes, got \[0, 'zero'\]; name each once"),
        ([], r"--data.classes: expected one or more different classes, got \[\]"),
    ],
)
def test_wrong_classes(classes: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Numbered(classes=classes)


def test_labels_outside_the_classes_are_refused() -> None:
    class Broken(Numbered):
        def read(self, split: Split) -> tuple[Tensor, Tensor]:
            pixels, labels = super().read(split)
            return pixels, torch.where(labels == 2, 7, labels)

    with pytest.raises(UsageError, match=r"Broken: expected labels from 0 to 2, got \[7\] in 400 images; .*data_dir"):
        ready(Broken())


def test_wrong_numbers() -> None:
    with pytest.raises(UsageError, match="--data.batch_size: expected 1 or more, got 0"):
        Numbered(batch_size=0)
    with pytest.raises(UsageError, match="--data.validation_fraction: expected a number between 0 and 1, got 1"):
        Numbered(validation_fraction=1.0)
    with pytest.raises(UsageError, match="--data.batch_size: expected at most 1100 images in a step, .* got 2000"):
        ready(Numbered(batch_size=2000)).train_dataloader()


def test_data_dir_is_the_option_or_the_environment_or_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Numbered().data_dir == Path("data")
    monkeypatch.setenv("LIGHTNING_CGAN_DATA", "elsewhere")
    assert Numbered().data_dir == Path("elsewhere")
    assert Numbered(data_dir="here").data_dir == Path("here")


def test_batches_are_signed_images_with_their_labels() -> None:
    data = ready(DigitsData(batch_size=50))
    bunch = load_digits()
    images, labels = next(iter(data.test_dataloader()))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    expected = torch.as_tensor(bunch.images[1437:] / 8 - 1, dtype=torch.float32)  # 0 to 16 becomes -1 to 1
    assert torch.allclose(images.squeeze(1), expected, atol=1 / 255 + 1e-6)  # half a step of 256
    assert labels.tolist() == bunch.target[1437:].tolist()


def test_evaluation_sees_many_small_images_at_once() -> None:
    loader = ready(DigitsData(batch_size=50, image_size=128)).test_dataloader()  # 2**20 pixels are 64 images
    assert len(loader) == 8
    assert [len(labels) for _, labels in loader] == [*[50] * 7, 10]
    assert [len(labels) for _, labels in ready(DigitsData(batch_size=50)).test_dataloader()] == [360]


def test_image_size_resizes() -> None:
    data = ready(DigitsData(image_size=20))
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (64, 1, 20, 20)
    assert (DigitsData(image_size=20).image_size, DigitsData().image_size) == (20, 8)
    native = ready(DigitsData()).splits["test"][0]
    mean = native.float().mean((1, 2, 3))
    assert torch.allclose(data.splits["test"][0].float().mean((1, 2, 3)), mean, atol=3)


@pytest.mark.parametrize("cls", [MNISTData, FashionMNISTData, KMNISTData])
def test_torchvision_sets(cls: type[LabelledImages], mnist_folder: str) -> None:
    data = ready(cls(data_dir=mnist_folder))
    assert (data.num_classes, data.image_channels, data.image_size) == (10, 1, 28)
    raw = (Path(mnist_folder) / cls.__name__.removesuffix("Data") / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    pixels, labels = data.splits["test"]
    assert pixels.numpy().tobytes() == raw[16:]
    assert labels.tolist() == [i % 10 for i in range(100)]
    assert len(data.splits["train"][1]) == 550


def test_order_is_a_function_of_seed_and_epoch() -> None:
    data = ready(Numbered())

    def epochs(seed: int, count: int = 2) -> list[list[int]]:
        loader = ShufflingLoader(*data.splits["train"], batch_size=64, seed=seed)
        return [[n for images, _ in loader for n in numbers((images + 1) * 127.5)] for _ in range(count)]

    first, second = epochs(seed=1)
    assert len(first) == len(set(first)) == len(set(second)) == 1100 // 64 * 64
    assert set(first) <= set(numbers(data.splits["train"][0]))
    assert first != second
    assert epochs(seed=1) == [first, second]
    assert epochs(seed=2)[0] != first


@pytest.mark.parametrize("place", [1, 16, 17, 20, 34])
def test_loader_goes_on_where_another_stood(place: int) -> None:
    data = ready(Numbered())

    def stream(loader: ShufflingLoader, batches: int) -> list[int]:
        seen: list[int] = []
        while batches:
            for images, _ in loader:
                seen += numbers((images + 1) * 127.5)
                batches -= 1
                if not batches:
                    break
        return seen

    loader = ShufflingLoader(*data.splits["train"], batch_size=64, seed=3)
    whole = stream(ShufflingLoader(*data.splits["train"], batch_size=64, seed=3), 40)
    begun = stream(loader, place)
    again = ShufflingLoader(*data.splits["train"], batch_size=64)
    again.load_state_dict(loader.state_dict())
    assert begun + stream(again, 40 - place) == whole


# Ten images of the first class, four of the second, one of the third; the number of an image is written into its pixels.
UNBALANCED = torch.tensor([0] * 10 + [1] * 4 + [2]), torch.arange(15)


def balanced(batch_size: int = 5, rank: int = 0, world_size: int = 1, seed: int = 3) -> ShufflingLoader:
    labels, counts = UNBALANCED
    pixels = torch.stack([counts, counts * 0, counts * 0, counts * 0], dim=1).view(-1, 1, 2, 2).to(torch.uint8)
    return ShufflingLoader(pixels, labels, batch_size, rank, world_size, seed, balance=True)


def epoch(loader: ShufflingLoader) -> list[int]:
    seen: list[int] = []
    for images, labels in loader:
        found = numbers((images + 1) * 127.5)
        assert UNBALANCED[0][found].tolist() == labels.tolist()
        seen += found
    return seen


def test_a_balanced_epoch_has_each_class_as_often_as_the_largest() -> None:
    loader = balanced()
    repeated = set()
    for _ in range(12):
        seen = Counter(epoch(loader))
        assert [seen[number] for number in range(10)] == [1] * 10
        assert sorted(seen[number] for number in range(10, 14)) == [2, 2, 3, 3]  # ten of four images
        assert seen[14] == 10
        repeated |= {number for number in range(10, 14) if seen[number] == 3}
    assert repeated == {10, 11, 12, 13}  # not the same ones in every epoch
    assert len(loader) == 6
    orders = [UNBALANCED[0][epoch(loader)].tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) != orders[0] != orders[1]  # shuffled, and anew
    assert epoch(balanced()) == epoch(balanced()) != epoch(balanced(seed=4))


def test_a_balanced_epoch_goes_on_in_the_middle() -> None:
    whole = balanced()
    wanted = epoch(whole) + epoch(whole)
    first, second = balanced(), balanced(seed=0)
    begun = [
        number for _, (images, _) in zip(range(4), first, strict=False) for number in numbers((images + 1) * 127.5)
    ]
    second.load_state_dict(first.state_dict())
    assert (begun + epoch(second) + epoch(second))[: len(wanted)] == wanted


def test_processes_share_a_balanced_batch() -> None:
    for (images, labels), *shares in zip(balanced(6), *(balanced(6, rank, 2) for rank in range(2)), strict=True):
        for rank, (own_images, own_labels) in enumerate(shares):
            assert torch.equal(own_images, images[rank::2])
            assert torch.equal(own_labels, labels[rank::2])


def test_balance_is_for_training_batches_alone() -> None:
    class Uneven(Numbered):
        def read(self, split: Split) -> tuple[Tensor, Tensor]:
            pixels, labels = super().read(split)
            return pixels, (torch.arange(len(labels)) % 10).clamp(max=2)  # eight tenths are of the last class

    data, plain = ready(Uneven(balance=True)), ready(Uneven())
    counts = data.splits["train"][1].bincount()
    assert counts.sum() == 1100
    assert len(data.train_dataloader()) == 3 * counts[2] // 64
    assert numbers(data.in_order("train").images) == numbers(plain.in_order("train").images)  # type: ignore[arg-type]
    assert len(data.in_order("validation").labels) == 100
    assert [about.about_training()["balance"] for about in (data, plain)] == [True, False]

    class Lacking(Numbered):
        def read(self, split: Split) -> tuple[Tensor, Tensor]:
            pixels, labels = super().read(split)
            return pixels, labels.clamp(max=1)

    with pytest.raises(
        UsageError, match="^--data.balance: expected training images of each class, got none of two; add"
    ):
        ready(Lacking(balance=True))


def test_processes_share_out_each_batch() -> None:
    data = ready(Numbered())
    whole = ShufflingLoader(*data.splits["train"], batch_size=60, seed=5)
    parts = [ShufflingLoader(*data.splits["train"], 60, rank, world_size=3, seed=5) for rank in range(3)]
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        for rank, (own_images, own_labels) in enumerate(shares):
            assert torch.equal(own_images, images[rank::3])
            assert torch.equal(own_labels, labels[rank::3])
    with pytest.raises(UsageError, match=r"--data.batch_size: expected a multiple of the number of processes \(7\)"):
        OrderedLoader(*data.splits["train"], batch_size=60, rank=0, world_size=7)


# ---- files of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "raw", "MNIST", "MNIST/raw"])
@pytest.mark.parametrize("name", ["{}-idx{}-ubyte", "{}.idx{}-ubyte", "{}-idx{}-ubyte.gz", "{}.idx{}-ubyte.gz"])
def test_files_of_mnist_are_read_as_others_name_them(tmp_path: Path, mnist_folder: str, place: str, name: str) -> None:
    """No network, and no file is written or renamed."""
    raw = Path(mnist_folder) / "MNIST" / "raw"
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for prefix, (kind, dimensions) in product(("train", "t10k"), (("images", 3), ("labels", 1))):
        content = (raw / f"{prefix}-{kind}-idx{dimensions}-ubyte").read_bytes()
        file = tmp_path / place / name.format(f"{prefix}-{kind}", dimensions)
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / place / "train-images-idx3-ubyte.d").mkdir()
    before = sorted(tmp_path.rglob("*"))
    data, expected = ready(MNISTData(data_dir=str(tmp_path))), ready(MNISTData(data_dir=mnist_folder))
    for split in ("train", "validation", "test"):
        for one, other in zip(data.splits[split], expected.splits[split], strict=True):
            assert torch.equal(one, other)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_the_name_of_a_file_is_none(tmp_path: Path) -> None:
    """Kaggle's archive has `train-images.idx3-ubyte` and a folder `train-images-idx3-ubyte` with the same inside."""
    for prefix in ("train", "t10k"):
        write_idx(tmp_path, prefix, 60)
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{prefix}-{kind}-ubyte").rename(tmp_path / f"{prefix}-{kind.replace('-', '.')}-ubyte")
            (tmp_path / f"{prefix}-{kind}-ubyte").mkdir()
    assert len(ready(KMNISTData(data_dir=str(tmp_path))).splits["test"][1]) == 60


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
@pytest.mark.parametrize(("side", "batch_size"), [(8, 10), (64, 100), (64, 300), (1100, 2)])
def test_batches_from_memory_are_the_images_at_their_places(
    side: int, batch_size: int, rank: int, world_size: int
) -> None:
    """However many batches are taken at once: all of small images, a few, or one that is larger than several may be."""
    torch.manual_seed(0)
    count = 7 if side == 1100 else 730
    pixels = torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)
    labels = torch.arange(count) % 10
    batches = list(OrderedLoader(pixels, labels, batch_size, rank, world_size))
    starts = range(0, count, batch_size)
    assert len(batches) == len(starts)
    for start, (images, of_images) in zip(starts, batches, strict=True):
        places = range(start + rank, min(start + batch_size, count), world_size)
        assert of_images.tolist() == [place % 10 for place in places]
        assert torch.equal(images, pixels[list(places)].float() / 127.5 - 1)
