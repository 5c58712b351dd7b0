"""The generators that come with the package: by name, with the scores that their cards state, and from nowhere else."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from helpers.paths import OLD, PACKAGE, ROOT
from lightning_cgan import ConditionalGAN, PretrainedGenerator, UsageError
from lightning_cgan.cli.demo import DemoBackend
from lightning_cgan.cli.main import main
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.export import shipped_generators
from lightning_cgan.export.shipped_generators import SHIPPED
from lightning_cgan.export.source import load_source

Fails = Callable[..., str]

JUDGES = {"digits": "DigitsData-16", "mnist": "MNISTData", "fashion_mnist": "FashionMNISTData"}
LARGEST = 3_000_000  # bytes


def arrays(name: str, *options: str) -> dict[str, np.ndarray]:
    main(["generate", name, "--device", "cpu", "--out", "images.npz", "--overwrite", *options])
    with np.load("images.npz") as loaded:
        return dict(loaded)


def judged(name: str, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images to which the judge of their data set gives their label."""
    judge = Judge(10, 1, images.shape[-1])
    judge.load_state_dict(load_file(PACKAGE / "evaluation" / "judges" / f"{JUDGES[name]}.safetensors"))
    judge.eval()
    with torch.no_grad():
        parts = torch.from_numpy(images)[:, None].float().div(127.5).sub(1).split(500)
        predicted = torch.cat([judge.head(judge.features(part)).argmax(1) for part in parts])
    return (predicted.numpy() == labels).mean().item()


@pytest.mark.parametrize("name", list(SHIPPED))
def test_2000_images_have_the_score_of_the_card(name: str) -> None:
    made = arrays(name, "--count", "200")
    assert made["images"].shape[0] == 2000
    found = judged(name, made["images"], made["labels"])
    origin = json.loads((SHIPPED[name] / "origin.json").read_text())
    assert found == pytest.approx(origin["gan_test_of_2000"], abs=2 / 2000)  # rounding differs between processors
    (stated,) = re.findall(r"\| GAN-test \| ([\d.]+)% \|", (SHIPPED[name] / "README.md").read_text())
    stated = float(stated) / 100
    assert abs(found - stated) < 4 * math.sqrt(stated * (1 - stated) / 2000) + 1e-4  # four standard deviations
    images = made["images"].reshape(10, 200, -1)
    assert all(len(np.unique(of_class, axis=0)) == 200 for of_class in images)  # each once


@pytest.mark.parametrize("name", list(SHIPPED))
def test_what_lies_in_the_folder(name: str) -> None:
    folder = SHIPPED[name]
    files = [
        "README.md",
        "config.json",
        "config.yaml",
        "model.safetensors",
        "origin.json",
        "report.json",
        "samples.png",
    ]
    assert sorted(file.name for file in folder.iterdir()) == files
    assert (folder / "model.safetensors").stat().st_size <= LARGEST
    report, card = json.loads((folder / "report.json").read_text()), (folder / "README.md").read_text()
    assert f"| GAN-test | {report['scores']['gan_test']:.2%} |" in card
    assert f"| GAN-train | {report['gan_train']['mean']:.2%} |" in card
    (title,) = re.findall("^# (.*)$", card, re.MULTILINE)
    assert unescape(title) == name
    # the config of the training says what those of configs/ say
    kept, origin = (
        yaml.safe_load((folder / "config.yaml").read_text()),
        json.loads((folder / "origin.json").read_text()),
    )
    assert kept["seed_everything"] == origin["seed"] == 0
    for file in origin["configs"]:
        given = yaml.safe_load((ROOT / file).read_text())
        for network in given["model"].keys() & {"generator", "discriminator"}:
            assert kept["model"][network]["class_path"].endswith(given["model"][network]["class_path"])
            assert kept["model"][network]["init_args"].items() >= given["model"][network]["init_args"].items()
    assert kept["trainer"]["max_steps"] == given["trainer"]["max_steps"]  # of the last one


def test_the_kept_config_trains(run: Callable[..., Path]) -> None:
    folder = run("--trainer.max_steps", "2", config=str(SHIPPED["digits"] / "config.yaml"))
    again = ConditionalGAN.load_from_checkpoint(folder / "checkpoints" / "last.ckpt", map_location="cpu")
    shipped = PretrainedGenerator.from_pretrained("digits")
    assert [tuple(w.shape) for w in again.generator.parameters()] == [
        tuple(w.shape) for w in shipped.generator.parameters()
    ]


def test_the_same_images_in_every_way_and_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("connects to a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    made = arrays("digits", "--labels", "7", "--count", "16")
    assert made["class_names"].tolist() == list("0123456789")
    source = load_source("digits")
    images, _ = DemoBackend(source, Path()).images(7, 0, 16, 3.0)
    assert (np.stack([np.asarray(image) for image in images]) == made["images"]).all()
    main(["export", "digits", "--out", "digits.onnx"])
    exported = arrays("digits.onnx", "--labels", "7", "--count", "16")["images"]
    assert np.abs(exported.astype(int) - made["images"]).max() <= 1
    main(["export", "digits", "--out", "copy"])
    assert sorted(file.name for file in Path("copy").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.png",
    ]
    assert (arrays("copy", "--labels", "7", "--count", "16")["images"] == made["images"]).all()
    main(["generate", "digits", "--labels", "7", "--count", "16", "--out", "sevens.png"])
    assert Image.open("sevens.png").size == (16 * 66 + 2, 66 + 2)  # 16 pixels four times as large, and two between
    main(["generate", "digits", "--walk", "classes", "--frames", "1", "--count", "2", "--out", "walk.gif"])
    assert Image.open("walk.gif").n_frames == 10


def test_files_and_folders_win() -> None:
    main(["export", OLD, "--out", "digits"])
    assert arrays("digits", "--count", "1")["images"].shape == (10, 8, 8)
    assert PretrainedGenerator.from_pretrained("digits").generator.image_size == 8
    shutil.rmtree("digits")
    shutil.copy(OLD, "digits")
    assert arrays("digits", "--count", "1")["images"].shape == (10, 8, 8)
    Path("digits").unlink()
    assert arrays("digits", "--count", "1")["images"].shape == (10, 16, 16)


def test_a_name_that_does_not_exist(fails: Fails) -> None:
    known = ", ".join(SHIPPED)
    for command in ("generate", "export", "demo"):
        assert fails(command, "digist") == (
            f"error: source: expected a file, a folder or a shipped generator ({known}), got digist; did you mean digits?"
        )
    assert fails("generate", "cifar").endswith(f"({known}), got cifar; check the name")
    assert fails("generate", "runs/digits") == "error: source: no such file: runs/digits; check the path"
    with pytest.raises(UsageError, match=r"from_pretrained: .*\(.*digits.*\), got digist; did you mean digits\?"):
        PretrainedGenerator.from_pretrained("digist")


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_spoilt_weights(fails: Fails, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(SHIPPED["digits"], tmp_path / "installed" / "digits"))
    monkeypatch.setitem(shipped_generators.SHIPPED, "digits", folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage != "missing":
        weights.write_bytes(content[:-100] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    line = fails("generate", "digits")
    assert re.fullmatch(
        r"error: source: expected the weights that digits was shipped with \(sha256 \w{16}\), got "
        rf"(others \(sha256 \w{{16}}\)|no file) in {weights}; install lightning_cgan again",
        line,
    )
    with pytest.raises(UsageError, match="^from_pretrained: expected the weights that digits was shipped with"):
        PretrainedGenerator.from_pretrained("digits")
    assert not Path("generated.png").exists()


def test_what_only_a_checkpoint_has(fails: Fails) -> None:
    main(["export", "digits", "--out", "digits.onnx"])
    for name in ("digits", "digits.onnx"):
        expected = f"expected a checkpoint, got {name}, which has one set of weights"
        assert fails("generate", name, "--no_ema") == f"error: --no_ema: {expected}; omit --no_ema"
    assert fails("generate", "digits.onnx", "--walk", "classes", "--out", "x.gif") == (
        "error: --walk: expected latents, since an ONNX file does not mix classes, got classes; "
        "name a checkpoint or a folder"
    )
    assert fails("generate", "digits.onnx", "--device", "cuda") == (
        "error: --device: expected cpu for an ONNX file, got cuda; omit --device"
    )
    assert fails("export", "digits.onnx", "--out", "x.pt2") == (
        "error: source: expected a checkpoint or a folder, got digits.onnx; name what it was exported from"
    )
    assert fails("export", "digits", "--report", "r.json") == (
        "error: --report: expected a checkpoint to export, got digits, whose model card stays as it is; omit --report"
    )


def test_those_that_the_documents_name_are_there() -> None:
    assert set(SHIPPED) == {"digits", "fashion_mnist", "mnist"}
