"""The scripts that measure do so, if only for a moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.paths import CONFIGS, ROOT, SCRIPTS
from helpers.processes import script
from lightning_cgan.cli.main import main

pytestmark = pytest.mark.ci


def test_benchmark_measures_every_loop(tmp_path: Path, mnist_folder: str) -> None:
    options = [
        "--rounds",
        "2",
        "--seconds",
        "0.01",
        "--out",
        str(tmp_path / "out"),
        "--fit=--scores.images 0",
    ]
    configs = [str(CONFIGS / "mnist_mlp.yaml"), str(CONFIGS / "mnist_quick.yaml")]  # compiled; with a penalty
    shown = script("benchmark", *configs, *options, LIGHTNING_CGAN_DATA=mnist_folder)
    assert shown.startswith("| config | precision, threads | fit | bare | eager | naive | floor |")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"benchmark.json", "benchmark.md", "benchmark.png"}
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    config, other = found["configs"]
    loops = ("fit", "bare", "eager", "naive")
    counts = [{name: len(speeds) for name, speeds in one["speeds"].items()} for one in (config, other)]
    assert counts == [dict.fromkeys((*loops, "uncompiled"), 2), dict.fromkeys(loops, 2)]
    assert config["gflop"] == pytest.approx(0.148, abs=1e-3)  # counted by hand in training/test_threads.py
    assert set(config["events_ms"]) == {"report", "validation", "SampleGrid", "Checkpoints", "last.ckpt", "Curves"}
    assert set(found["start"]) == {"import lightning_cgan", "--help", "import lightning_cgan.cli.main"}


def test_benchmark_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "benchmark"), str(CONFIGS / "nowhere.yaml"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --config: no such file: ")
    assert "Traceback" not in done.stderr


def test_what_is_missing_compares_students_and_distances() -> None:
    shown = script("what_is_missing.py", "digits", "DigitsData", "--epochs", "1", "--images", "1317").splitlines()
    assert [line.partition(": ")[0] for line in shown[:5]] == [
        "student of real images",
        "student of generated images",
        "student of real, shifted images",
        "student of generated, shifted images",
        "student of generated, new in each epoch images",
    ]
    right = [float(re.findall(r"([\d.]+)% of the test images", line)[0]) for line in shown[:5]]
    assert min(right) > 40  # of ten classes
    counts = [int(line.split()[0]) for line in shown if "test images:" in line and not line.startswith("student")]
    assert sum(counts) == 360
    distances = [float(line.rpartition(" images ")[2].partition(",")[0]) for line in shown if line.startswith("  of ")]
    assert len(distances) == 4
    assert all(0 < distance < 10 for distance in distances)  # at most 32, from black to white


def test_profile_adds_up_to_the_step() -> None:
    shown = script("profile_step.py", str(CONFIGS / "digits.yaml"))
    rows = [line.strip("|").split("|") for line in shown.splitlines() if line.startswith("|")][2:]
    times = {cells[0].strip(): float(cells[1]) for cells in rows}
    whole = times.pop("together")
    assert sum(times.values()) == pytest.approx(whole, rel=0.05)
    assert times["convolutions"] > 0


def test_model_of_many_gpus() -> None:
    shown = script("scale.py", "--model")
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")][1:]
    assert [row[:2] for row in rows[:3]] == [["8", "128"], ["64", "128"], ["512", "128"]]
    # The networks of mnist.yaml: dense to 7 x 7 x 128, 4 x 4 kernels of stride 2 that meet each pixel of the smaller
    # map, a 3 x 3 kernel at 14 x 14; two operations for each product; three passes of the generator, eight of the other.
    generator = 74 * 49 * 128 + 49 * 128 * 64 * 16 + 196 * 64 * 32 * 9 + 196 * 32 * 16
    discriminator = 196 * 32 * 16 + 49 * 32 * 64 * 16 + 49 * 64 * 256 + 256 + 256 * 10
    flops = 2 * (3 * generator + 8 * discriminator)
    assert f" {flops / 1e6:.0f} MFLOP an image" in shown
    # 16,384 images on each GPU, at 50 TFLOP/s
    assert float(rows[6][2].replace(",", "")) == pytest.approx(16384 * flops / 5e13 * 1e6, abs=1)
    # 8 GPUs, 1.5 million weights or so: 2 messages up and down a tree of 3 hops of 10 µs, and the bytes at 200 GB/s
    megabytes = float(shown.split(" MB")[0].splitlines()[-1])
    assert float(rows[0][3]) == pytest.approx(2 * 2 * 3 * 10 + 2 * 7 / 8 * megabytes / 2e5 * 1e6, abs=1)


def test_systems_are_compared_and_nothing_is_made_twice(tmp_path: Path) -> None:
    options = [
        "--protocol",
        "quick",
        "--vary",
        "model.loss=Hinge,NonSaturating",
        "--seeds",
        "0",
        "--out",
        str(tmp_path),
    ]
    system = f"{CONFIGS / 'digits.yaml'}+{CONFIGS / 'with' / 'longer.yaml'}"
    # The size for which a judge is shipped.
    fit = "--fit=--trainer.accelerator cpu --trainer.max_steps 6 --data.image_size 8"
    shown = script("compare_systems.py", system, *options, fit)
    table = [line.strip("| ").split(" | ") for line in (tmp_path / "systems.md").read_text().splitlines()]
    assert [row[:2] for row in table[2:]] == [
        ["digits-longer-loss-Hinge", "1"],
        ["digits-longer-loss-NonSaturating", "1"],
    ]
    reports = sorted(tmp_path.glob("*/seed-0/report.json"))
    assert len(reports) == 2
    for config in tmp_path.glob("*/seed-0/run/*/config.yaml"):
        assert "ema_half_life: 88000" in config.read_text()  # of the second config
    for row, file in zip(table[2:], reports, strict=True):
        report = json.loads(file.read_text())
        assert float(row[2]) == pytest.approx(100 * report["scores"]["gan_test"], abs=0.01)
        assert (file.parent / "report.png").exists()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.name != "systems.md"}
    again = script("compare_systems.py", system, *options, fit)
    assert again.strip().splitlines()[-1] == shown.strip().splitlines()[-1]
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.name != "systems.md"}
    command = [sys.executable, str(SCRIPTS / "compare_systems.py"), system, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {tmp_path}/digits-longer-loss-Hinge/seed-0/report.json: expected fit '', got '--tr"
    )


def test_gallery_makes_small_pictures(tmp_path: Path) -> None:
    main(["fit", "--config", "digits", "--trainer.accelerator", "cpu", "--trainer.max_steps", "4"])
    (folder,) = Path("runs", "digits").iterdir()
    script("gallery.py", str(folder), "--out", str(tmp_path / "out"))
    pictures = {file.name: file for file in (tmp_path / "out").iterdir()}
    assert set(pictures) == {"digits.png", "digits-walk.gif", "digits-training.gif"}
    assert all(file.stat().st_size <= 300_000 for file in pictures.values())
    assert Image.open(pictures["digits.png"]).size == (10 * 66 + 2, 10 * 66 + 2)
    frames = {name: Image.open(file).n_frames for name, file in pictures.items() if name.endswith(".gif")}
    assert frames == {"digits-walk.gif": 24, "digits-training.gif": 2}  # four ways of six; before and after


def test_quickstart(tmp_path: Path) -> None:
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    (checkout / "scripts").mkdir(parents=True)
    environment.mkdir()
    for name in ("quickstart.sh", "environment.sh"):
        shutil.copy(SCRIPTS / name, checkout / "scripts")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    # As if the package had been installed: the environment of the tests is to stay as it is.
    checksum = subprocess.run(["cksum"], stdin=(ROOT / "pyproject.toml").open(), capture_output=True, text=True).stdout
    (environment / ".lightning_cgan-").write_text(f"{checkout} {checksum}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with_package = {"PYTHONPATH": str(ROOT), "VIRTUAL_ENV": str(environment), "PATH": path}
    done = subprocess.run(
        ["bash", "scripts/quickstart.sh", "--trainer.max_steps", "20"],
        cwd=checkout,
        env={**os.environ, **with_package},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).lower().count("warn") == 0
    assert not re.findall(r"FLOPs|wandb|Weights & Biases|\bgit\b", done.stdout + done.stderr)
    sheet, page, after = done.stdout.splitlines()[-3:]
    assert sheet.endswith(": runs/mnist.png, runs/fashion_mnist.png")
    for name in ("mnist", "fashion_mnist"):
        assert Image.open(checkout / "runs" / f"{name}.png").size == (10 * 58 + 2, 10 * 58 + 2)
    assert (checkout / page.rpartition(": ")[2]).read_text().startswith("<!DOCTYPE html>")
    assert after == "Next: python -m lightning_cgan generate mnist --labels 7 --count 16 --out sevens.png"
