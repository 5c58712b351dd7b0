"""Images in arrays, from a file or from Python."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_cgan import ArrayData, ConditionalGAN, UsageError
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import array_from_pixels

Run = Callable[..., Path]
Fails = Callable[..., str]

CHANCE = np.random.default_rng(0)
COLOUR = CHANCE.integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


def opened(arrays: str | dict[str, Any], **options: Any) -> ArrayData:
    data = ArrayData(arrays, **{"batch_size": 4, **options})
    data.prepare_data()
    data.setup("test")
    return data


def sorted_pixels(data: ArrayData) -> list[bytes]:
    """Every image of all splits, the number of its class behind its pixels, channels last."""
    found = []
    for images, labels in data.splits.values():
        assert isinstance(images, torch.Tensor)
        for pixels, label in zip(images, labels.tolist(), strict=True):
            found.append(pixels.permute(1, 2, 0).numpy().tobytes() + bytes([label]))
    return sorted(found)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "gray NHW", "gray NHWC", "gray NCHW"])
def test_every_layout_gives_the_same_images(layout: str, as_tensor: bool) -> None:
    expected = COLOUR[..., :1] if "gray" in layout else COLOUR
    given: Any = np.moveaxis(expected, -1, 1) if layout.endswith("NCHW") else expected
    given = given[..., 0] if layout.endswith("NHW") else given
    labels: Any = LABELS.astype(np.uint8)
    if as_tensor:
        given, labels = torch.from_numpy(given.copy()), torch.from_numpy(labels)
    data = opened({"images": given, "labels": labels})
    assert (data.image_channels, data.image_size, data.class_names) == (expected.shape[-1], 6, ("0", "1", "2"))
    wanted = [image.tobytes() + bytes([label]) for image, label in zip(expected, LABELS, strict=True)]
    assert sorted_pixels(data) == sorted(wanted)
    assert data.splits["test"][1].bincount().tolist() == [1, 1, 1]  # a seventh of ten


@pytest.mark.parametrize("channels", [2, 4, 5, 16])
def test_channels_may_be_first_or_last(channels: int) -> None:
    images = CHANCE.integers(0, 256, (30, channels, 20, 24), dtype=np.uint8)
    for given in (images, images.transpose(0, 2, 3, 1)):
        data = opened({"images": given, "labels": LABELS})
        assert (data.image_channels, data.image_size) == (channels, (20, 24))
        wanted = [
            image.transpose(1, 2, 0).tobytes() + bytes([label]) for image, label in zip(images, LABELS, strict=True)
        ]
        assert sorted_pixels(data) == sorted(wanted)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1000, 10), (4000, 12), (60000, 16)])
def test_bits_of_16_are_kept(top: int, bits: int, as_tensor: bool) -> None:
    images = CHANCE.integers(0, top, (30, 8, 8), dtype=np.uint16)
    images[:, 0, 0] = top
    given: Any = torch.from_numpy(images) if as_tensor else images
    data = opened({"images": given, "labels": LABELS})
    found = [array_from_pixels(images) for images, _ in data.splits.values()]  # type: ignore[arg-type]
    values = np.concatenate(found)[:, 0]
    assert values.dtype == (np.uint8 if bits == 8 else np.uint16)
    kept = values >> (0 if bits == 8 else 16 - bits)
    assert sorted(image.astype(np.int64).tobytes() for image in kept) == sorted(
        image.astype(np.int64).tobytes() for image in images
    )
    batch, _ = next(iter(data.train_dataloader()))
    assert batch.max().item() == pytest.approx(2 * top / (2**bits - 1) - 1, abs=1e-3)


def test_the_training_images_decide_which_bits_are_in_use() -> None:
    for top, expected in ((255, 255), (1000, 65535)):
        images = np.full((30, 4, 4), top, dtype=np.uint16)
        tests = {"test_images": images[:3] * 2, "test_labels": LABELS[:3]}
        data = opened({"images": images, "labels": LABELS, **tests})
        assert np.unique(array_from_pixels(data.splits["test"][0])).tolist() == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(24,), [24, 40, 3], [24.5, 40], "28", 2.5])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^--data.image_size: expected a whole number of pixels, or height and width, got"
    ):
        opened({"images": COLOUR, "labels": LABELS}, image_size=size)


def test_a_test_split_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    arrays = {"images": COLOUR[:20], "labels": LABELS[:20], "test_images": COLOUR[20:], "test_labels": LABELS[20:]}
    np.savez(tmp_path / "x.npz", **arrays, class_names=["a", "b", "c"])
    data = opened(str(tmp_path / "x.npz"))
    images, labels = data.splits["test"]
    assert isinstance(images, torch.Tensor)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), COLOUR[20:])
    assert labels.tolist() == LABELS[20:].tolist()
    assert data.class_names == ("a", "b", "c")
    assert len(data.splits["train"][1]) + len(data.splits["validation"][1]) == 20


def test_splits_are_the_same_in_every_run_and_from_a_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=COLOUR, labels=LABELS)
    first = opened({"images": COLOUR, "labels": LABELS})
    torch.manual_seed(9)
    second = opened(str(tmp_path / "x.npz"))
    for split in ("train", "validation", "test"):
        for one, other in zip(first.splits[split], second.splits[split], strict=True):
            assert torch.equal(one, other)  # type: ignore[arg-type]


def test_what_numpy_loads_is_taken_and_may_be_closed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=COLOUR, labels=LABELS)
    with np.load(tmp_path / "x.npz") as file:
        data = ArrayData(file, batch_size=4)
    data.setup("test")
    assert sorted_pixels(data) == sorted_pixels(opened(str(tmp_path / "x.npz")))
    np.savez(tmp_path / "objects.npz", images=COLOUR, labels=np.array([{}] * 30))
    expected = (
        r"^--data.arrays: expected an .npz file of arrays without Python objects, got NpzFile \(ValueError: Object"
    )
    with np.load(tmp_path / "objects.npz") as file, pytest.raises(UsageError, match=expected):
        ArrayData(file)


def test_names_may_be_objects_that_are_texts() -> None:
    names = np.array(["cat", "dog", "cow"], dtype=object)  # as pandas keeps them
    assert ArrayData({"images": COLOUR, "labels": LABELS, "class_names": names}).class_names == ("cat", "dog", "cow")
    names[1] = 3
    with pytest.raises(
        UsageError, match=r"class_names to be different texts of one line, got \['cat', 3, 'cow'\] \(obj"
    ):
        ArrayData({"images": COLOUR, "labels": LABELS, "class_names": names})


@pytest.mark.parametrize(
    ("turn", "got"),
    [
        (lambda labels: labels.to("meta"), "torch.int64, torch.strided, on meta"),
        (lambda labels: labels.bfloat16(), "torch.bfloat16, torch.strided, on cpu"),
        (lambda labels: labels.to_sparse(), "torch.int64, torch.sparse_coo, on cpu"),
    ],
)
def test_tensors_that_are_no_arrays_are_told(turn: Callable[[torch.Tensor], torch.Tensor], got: str) -> None:
    with pytest.raises(UsageError) as raised:
        ArrayData({"images": COLOUR, "labels": turn(torch.from_numpy(LABELS))})
    assert str(raised.value) == (
        "--data.arrays: expected labels to be a NumPy array, or a tensor that can be converted to one, got a tensor of "
        f"{got}; convert it"
    )


def test_what_is_not_square_stays_so_unless_a_size_is_given() -> None:
    wide = np.tile(np.arange(12, dtype=np.uint8) * 10, (9, 6, 1))  # columns of 0, 10, …, 110
    arrays = {"images": wide, "labels": LABELS[:9]}
    assert opened(arrays).image_size == (6, 12)
    assert torch.equal(opened(arrays).splits["test"][0][0, 0], torch.from_numpy(wide[0]))  # type: ignore[index]
    images, _ = opened(arrays, image_size=6).splits["test"]
    assert images[0, 0, 0].tolist() == [30, 40, 50, 60, 70, 80]  # type: ignore[index]
    images, _ = opened(arrays, image_size=(4, 12)).splits["test"]
    assert images[0, 0].tolist() == [list(range(0, 120, 10))] * 4  # type: ignore[index]
    images, _ = opened(arrays, image_size=(12, 6)).splits["test"]  # twice as large, then the middle quarter
    assert images.shape == (3, 1, 12, 6)  # type: ignore[union-attr]
    assert 40 < images[0, 0, 0, 0] < images[0, 0, 0, -1] < 70  # type: ignore[index]


def test_reads_what_generate_writes_and_trains_on_it(run: Run, tmp_path: Path) -> None:
    small = ("--trainer.max_steps", "1", "--data.image_size", "8", "--data.batch_size", "8", "--scores.images", "0")
    checkpoint = run(*small) / "checkpoints" / "last.ckpt"
    made = str(tmp_path / "made.npz")
    main(["generate", str(checkpoint), "--labels", "3,7-9", "--count", "12", "--out", made])
    written = np.load(made)
    data = opened(made)
    assert (data.class_names, data.image_channels, data.image_size) == (("3", "7", "8", "9"), 1, 8)
    renumbered = {3: 0, 7: 1, 8: 2, 9: 3}
    wanted = [
        image.tobytes() + bytes([renumbered[label]])
        for image, label in zip(written["images"], written["labels"].tolist(), strict=True)
    ]
    assert sorted_pixels(data) == sorted(wanted)
    with pytest.raises(UsageError, match="^--data.classes: expected classes that have images, got 5; omit these"):
        opened(made, classes=["3", "5"])
    again = ("--data", "ArrayData", "--data.arrays", made, "--data.batch_size", "8", "--data.balance", "true")
    checkpoint = run(*again, "--trainer.max_steps", "2", "--scores.images", "0") / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["lightning_cgan"]["data"]["classes"] == ["3", "7", "8", "9"]
    images = ConditionalGAN.load_from_checkpoint(checkpoint).generate([3], seed=0)
    assert images.shape == (1, 1, 16, 16)  # the size of the config


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, "images and labels, got images; add labels"),
        ({"images": None}, "images and labels, got labels; add images"),
        (
            {"test_images": COLOUR},
            "images and labels and test_images and test_labels, got images, labels, test_images; add test_labels",
        ),
        (
            {"test_image": COLOUR, "test_labels": LABELS},
            "images and labels and test_images and test_labels, got images, labels, test_image, test_labels; rename "
            "test_image to test_images",
        ),
        (
            {"images": None, "labels": None, "x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR, "y_test": LABELS},
            "images and labels, got x_train, y_train, x_test, y_test; rename x_train to images and rename y_train to "
            "labels and rename x_test to test_images and rename y_test to test_labels",
        ),
        (
            {"images": COLOUR / 255},
            "images of uint8, from 0 to 255, or of uint16, got float64; convert them: (numpy.asarray(images) * 255).round().astype('uint8')",
        ),
        (
            {"images": COLOUR.astype(np.int64) * 300},
            "images of uint8, from 0 to 255, or of uint16, got int64; convert them to whole numbers from 0 to 255 first",
        ),
        (
            {"labels": LABELS.astype(np.uint64) + np.uint64(2**63), "class_names": np.array(["a", "b", "c"])},
            f"labels from 0 without gaps, got {2**63 + 2}; number the classes from 0 without gaps, or give class_names "
            "with a name for each number",
        ),
        (
            {"labels": LABELS / 1},
            "labels of whole numbers, got float64; convert them: numpy.asarray(labels).astype('int64')",
        ),
        (
            {"images": np.zeros((30, 17, 20, 18), dtype=np.uint8)},
            "images of shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 to 16 channels and no axis of length 0, got "
            "(30, 17, 20, 18); reshape them",
        ),
        (
            {"labels": LABELS[:, None]},
            "labels of shape (N,), got (30, 1); give one number for each image: numpy.asarray(labels).reshape(-1)",
        ),
        ({"labels": LABELS[:29]}, "as many labels as images (30), got 29; give a label for each image"),
        (
            {"labels": LABELS - 1},
            "labels of 0 or more, got -1; remove images without a label, or give texts",
        ),
        (
            {"labels": LABELS * 2, "class_names": np.array(["a", "b", "c"])},
            "labels from 0 to 2, got 4; number the classes from 0 without gaps, or give class_names with a name for "
            "each number",
        ),
        (
            {"test_images": COLOUR, "test_labels": LABELS * 2 + 1, "labels": LABELS * 2},
            "test_labels among 0, 2, 4, the labels, got 1, 3, 5; give images of the same classes",
        ),
        (
            {"test_images": COLOUR, "test_labels": LABELS, "labels": np.array(["cat", "dog", "cow"])[LABELS]},
            "test_labels among cat, cow, dog, the labels, got 0, 1, 2; give images of the same classes",
        ),
        (
            {"labels": np.array(["a", "b", ""])[LABELS]},
            "labels to be different texts of one line, got ['', 'a', 'b'] (<U1); give one name for each label",
        ),
        (
            {"class_names": np.array(["a", "b"])},
            "labels from 0 to 1, got 2; number the classes from 0 without gaps, or give class_names with a name for "
            "each number",
        ),
        (
            {"class_names": np.array(["a", "b", "a"])},
            "class_names to be different texts of one line, got ['a', 'b', 'a'] (<U1); give one name for each label",
        ),
        (
            {"test_images": COLOUR[:, :5, :5], "test_labels": LABELS},
            "test_images of the shape of images, (3, 6, 6), got (3, 5, 5); resize or convert them",
        ),
        (
            {"test_images": COLOUR.astype(np.uint16), "test_labels": LABELS},
            "test_images of the type of images, uint8, got uint16; convert them",
        ),
    ],
)
def test_each_mistake_is_told(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    arrays = {"images": COLOUR, "labels": LABELS, **changed}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    for given in (arrays, str(tmp_path / "x.npz")):
        with pytest.raises(UsageError) as raised:
            ArrayData(given)
        assert str(raised.value) == f"--data.arrays: expected {message}"


def test_files_that_are_none_of_arrays_are_told(tmp_path: Path, fails: Fails) -> None:
    networks = ("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator")
    fit = ("fit", *networks, "--model.loss", "NonSaturating", "--data", "ArrayData")
    np.savez(tmp_path / "digits.npz", images=COLOUR, labels=LABELS)
    message = fails(*fit, "--data.arrays", str(tmp_path / "digit.npz"))
    assert message == f"error: --data.arrays: no such file: {tmp_path}/digit.npz; did you mean digits.npz?"
    (tmp_path / "uni.npz").symlink_to(tmp_path / "nowhere")
    message = fails(*fit, "--data.arrays", str(tmp_path / "uni.npz"))
    assert (
        message
        == f"error: --data.arrays: expected a file, got {tmp_path}/uni.npz, which is a link to nothing; name a file"
    )
    np.save(tmp_path / "one.npy", COLOUR)
    for path in (tmp_path / "one.npy", tmp_path):
        message = fails(*fit, "--data.arrays", str(path))
        assert message == (
            f"error: --data.arrays: expected an .npz file of arrays without Python objects, got {path}, which is another file; "
            "write one with numpy.savez_compressed"
        )
    np.savez(tmp_path / "objects.npz", images=COLOUR, labels=np.array([{}] * 30))
    message = fails(*fit, "--data.arrays", str(tmp_path / "objects.npz"))
    assert message.startswith(
        f"error: --data.arrays: expected an .npz file of arrays without Python objects, got {tmp_path}/objects.npz "
        "(ValueError: Object arrays cannot be loaded"
    )
    message = fails(*fit)
    assert message.startswith("error: --data: expected a value for arrays, got none; give --data.arrays")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("images", COLOUR / 255),
        ("images", (COLOUR / 127.5 - 1).astype(np.float32)),
        ("images", COLOUR.astype(np.float64)),
        ("images", COLOUR.astype(np.int64)),
        ("images", torch.from_numpy(COLOUR).float() / 255),
        ("labels", LABELS.astype(np.float32)),
        ("labels", np.array(["a", "b", "c"])[LABELS]),  # whose names are given as well
        ("labels", np.array([0.5, 1.5, 2.5])[LABELS]),
        ("labels", torch.from_numpy(LABELS).float()),
        ("labels", LABELS[:, None]),
        ("labels", np.eye(3, dtype=np.int64)[LABELS]),
        ("class_names", np.array([b"a", b"b", b"c"])),
        ("class_names", np.array([3, 1, 2])),
    ],
)
def test_the_advice_that_is_given_helps(name: str, given: Any) -> None:
    arrays: dict[str, Any] = {"images": COLOUR, "labels": LABELS, "class_names": ["x", "y", "z"], name: given}
    with pytest.raises(UsageError) as raised:
        ArrayData(arrays)
    (advice,) = re.findall(r"(?:convert them|for each image): (.*)$", str(raised.value))
    arrays[name] = eval(advice, {"numpy": np, name: given})
    data = opened(arrays)
    wanted = [image.tobytes() + bytes([label]) for image, label in zip(COLOUR, LABELS, strict=True)]
    assert sorted_pixels(data) == sorted(wanted)
    if name == "class_names":
        assert data.class_names in (("a", "b", "c"), ("3", "1", "2"))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array(["cow", "ant", "bee"]), ("ant", "bee", "cow")),
        (np.array(["cow", "ant", "bee"], dtype=object), ("ant", "bee", "cow")),  # a column of a table of pandas
        (np.array([10, 1, 2]), ("1", "2", "10")),
        (np.array([10, 1, 2], dtype=np.uint8), ("1", "2", "10")),
    ],
)
def test_labels_may_be_the_names_of_classes(
    values: np.ndarray, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arrays = {"images": COLOUR, "labels": values[LABELS], "test_images": COLOUR[:3], "test_labels": values[LABELS[:3]]}
    data = opened(arrays)
    assert data.class_names == names
    assert f"--data.arrays: the labels name 3 classes: {', '.join(names)}" in caplog.messages
    wanted = [
        image.tobytes() + bytes([names.index(str(values[label]))])
        for image, label in zip((*COLOUR, *COLOUR[:3]), (*LABELS, *LABELS[:3]), strict=True)
    ]
    assert sorted_pixels(data) == sorted(wanted)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (float("nan"), "nan for image 4"),
        (None, "None for image 4"),
        (7, "7 for image 4"),
    ],
)
@pytest.mark.parametrize("kind", [list, lambda labels: np.array(labels, dtype=object)])
def test_images_without_a_label_are_refused(kind: Any, missing: Any, message: str) -> None:
    labels = ["ant", "bee", "cow"] * 10
    labels[4] = missing
    with pytest.raises(
        UsageError, match=f"labels that are all texts, or all whole numbers, got {message}; remove such"
    ):
        ArrayData({"images": COLOUR, "labels": kind(labels)})


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["10", "2 ", " 1"]), ("1", "2", "10")),
        (np.array([b"b", b"a", b"c"]), ("a", "b", "c")),
        (np.array([30, 10, 20], dtype=object), ("10", "20", "30")),
        (["b", "a", "c"], ("a", "b", "c")),
    ],
)
def test_labels_of_other_types(labels: Any, names: tuple[str, ...]) -> None:
    given = [labels[number] for number in LABELS]
    data = ArrayData({"images": COLOUR, "labels": given if isinstance(labels, list) else np.array(given, labels.dtype)})
    assert data.class_names == names


def test_half_a_range_is_not_taken_for_a_whole_one() -> None:
    for images, got in ((COLOUR.astype(np.int64) - 1, "int64"), (COLOUR * 1.5, "float64"), (COLOUR / 0, "float64")):
        message = (
            f"^--data.arrays: expected images of uint8, from 0 to 255, or of uint16, got {got}; convert them to whole"
        )
        with pytest.raises(UsageError, match=message):
            ArrayData({"images": images, "labels": LABELS})


def test_other_arrays_are_passed_over() -> None:
    arrays = {"images": COLOUR, "labels": LABELS, "image_names": COLOUR, "test_ids": LABELS, "val_images": COLOUR}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(opened({**arrays, "train_images": COLOUR}).splits["train"][1]) == 25
    with pytest.warns(UserWarning, match="^--data.arrays") as warned:
        opened({**arrays, "test_image": COLOUR, "classnames": COLOUR})
    (said, *_) = [str(one.message) for one in warned if "--data.arrays" in str(one.message)]
    assert said == (
        "--data.arrays: skipped arrays of unknown names; to use them, rename test_image to test_images "
        "and rename classnames to class_names"
    )
