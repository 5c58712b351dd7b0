"""The latents of given images, from files to files, and other images of them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from helpers.pages import blocks
from helpers.paths import ROOT
from helpers.run_files import write_scaled
from lightning_cgan import ConditionalGAN, DigitsData, PretrainedGenerator
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import bytes_from_signed, signed_from_pixels
from lightning_cgan.data.given_images import read_given
from lightning_cgan.networks.latents import slerp

Fails = Callable[..., str]
Shown = pytest.CaptureFixture[str]
QUICK = ("--steps", "20", "--restarts", "2", "--reference", "0")


def generate(*options: str, source: str = "digits") -> None:
    main(["generate", source, *options])


def invert(*options: str, source: str = "digits") -> dict[str, Any]:
    """Inverts quickly, and returns what the folder says."""
    main(["invert", source, *options, *(QUICK if "--steps" not in options else ())])
    return dict(json.loads(Path("inverted/inversion.json").read_text(encoding="utf-8")))


def errors(report: dict[str, Any]) -> list[float]:
    return [image["error"] for image in report["images"]]


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as loaded:
        return dict(loaded)


@pytest.fixture
def given() -> dict[str, np.ndarray]:
    """Images of two classes that the shipped generator of digits has made, as arrays and in folders."""
    generate("--labels", "3,7", "--count", "2", "--seed", "5", "--out", "given.npz")
    generate("--labels", "3,7", "--count", "2", "--seed", "5", "--out", "given")
    return arrays("given.npz")


def cells(sheet: str, size: int = 16, shown: int = 64) -> np.ndarray:
    """The images of a sheet, shape (rows, columns, H, W)."""
    pixels = np.asarray(Image.open(sheet))[..., 0]
    rows, columns = (length // (shown + 2) for length in pixels.shape)
    parts = pixels[2:, 2:].copy()
    parts = np.pad(parts, ((0, rows * (shown + 2) - parts.shape[0]), (0, columns * (shown + 2) - parts.shape[1])))
    parts = parts.reshape(rows, shown + 2, columns, shown + 2).transpose(0, 2, 1, 3)
    return parts[:, :, : shown : shown // size, : shown : shown // size]


def test_found_images_can_be_made_again(given: dict[str, np.ndarray], capsys: Shown, tmp_path: Path) -> None:
    report = invert("given", "--steps", "100", "--restarts", "2", "--reference", "3")
    lines = capsys.readouterr().out.splitlines()[-6:]
    assert sorted(file.name for file in Path("inverted").iterdir()) == ["inversion.json", "latents.npz", "sheet.png"]
    names = [f"given/{label}/0000{number}.png" for label in "37" for number in range(2)]
    assert [image["image"] for image in report["images"]] == names
    assert [image["class"] for image in report["images"]] == list("3377")
    assert not any(image["out of reach"] or image["class was given"] for image in report["images"])
    assert max(errors(report)) < 0.06  # in [-1, 1]: 8 of 255 gray levels
    assert lines[0].startswith("reference: 3 images that the generator makes, since no held-out ones can be read (")
    assert max(report["reference"]["errors"]) < 0.06
    for line, name, image in zip(lines[1:], names, report["images"], strict=False):
        levels = image["error"] * 127.5
        assert line == f"{name}: {image['class']}, error {image['error']:.3f} ({levels:.1f} of 255 levels)"
    assert lines[-1].startswith("4 images, median error 0.0")
    assert lines[-1].endswith(": inverted")

    generate("--latents", "inverted/latents.npz", "--out", "again.npz")
    made = arrays("again.npz")
    shown = cells("inverted/sheet.png")  # given, found, difference
    assert shown.shape == (4, 3, 16, 16)
    assert (shown[:, 0] == given["images"]).all()
    assert (shown[:, 1] == made["images"]).all()
    assert made["labels"].tolist() == [3, 3, 7, 7]
    difference = made["images"].astype(float) - given["images"]
    assert np.abs(shown[:, 2] - (127.5 + difference).clip(0, 255)).max() <= 1
    expected = np.sqrt(np.square(difference / 127.5).mean((1, 2)))
    assert errors(report) == pytest.approx(expected.tolist(), abs=0.005)  # pixels of files are rounded
    stored = arrays("inverted/latents.npz")
    assert stored["names"].tolist() == names
    assert stored["errors"].tolist() == pytest.approx(errors(report), abs=1e-6)
    assert stored["class_names"].tolist() == list("0123456789")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_files_folders_and_arrays_are_read_alike(given: dict[str, np.ndarray]) -> None:
    expected = errors(invert("given.npz"))
    pixels = given["images"][0]
    Image.fromarray(pixels).convert("RGB").save("colour.png")
    Image.fromarray(pixels).convert("RGBA").save("transparent.webp", lossless=True)
    Image.fromarray(pixels.astype(np.uint16) * 257).save("deep.png")
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save("large.bmp")
    wide = np.pad(pixels, ((0, 0), (4, 4)), constant_values=200)  # the sides are cropped
    Image.fromarray(wide).save("wide.png")
    np.savez("colours.npz", images=np.repeat(given["images"][..., None], 3, axis=3)[:1])
    files = ("colour.png", "transparent.webp", "deep.png", "wide.png", "large.bmp", "given/3", "colours.npz")
    report = invert(*files, "--labels", "3", "--overwrite")
    found = errors(report)
    names = [*files[:5], "given/3/00000.png", "given/3/00001.png", "colours.npz[0]"]
    assert [image["image"] for image in report["images"]] == names
    assert [found[place] for place in (0, 1, 2, 3, 7)] == pytest.approx([expected[0]] * 5, abs=1e-3)
    assert found[4] == pytest.approx(expected[0], abs=0.1)  # resized there and back
    assert found[5:7] == pytest.approx(expected[:2], abs=1e-3)


def test_labels_are_given_or_found(given: dict[str, np.ndarray], capsys: Shown) -> None:
    def classes(*options: str) -> list[tuple[str, bool]]:
        report = invert(*options, "--overwrite", "--steps", "5", "--restarts", "1", "--reference", "0")
        return [(image["class"], image["class was given"]) for image in report["images"]]

    assert classes("given") == [("3", False), ("3", False), ("7", False), ("7", False)]
    assert classes("given", "--labels", "8") == [("8", True)] * 4
    assert classes("given", "--labels", "3,5,7,1") == [("3", True), ("5", True), ("7", True), ("1", True)]
    assert classes("given.npz", "given/7") == [("3", True), ("3", True), ("7", True), ("7", True)] + [("7", False)] * 2
    named = {"images": given["images"][:2], "labels": np.array([1, 0]), "class_names": np.array(["7", "3"])}
    np.savez("named.npz", **named)
    np.savez("texts.npz", images=given["images"][:1], labels=np.array(["3"]))
    assert classes("named.npz", "texts.npz") == [("3", True), ("7", True), ("3", True)]
    assert classes("given.npz", "--labels", "5") == [("5", True)] * 4
    assert "given.npz[0]: 5, error 0." in capsys.readouterr().out


def test_an_image_is_found_alike_in_any_company(given: dict[str, np.ndarray]) -> None:
    together = errors(invert("given", "given.npz", *(f"given/{label}" for label in "377337")))
    alone = errors(invert("given/7/00001.png", "--overwrite"))
    assert alone == pytest.approx([together[3]], abs=1e-3)
    assert errors(invert("given/7/00001.png", "--overwrite", "--seed", "9")) != pytest.approx(alone, abs=1e-4)


def test_deep_images_are_read_alike_in_any_company(tmp_path: Path) -> None:
    ramp = np.arange(256).reshape(16, 16)
    Image.fromarray((ramp * 3).astype(np.uint16)).save("dark.png")
    Image.fromarray((ramp * 250).astype(np.uint16)).save("bright.png")
    Image.fromarray(ramp.astype(np.uint8)).save("shallow.png")
    read = read_given(["dark.png", "bright.png", "shallow.png"], 1, 16).images
    for name, image in zip(("dark.png", "bright.png", "shallow.png"), read, strict=True):
        assert torch.equal(read_given([name], 1, 16).images[0], image)
    in_use = (1023, 65535, 255)  # of 10, 16 and 8 bits
    for image, scale, top in zip(read, (3, 250, 1), in_use, strict=True):
        assert np.abs(image[0].numpy() - (ramp * scale / top * 2 - 1)).max() < 0.002


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 elsewhere")
def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save("x.png")
    os.rename(b"x.png", b"\xff.png")
    main(["invert", "digits", os.fsdecode(b"\xff.png"), "--steps", "1", "--restarts", "1", "--reference", "0"])
    report = json.loads(Path("inverted/inversion.json").read_text(encoding="utf-8"))
    assert report["images"][0]["image"] == os.fsdecode(b"\xff.png")


def test_what_is_out_of_reach(given: dict[str, np.ndarray], capsys: Shown) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8)
    np.savez("mixed.npz", images=np.concatenate([given["images"], noise]))
    report = invert("mixed.npz")
    assert [image["out of reach"] for image in report["images"]] == [False] * 4 + [True]
    limit = report["out of reach above"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith(" of 255 levels), out of reach")
    assert lines[-1].endswith(f", 1 out of reach (above {limit:.3f}): inverted")
    # Half the median distance of two images of one class, as other samples show it, too
    generator = PretrainedGenerator.from_pretrained("digits")
    labels = torch.arange(500) % 10
    pairs = (generator.generate(labels, seed=1) - generator.generate(labels, seed=2)).square().mean((1, 2, 3)).sqrt()
    assert limit == pytest.approx(float(pairs.median()) / 2, rel=0.1)


def test_reference_images_are_held_out(short_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shown) -> None:
    splits = []
    read = DigitsData.read
    monkeypatch.setattr(DigitsData, "read", lambda data, split: splits.append(split) or read(data, split))
    source = str(short_run / "checkpoints" / "last.ckpt")
    generate("--labels", "4", "--count", "1", "--out", "given", source=source)
    options = ("--steps", "5", "--restarts", "1", "--reference", "3")
    report = invert("given", *options, source=source)
    assert set(splits) == {"train"}
    assert report["reference"]["images"] == "3 images of the validation split"
    assert "reference: 3 images of the validation split: median error 0." in capsys.readouterr().out
    data = DigitsData(image_size=8)
    data.setup("fit")
    images, labels = data.splits["validation"]
    assert isinstance(images, Tensor)
    module = ConditionalGAN.load_from_checkpoint(source, map_location="cpu")
    every = module.invert(signed_from_pixels(images), labels, steps=5, restarts=1).errors
    for error in report["reference"]["errors"]:
        assert float((every - error).abs().min()) < 1e-4

    shutil.copyfile(source, "moved.ckpt")
    report = invert("given", *options, "--overwrite", source="moved.ckpt")
    reason = "there is no config.yaml of its run beside the folder of the checkpoint"
    expected = f"3 images that the generator makes, since no held-out ones can be read ({reason})"
    assert report["reference"]["images"] == expected
    report = invert("given", *options[:4], "--reference", "0", "--overwrite", source=source)
    assert report["reference"] is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"class_path": "os.system"}, "config.yaml names os.system, which --imports does not import"),
        ({"class_path": "lightning_cgan.MNISTData", "init_args": {"data_dir": "nowhere"}}, "its data has images of"),
        (
            {"class_path": "lightning_cgan.MNISTData", "init_args": {"data_dir": "nowhere", "image_size": 8}},
            "nowhere/MNIST/raw/train-images-idx3-ubyte: expected a complete IDX file, got no file",
        ),
        ({"init_args": {"image_size": 8, "classes": [1, 2]}}, "its data has other classes"),
        ({"init_args": {"no_such": 1}}, "TypeError: "),
    ],
)
def test_without_the_data_of_the_run(short_run: Path, capsys: Shown, changed: dict[str, Any], reason: str) -> None:
    shutil.copytree(short_run, "run")
    config = Path("run/config.yaml")
    described = {"class_path": "lightning_cgan.DigitsData", "init_args": {"image_size": 8}, **changed}
    config.write_text(json.dumps({"data": described}))  # which is YAML, too
    source = "run/checkpoints/last.ckpt"
    generate("--labels", "4", "--count", "1", "--out", "given", source=source)
    invert("given", "--steps", "2", "--restarts", "1", "--reference", "2", source=source)
    expected = f"reference: 2 images that the generator makes, since no held-out ones can be read ({reason}"
    assert expected in capsys.readouterr().out
    assert not Path("nowhere").exists()


# ---- generate --latents ----------------------------------------------------------------------------------------------


@pytest.fixture
def latents() -> dict[str, np.ndarray]:
    """A file as `invert` writes it, of the classes 3, 7 and 3."""
    stored = {
        "latents": PretrainedGenerator.from_pretrained("digits").sample_latents(3, seed=1).numpy(),
        "labels": np.array([3, 7, 3]),
        "class_names": np.array(list("0123456789")),
    }
    np.savez("latents.npz", **stored)
    return stored


def made(labels: list[int], latents: np.ndarray) -> np.ndarray:
    generator = PretrainedGenerator.from_pretrained("digits")
    return bytes_from_signed(generator.generate(labels, torch.from_numpy(latents)))[:, 0].numpy()


def test_given_latents_as_their_own_and_as_other_classes(latents: dict[str, np.ndarray], capsys: Shown) -> None:
    generate("--latents", "latents.npz", "--out", "own.npz")
    assert (arrays("own.npz")["images"] == made([3, 7, 3], latents["latents"])).all()
    assert capsys.readouterr().out == "3 images of 2 classes: own.npz\n"
    generate("--latents", "latents.npz", "--out", "own.png")
    assert (cells("own.png")[0] == made([3, 7, 3], latents["latents"])).all()
    generate("--latents", "latents.npz", "--out", "own")
    assert [str(file) for file in sorted(Path("own").rglob("*.png"))] == [
        "own/3/00000.png",
        "own/3/00001.png",
        "own/7/00000.png",
    ]
    assert (np.asarray(Image.open("own/3/00001.png")) == made([3], latents["latents"][2:])).all()
    generate("--latents", "latents.npz", "--labels", "8,0", "--out", "others.png")
    shown = cells("others.png")  # a row for each class, a column for each of the latents
    assert shown.shape == (2, 3, 16, 16)
    for row, label in zip(shown, (8, 0), strict=True):
        assert (row == made([label] * 3, latents["latents"])).all()
    assert capsys.readouterr().out.endswith("6 images of 2 classes: others.png\n")


def frames(path: str) -> list[np.ndarray]:
    film = Image.open(path)
    shown = []
    for number in range(film.n_frames):
        film.seek(number)
        shown.append(np.asarray(film.convert("L"), dtype=float))
    return shown


def as_frame(images: np.ndarray, columns: int) -> np.ndarray:
    """Images of 16 pixels in rows, four times as large, with two white pixels around each unless it is alone."""
    large = images.repeat(4, axis=1).repeat(4, axis=2)
    if len(large) == 1:
        return large[0].astype(float)
    padded = np.pad(large, ((0, 0), (2, 0), (2, 0)), constant_values=255)
    rows = [np.concatenate(list(row), axis=1) for row in padded.reshape(-1, columns, *padded.shape[1:])]
    return np.pad(np.concatenate(rows), ((0, 2), (0, 2)), constant_values=255).astype(float)


def test_walks_between_given_latents(latents: dict[str, np.ndarray]) -> None:
    vectors = torch.from_numpy(latents["latents"])
    generate("--latents", "latents.npz", "--walk", "latents", "--frames", "2", "--out", "own.gif")
    shown = frames("own.gif")
    assert len(shown) == 3 * 2
    for place, label in enumerate([3, 7, 3]):
        expected = made([label], latents["latents"][place : place + 1])
        assert np.abs(shown[2 * place] - as_frame(expected, 1)).max() <= 2
    generator = PretrainedGenerator.from_pretrained("digits")
    mixed = (torch.eye(10)[3] + torch.eye(10)[7])[None] / 2
    half = bytes_from_signed(generator.generate(mixed, slerp(vectors[:1], vectors[1:2], 0.5)))[:, 0].numpy()
    assert np.abs(shown[1] - as_frame(half, 1)).max() <= 2

    generate("--latents", "latents.npz", "--walk", "latents", "--labels", "5,6", "--frames", "2", "--out", "two.gif")
    shown = frames("two.gif")
    assert len(shown) == 3 * 2
    for place in range(3):
        expected = made([5, 6], latents["latents"][[place, place]])
        assert np.abs(shown[2 * place] - as_frame(expected, 1)).max() <= 2

    generate("--latents", "latents.npz", "--walk", "classes", "--labels", "5,6", "--frames", "2", "--out", "c.gif")
    shown = frames("c.gif")
    assert len(shown) == 2 * 2
    for place, label in enumerate([5, 6]):
        assert np.abs(shown[2 * place] - as_frame(made([label] * 3, latents["latents"]), 3)).max() <= 2


def test_given_latents_of_an_onnx_file(latents: dict[str, np.ndarray], fails: Fails) -> None:
    pytest.importorskip("onnxruntime")
    main(["export", "digits", "--out", "digits.onnx"])
    generate("--latents", "latents.npz", "--out", "own.npz", source="digits.onnx")
    difference = arrays("own.npz")["images"].astype(int) - made([3, 7, 3], latents["latents"])
    assert np.abs(difference).max() <= 1
    walk = ("--latents", "latents.npz", "--walk", "latents", "--frames", "1", "--out", "x.gif")
    line = fails("generate", "digits.onnx", *walk)
    expected = "expected latents of one class, since an ONNX file does not mix classes"
    assert line == f"error: --walk: {expected}, got those of 3, 7; name classes with --labels"
    generate(*walk, "--labels", "3", source="digits.onnx")
    assert len(frames("x.gif")) == 3
    Image.new("L", (16, 16)).save("x.png")
    expected = "expected a checkpoint or a folder, since an ONNX file has no gradients"
    assert fails("invert", "digits.onnx", "x.png") == (
        f"error: source: {expected}, got digits.onnx; name what it was exported from"
    )


def test_commands_of_the_page() -> None:
    for name, label in (("seven", "7"), ("two", "2")):
        generate("--labels", label, "--count", "1", "--seed", "4", "--out", name, source="mnist")
        shutil.copyfile(f"{name}/{label}/00000.png", f"{name}.png")
    lines = blocks(ROOT / "docs" / "invert.md", "bash")[0].splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert [words[:4] for words in commands] == [
        ["python", "-m", "lightning_cgan", command] for command in ("invert", "generate", "generate")
    ]
    for words in commands:
        main([*words[3:], *(("--steps", "10", "--reference", "1") if words[3] == "invert" else ())])
    assert arrays("inverted/latents.npz")["names"].tolist() == ["seven.png", "two.png"]
    assert arrays("inverted/latents.npz")["labels"].tolist() == [7, 2]
    assert cells("styles.png", 28, 56).shape == (10, 2, 28, 28)
    assert len(frames("walk.gif")) == 2 * 24


# ---- mistakes --------------------------------------------------------------------------------------------------------

TAKEN = "with --latents, which are taken as they are"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--latents latents.npz --count 3", f"--count: expected no --count {TAKEN}, got 3; omit one of them"),
        ("--latents latents.npz --seed 0", f"--seed: expected no --seed {TAKEN}, got 0; omit one of them"),
        (
            "--latents latents.npz --truncation 0.5",
            f"--truncation: expected no --truncation {TAKEN}, got 0.5; omit one of them",
        ),
        ("--latents latnets.npz", "--latents: no such file: latnets.npz; did you mean latents.npz?"),
        ("--latents .", "--latents: expected a file, got ., which is a folder; name a file"),
        (
            "--latents text.npz",
            "--latents: expected an .npz file with latents, labels and class_names, got text.npz (ValueError: another "
            "kind of file); name a latents.npz that invert wrote",
        ),
        (
            "--latents images.npz",
            "--latents: expected an .npz file with latents, labels and class_names, got images.npz with images, labels; "
            "name a latents.npz that invert wrote",
        ),
        (
            "--latents narrow.npz",
            "--latents: expected latents of shape (N, 32), N 1 or more, got (3, 8) in narrow.npz; name the source that "
            "they were found with",
        ),
        (
            "--latents pets.npz",
            "--latents: expected latents of a generator of the same classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), got cat, "
            "dog in pets.npz; name the source that they were found with",
        ),
        (
            "--latents nan.npz",
            "--latents: expected latents to be finite floats, got float32 in nan.npz, not all of them finite; run "
            "invert again",
        ),
        (
            "--latents whole.npz",
            "--latents: expected latents to be finite floats, got int64 in whole.npz; run invert again",
        ),
        (
            "--latents beyond.npz",
            "--latents: expected labels from 0 to 9, one for each of the latents, got int64 of shape (3,) in beyond.npz; "
            "run invert again",
        ),
        (
            "--latents one.npz --walk latents --out x.gif",
            "--walk: expected two or more latents to walk between, got 1; invert more images",
        ),
    ],
)
def test_latents_that_are_refused(
    latents: dict[str, np.ndarray], fails: Fails, options: str, message: str, tmp_path: Path
) -> None:
    Path("text.npz").write_text("hello")
    np.savez("images.npz", images=np.zeros((1, 16, 16), np.uint8), labels=np.array([0]))
    np.savez("narrow.npz", **{**latents, "latents": latents["latents"][:, :8]})
    np.savez("pets.npz", **{**latents, "class_names": np.array(["cat", "dog"])})
    np.savez("nan.npz", **{**latents, "latents": latents["latents"] * np.nan})
    np.savez("whole.npz", **{**latents, "latents": latents["latents"].astype(int)})
    np.savez("beyond.npz", **{**latents, "labels": np.array([3, 7, 10])})
    np.savez("one.npz", **{**latents, "labels": latents["labels"][:1], "latents": latents["latents"][:1]})
    before = sorted(tmp_path.iterdir())
    out = [] if "--out" in options else ["--out", "x.png"]
    assert fails("generate", "digits", *options.split(), *out) == f"error: {message}"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("digits", "images: expected files or folders, got none; name some after the source"),
        ("", "source: expected a file, got none; name one, such as runs/mnist/…/checkpoints/last.ckpt"),
        ("digits gray.pgn", "images: no such file: gray.pgn; did you mean gray.png?"),
        (
            "digits text.png",
            "images: expected images, got text.png, which cannot be read (not an image format that Pillow knows); fix "
            "it, or name others",
        ),
        (
            "digits empty",
            "images: expected images, got none in empty (1 .txt); add some (.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, "
            ".tiff, .webp, .jfif, .jpe), or name others",
        ),
        (
            "digits text.npz",
            "images: expected an .npz file with the array images and, if known, labels, got text.npz (ValueError: "
            "another kind of file); write one with numpy.savez_compressed",
        ),
        (
            "digits other.npz",
            "images: expected an .npz file with the array images and, if known, labels, got other.npz with x; write one "
            "with numpy.savez_compressed",
        ),
        (
            "digits floats.npz",
            "images: expected images of uint8, from 0 to 255, or of uint16, got float64; convert them: "
            "(numpy.asarray(images) * 255).round().astype('uint8')",
        ),
        (
            "digits labels.npz",
            "images: expected a label for each of 1 images: a text, or a number from 0, the place in class_names, got "
            "int64 of shape (2,) in labels.npz; remove the array labels, or correct it",
        ),
        (
            "digits named.npz",
            "images: expected names or numbers of classes, got shoe; choose from 0, 1, 2, 3, 4, 5, 6,",
        ),
        ("digits gray.png --labels 12", "--labels: expected names or numbers of classes, got 12; choose from 0, 1,"),
        (
            "digits gray.png --labels 1,2",
            "--labels: expected one class, or one for each of 1 images, got 2; give as many, or omit them to have them "
            "found",
        ),
        ("digits gray.png --steps 0", "--steps: expected 1 or more, got 0; give a positive number"),
        ("digits gray.png --restarts 0", "--restarts: expected 1 or more, got 0; give a positive number"),
        ("digits gray.png --reference -1", "--reference: expected 0 or more, got -1; 0 turns it off"),
        (
            "digits gray.png --out done",
            "--out: expected a new name, got done, which exists; name another, or add --over",
        ),
        (
            "digits gray.png --out photos --overwrite",
            "--out: expected a folder with nothing but what invert writes, got photos; name another",
        ),
        (
            "digits gray.png --out x.npz",
            "--out: expected a folder, or a type of file that this command writes, got x.npz; choose an extension that",
        ),
        ("digits gray.png --no_ema", "--no_ema: expected a checkpoint, got digits, which has one set of weights; omit"),
        ("digits gray.png --count 3", "--count: no such option; "),
        (
            "no_such gray.png",
            "source: expected a file, a folder or a shipped generator (digits, fashion_mnist, mnist),",
        ),
    ],
)
def test_mistakes(fails: Fails, words: str, message: str, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save("gray.png")
    for folder, file in (("empty", "notes.txt"), ("photos", "cat.jpg"), ("done", "latents.npz")):
        Path(folder).mkdir()
        Path(folder, file).touch()
    for name in ("text.png", "text.npz"):
        Path(name).write_text("hello")
    images = np.zeros((1, 16, 16), np.uint8)
    np.savez("other.npz", x=images)
    np.savez("floats.npz", images=images / 255)
    np.savez("labels.npz", images=images, labels=np.array([1, 2]))
    np.savez("named.npz", images=images, labels=np.array([0]), class_names=np.array(["shoe"]))
    before = sorted(tmp_path.rglob("*"))
    assert fails("invert", *words.split()).startswith(f"error: {message}")
    assert sorted(tmp_path.rglob("*")) == before


def test_averaged_and_trained_weights() -> None:
    write_scaled("other.ckpt", 2)
    generate("--labels", "2", "--count", "1", "--no_ema", "--out", "raw", source="other.ckpt")
    of_average, of_trained = (invert("raw", *ema, "--overwrite", source="other.ckpt") for ema in ((), ("--no_ema",)))
    assert (of_average["averaged weights"], of_trained["averaged weights"]) == (True, False)
    assert errors(of_trained)[0] < errors(of_average)[0] / 2
