"""Trains, scores and exports the generators that come with the package, with seed 0 and one thread.

    python scripts/ship_generators.py                              # hours on a CPU; resumes where it stopped
    python scripts/ship_generators.py digits --systems systems     # one, with the folder of its run and its report

Each gets a folder in `lightning_cgan/export/generators`: the files that `export` writes; `config.yaml`, which repeats
the training; `report.json`; and `origin.json`, with the hash of the weights and the values that the tests compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from lightning_cgan.core.files import write_atomic_folder
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.judge import SHIPPED as JUDGES
from lightning_cgan.evaluation.scores import extract_features
from lightning_cgan.export.shipped_generators import ORIGIN, WEIGHTS

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / "lightning_cgan" / "export" / "generators"
_CONFIGS = {
    "digits": ("configs/digits.yaml",),
    "mnist": ("configs/mnist.yaml", "configs/with/longer.yaml"),
    "fashion_mnist": ("configs/fashion_mnist.yaml", "configs/with/longer.yaml"),
}
_JUDGES = {"digits": "DigitsData-16", "mnist": "MNISTData", "fashion_mnist": "FashionMNISTData"}
_TRAINER = ("precision", "max_steps", "check_val_every_n_epoch", "log_every_n_steps")  # what a config keeps of it


def main() -> None:
    """Makes the folders of the named generators, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(_CONFIGS), metavar="name", help=", ".join(_CONFIGS))
    parser.add_argument("--systems", type=Path, default=Path("systems"), help="the folder of runs and reports")
    options = parser.parse_args()
    if unknown := set(options.names) - _CONFIGS.keys():
        parser.error(f"name: expected {', '.join(_CONFIGS)}, got {', '.join(sorted(unknown))}")
    for name in options.names:
        run = _train(name, options.systems)
        with tempfile.TemporaryDirectory() as folder:
            _export(name, run, Path(folder) / name)
            write_atomic_folder(_FOLDER / name, partial(shutil.copytree, Path(folder) / name, dirs_exist_ok=True))
        print((_FOLDER / name / ORIGIN).read_text())


def _train(name: str, systems: Path) -> Path:
    """Trains and scores a system, unless that is done; returns the folder of its run."""
    options = ["--seeds", "0", "--fit=--threads 1", "--test=--report.students 1 --threads 1", "--out", str(systems)]
    configs = "+".join(str(_ROOT / config) for config in _CONFIGS[name])
    subprocess.run([sys.executable, str(_ROOT / "scripts" / "compare_systems.py"), configs, *options], check=True)
    stem = "-".join(Path(config).stem for config in _CONFIGS[name])
    checkpoints = (systems / stem / "seed-0" / "run").glob("*/checkpoints/last.ckpt")
    return max(checkpoints, key=lambda file: file.stat().st_mtime).parent.parent


def _export(name: str, run: Path, folder: Path) -> None:
    report = run.parent.parent / "report.json"
    _command("export", str(run / "checkpoints" / "last.ckpt"), "--out", str(folder), "--report", str(report))
    (folder / "report.png").unlink()  # large, and the card's table says the same
    card = (folder / "README.md").read_text().replace("\n\n![The report as a picture](report.png)", "")
    (folder / "README.md").write_text(card)
    shutil.copyfile(report, folder / "report.json")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(_portable(config), sort_keys=False))
    origin = {
        "configs": list(_CONFIGS[name]),
        "seed": config["seed_everything"],
        "minutes": round(json.loads(report.read_text())["minutes"], 1),
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "gan_test_of_2000": _gan_test(folder, JUDGES / f"{_JUDGES[name]}.safetensors"),
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n")


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's config that decides its weights, for any machine."""
    del config["data"]["init_args"]["data_dir"]
    trainer = {name: config["trainer"][name] for name in _TRAINER}
    return {
        "seed_everything": config["seed_everything"],
        "threads": config["threads"],
        "data": config["data"],
        "model": config["model"],
        "trainer": trainer,
    }


def _gan_test(folder: Path, judge_file: Path) -> float:
    """The share of the first 200 images of each class to which the judge gives their label."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "images.npz"
        _command("generate", str(folder), "--count", "200", "--device", "cpu", "--out", str(file))
        with np.load(file) as arrays:
            images, labels = torch.from_numpy(arrays["images"])[:, None], torch.from_numpy(arrays["labels"])
    judge = Judge(10, 1, images.shape[-1])
    judge.load_state_dict(load_file(judge_file))
    features = extract_features(judge.eval(), OrderedLoader(images, labels, 500))
    return (features.predicted == features.labels).double().mean().item()


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lightning_cgan", *arguments], check=True)


if __name__ == "__main__":
    main()
