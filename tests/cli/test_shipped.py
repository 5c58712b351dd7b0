"""Every shipped config runs, and says nothing that the classes say already."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import lightning_cgan
from helpers.paths import CONFIGS
from helpers.run_files import FILES

SHIPPED = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
def test_config_runs(run: Callable[..., Path], config: Path) -> None:
    folder = run(
        *("--data", "DigitsData", "--data.batch_size", "16", "--trainer.max_steps", "3"),
        *("--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "1", "--curves.every_n_seconds", "1"),
        config=str(config),
    )
    assert folder.parent.name == config.stem
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    assert {f.name for f in folder.iterdir()} == FILES
    assert Image.open(folder / "curves.png").size == (800, 1200)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        yield from nodes(child)


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
def test_linear_decay_ends_with_the_run(config: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    for node in nodes(tree):
        if "PolynomialLR" in str(node.get("class_path")):
            assert node["init_args"]["total_iters"] == tree["trainer"]["max_steps"]


def test_configs_of_our_own_systems_state_no_defaults() -> None:
    """The four historical ones may: there a value that happens to be a default is part of the description."""
    for config in SHIPPED:
        if config.stem not in ("mnist", "mnist_quick", "fashion_mnist", "digits", "images", "mnist_r3gan"):
            continue
        for node in nodes(yaml.safe_load(config.read_text())):
            cls = getattr(lightning_cgan, str(node.get("class_path")), None)
            if cls is not None:
                parameters = inspect.signature(cls.__init__).parameters  # not of __new__, as Python 3.11.2 looks
                for name, value in node.get("init_args", {}).items():
                    assert parameters[name].default != value, f"{config.name}: {name} is the default"
