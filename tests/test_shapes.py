"""Images that are not square, have other channels than gray or RGB, or 16 bits: from files to scores and back to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from lightning_cgan import ConditionalGAN, ImageFolderData
from lightning_cgan.cli.demo import DemoBackend, build_page
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import pixels_from_signed, save_image
from lightning_cgan.export.source import load_source

Fails = Callable[..., str]

SMALL = ("--model.generator.channels=[8,4,4]", "--model.discriminator.channels=[4,4,8]", "--data.batch_size", "8")
SMALL += (
    "--trainer.max_steps",
    "6",
    "--samples.every_n_steps",
    "3",
    "--scores.images",
    "20",
    "--trainer.accelerator=cpu",
)
SMALL += ("--trainer.val_check_interval", "3", "--runs_dir", "runs")


def stripes(label: int, number: int, channels: int, height: int, width: int) -> np.ndarray:
    """An image (H, W, C), uint8: lines across for one class, upright ones for the other; each channel is brighter."""
    rows, columns = np.mgrid[:height, :width]
    lines = ((rows if label else columns) + number) % 4 < 2
    return (lines[..., None] * np.linspace(40, 240, channels)).astype(np.uint8)


def fit(*data: str) -> Path:
    main(["fit", "--config", "images", *data, *SMALL])
    (folder,) = Path("runs").glob("*/*")
    return folder


def score(folder: Path) -> dict[str, dict[str, float]]:
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]
    main(["test", *common, "--report.protocol", "quick", "--report.folder", "report"])
    main(["predict", *common, "--predictions.folder", "made", "--data.predictions_per_class", "4"])
    assert Image.open("report/report.png").size == (1300, 1200)
    return json.loads(Path("report/report.json").read_text())  # type: ignore[no-any-return]


def images_of(checkpoint: str, labels: list[int], latents: torch.Tensor) -> torch.Tensor:
    return ConditionalGAN.load_from_checkpoint(checkpoint, map_location="cpu").generate(labels, latents)


@pytest.mark.ci
@pytest.mark.usefixtures("_quick_judge")
def test_a_folder_of_rectangular_photos() -> None:
    for label, name in enumerate(("across", "upright")):
        (Path("photos") / name).mkdir(parents=True)
        for number in range(30):
            Image.fromarray(stripes(label, number, 3, 24, 40)).save(f"photos/{name}/{number:02d}.png")
    folder = fit("--data.data_dir", "photos")
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    assert Image.open(folder / "samples" / "00000006.png").size == (10 * 82 + 2, 2 * 50 + 2)  # twice as large
    assert np.isfinite(score(folder)["scores"]["judge_fid"])
    read = ImageFolderData("made")
    assert (read.image_size, read.image_channels) == ((24, 40), 3)
    main(["generate", checkpoint, "--count", "5", "--out", "sheet.png", "--device", "cpu"])
    assert Image.open("sheet.png").size == (5 * 82 + 2, 2 * 50 + 2)
    main(
        [
            "generate",
            checkpoint,
            "--count",
            "5",
            "--out",
            "walk.gif",
            "--walk",
            "classes",
            "--frames",
            "2",
            "--device",
            "cpu",
        ]
    )
    assert Image.open("walk.gif").size == (5 * 82 + 2, 1 * 50 + 2)
    labels, latents = [0, 1, 1], torch.randn(3, 64)
    expected = images_of(checkpoint, labels, latents)
    for out in ("model.onnx", "model.pt2", "model"):
        main(["export", checkpoint, "--out", out])
    session = onnxruntime.InferenceSession("model.onnx")
    (found,) = session.run(None, {"labels": np.array(labels), "latents": latents.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
    for source in ("model.onnx", "model"):
        opened = load_source(source)
        assert opened.metadata.image_size == (24, 40)
        torch.testing.assert_close(opened.make(torch.tensor(labels), latents), expected, atol=1e-4, rtol=0)
    card = Path("model/README.md").read_text()
    assert "24 × 40 pixels, colour" in card
    assert "# (3, 3, 24, 40), in [-1, 1]" in card
    backend = DemoBackend(load_source("model.onnx"), Path())
    assert [image.size for image in backend.images(0, 0, 3, None)[0]] == [(40, 24)] * 3
    assert "24 × 40 pixels, colour" in json.dumps(build_page(backend, "x").get_config_file(), ensure_ascii=False)
    main(["invert", checkpoint, "photos/across/00.png", "sheet.png", "--steps", "5", "--device", "cpu"])
    assert Image.open("inverted/sheet.png").size == (3 * 82 + 2, 2 * 50 + 2)
    main(["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", checkpoint, "--trainer.max_steps", "8"])


@pytest.mark.ci
@pytest.mark.usefixtures("_quick_judge")
def test_arrays_of_five_channels() -> None:
    labels = np.arange(60) % 2
    images = np.stack([stripes(label, number, 5, 16, 16) for number, label in enumerate(labels)])
    np.savez("five.npz", images=images, labels=labels, class_names=["across", "upright"])
    folder = fit("--data", "ArrayData", "--data.arrays", "five.npz")
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    sheet = np.asarray(Image.open(folder / "samples" / "00000006.png"))
    one = 2 * 66 + 2  # of a channel: two rows of 16 pixels, magnified to 64
    assert sheet.shape == (5 * one + 4 * 2, 10 * 66 + 2, 3)
    latents = ConditionalGAN.load_from_checkpoint(checkpoint, map_location="cpu").sample_latents(10, 0)
    shown = images_of(checkpoint, [0] * 10, latents)
    for channel in range(5):
        expected = ((shown[3, channel] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        top, left = channel * (one + 2) + 2, 3 * 66 + 2
        assert (sheet[top : top + 64 : 4, left : left + 64 : 4, 1] == expected).all()
    assert np.isfinite(score(folder)["scores"]["judge_fid"])
    read = ImageFolderData("made", test_fraction=0.3, workers=0)
    assert (read.image_size, read.image_channels) == (16, 5)
    main(["generate", checkpoint, "--count", "3", "--out", "made.npz", "--device", "cpu"])
    main(["generate", checkpoint, "--count", "3", "--out", "folder", "--device", "cpu"])
    made = np.load("made.npz")["images"]
    assert made.shape == (6, 16, 16, 5)
    with Image.open("folder/upright/00001.tif") as pages:
        for channel in range(5):
            pages.seek(channel)
            assert (np.asarray(pages) == made[4, ..., channel]).all()
    main(["export", checkpoint, "--out", "model.onnx"])
    assert load_source("model.onnx").metadata.image_channels == 5
    gallery, _ = DemoBackend(load_source("model.onnx"), Path()).images(1, 0, 2, None)
    assert [image.size for image in gallery] == [(16, 5 * 16 + 4 * 2)] * 2
    # an interrupted `predict` makes what is missing or cut off
    before = {file: file.read_bytes() for file in Path("made").rglob("*.tif")}
    assert len(before) == 8
    cut, missing = sorted(before)[1:3]
    cut.write_bytes(before[cut][:-40])
    missing.unlink()
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]
    main(["predict", *common, "--predictions.folder", "made", "--data.predictions_per_class", "4"])
    assert {file: file.read_bytes() for file in Path("made").rglob("*.tif")} == before


def deep(number: int) -> np.ndarray:
    """An image of 16 bits that is black but for the low byte and one pixel."""
    values = np.random.default_rng(number).integers(0, 256, (8, 8)).astype(np.uint16)
    values[0, 0] = 65535
    return values


def write_deep() -> list[np.ndarray]:
    written = []
    for name in "ab":
        (Path("deep") / name).mkdir(parents=True)
        for number in range(12):
            written.append(deep(len(written)))
            Image.fromarray(written[-1]).save(f"deep/{name}/{number:02d}.png")
    return written


def test_the_low_byte_of_16_bits_survives() -> None:
    written = write_deep()
    for budget in (4.0, 0.0):  # from memory, and from files
        data = ImageFolderData("deep", batch_size=2, workers=0, memory_budget=budget)
        data.setup("test")
        found: list[np.ndarray] = []
        for split in ("train", "validation", "test"):
            for images, _ in data.in_order(split):
                assert images.dtype == torch.float32
                assert images.max() == 1
                for image in images:
                    save_image(pixels_from_signed(image, 16), Path("again.png"))
                    found.append(np.asarray(Image.open("again.png")))
                    by_hand = np.round((image[0].numpy().astype(np.float64) + 1) / 2 * 65535)
                    assert (found[-1] == by_hand).all()
        assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in written)
    shallow = ImageFolderData("deep", batch_size=2, workers=0, bit_depth=8)
    shallow.setup("fit")
    assert set(shallow.splits["train"][0].unique().tolist()) == {0, 255}  # type: ignore[union-attr]


@pytest.mark.ci
@pytest.mark.usefixtures("_quick_judge")
def test_generated_images_of_16_bits(fails: Fails) -> None:
    write_deep()
    folder = fit("--data.data_dir", "deep", "--data.batch_size", "4")
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    assert np.isfinite(score(folder)["scores"]["judge_fid"])
    for out in ("made.npz", "files"):
        main(["generate", checkpoint, "--count", "2", "--out", out, "--bit_depth", "16", "--device", "cpu"])
    made = np.load("made.npz")["images"]
    assert (made.dtype, made.shape) == (np.uint16, (4, 8, 8))
    assert len(set((made & 255).flatten().tolist())) > 50
    assert (np.asarray(Image.open("files/b/00001.png")) == made[3]).all()
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]
    main(["predict", *common, "--predictions.folder", "deeper", "--predictions.bit_depth", "16"])
    assert (np.asarray(Image.open("deeper/b/00001.png")) == made[3]).all()
    common += ["--predictions.folder", "deeper", "--data.predictions_per_class", "150"]
    assert fails("predict", *common) == (
        "error: --predictions.folder: expected images made with the same bit_depth, got others in deeper; name another folder"
    )
    message = fails("generate", checkpoint, "--out", "sheet2.png", "--bit_depth", "16", "--device", "cpu")
    assert message == (
        "error: --bit_depth: expected 8 for a picture, got 16; name a folder or a file in .npz, not sheet2.png"
    )
