"""The wheel suffices: it is built, installed into an empty folder, and trains from there without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from helpers.paths import ROOT

pytest.importorskip("hatchling")
pytestmark = pytest.mark.ci


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    (file,) = folder.iterdir()
    return file


def test_what_is_inside(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    found = [file for folder in ("lightning_cgan", "configs") for file in (ROOT / folder).rglob("*") if file.is_file()]
    files = {file.relative_to(ROOT).as_posix() for file in found if file.parent.name != "__pycache__"}
    assert names == {file.replace("configs/", "lightning_cgan/configs/", 1) for file in files}
    for name in (
        "py.typed",
        "configs/digits.yaml",
        "configs/with/wandb.yaml",
        "evaluation/judges/MNISTData.safetensors",
        "export/generators/mnist/model.safetensors",
        "export/generators/fashion_mnist/model.safetensors",
    ):
        assert f"lightning_cgan/{name}" in names


def test_sdist_has_the_whole_repository(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout of git")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=300)
    (file,) = tmp_path.iterdir()
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(listed.stdout.splitlines()) <= names


def test_it_trains_and_generates(wheel: Path, tmp_path: Path) -> None:
    library, work = tmp_path / "library", tmp_path / "work"
    work.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", str(library), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(library)}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    places = python(
        "-c", "import lightning_cgan, lightning_cgan.cli.shipped as p; print(lightning_cgan.__file__, p.SHIPPED)"
    )
    assert str(ROOT) not in places
    assert str(library) in places
    sevens = ("generate", "mnist", "--labels", "7", "--count", "16", "--out", "sevens.png")
    python("-m", "lightning_cgan", *sevens)
    assert Image.open(work / "sevens.png").size == (16 * 58 + 2, 58 + 2)
    python("-m", "lightning_cgan", "export", "digits", "--out", "digits.onnx")
    snippet = "from lightning_cgan import PretrainedGenerator as P; print(P.from_pretrained('mnist').num_classes)"
    assert python("-c", snippet) == "10\n"
    assert python("-m", "lightning_cgan", "--version").splitlines()[0] == wheel.name.split("-")[1]
    command = ["-m", "lightning_cgan", "fit", "--config", "digits", "--config", "with/tensorboard"]
    python(*command, "--trainer.max_steps", "3", "--trainer.accelerator", "cpu")
    (last,) = work.glob("runs/digits/*/checkpoints/last.ckpt")
    python("-m", "lightning_cgan", "generate", str(last), "--labels", "3,7", "--count", "4", "--out", "sheet.png")
    assert Image.open(work / "sheet.png").size == (4 * 66 + 2, 2 * 66 + 2)
