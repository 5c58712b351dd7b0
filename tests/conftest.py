from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.idx_files import write_idx
from helpers.paths import CONFIGS, DIGITS
from lightning_cgan.cli import options
from lightning_cgan.cli.main import CLI, main
from lightning_cgan.evaluation import judge

# A shell's background job ignores it, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _alone(_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own, and without the arguments of pytest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning_cgan"])
    torch.manual_seed(0)
    os.environ.pop("PL_GLOBAL_SEED", None)  # of a snippet that an earlier test ran, for processes to be started
    torch.set_num_threads(1)  # more would only wait for one another where other programs run too
    # what Lightning says reaches caplog: its first 2.6 keeps it to itself
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests run without Weights & Biases, with judges and folders of their own, and with one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.delenv("LIGHTNING_CGAN_DATA", raising=False)
        patch.setenv("LIGHTNING_CGAN_CACHE", str(_cache(tmp_path_factory)))
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.getbasetemp() / "trackio"))
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp() / "gradio"))
        patch.setenv("OMP_NUM_THREADS", "1")  # the number is not for the machine to choose: it decides the last bits
        yield


def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for judges, which all tests of a session share, of both workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Runs `fit` on a CPU, and returns the folder of the run."""

    def fit(*args: str, config: str = DIGITS) -> Path:
        main(["fit", "--config", config, "--trainer.accelerator", "cpu", "--runs_dir", str(tmp_path / "runs"), *args])
        return max((tmp_path / "runs").glob("*/*"), key=lambda folder: folder.stat().st_mtime_ns)

    return fit


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 20 steps on digits of 8 x 8 pixels, which no test changes."""
    runs = tmp_path_factory.mktemp("short") / "runs"
    short = ("--trainer.max_steps", "20", "--data.image_size", "8", "--runs_dir", str(runs))
    main(["fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *short])
    (folder,) = runs.glob("*/*")
    return folder


@pytest.fixture
def _quick_judge(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges learn for a moment, for tests that need one and no good one; no other test is to find them."""
    monkeypatch.setattr(judge, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(judge, "_EPOCHS", 1)
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command line that must fail with exit code 2, and returns its one line of stderr."""
    leaves = options._leaves
    # as for a user, in whose process no test has defined classes
    monkeypatch.setattr(options, "_leaves", lambda base: (cls for cls in leaves(base) if _is_installed(cls)))

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        assert ended.value.code == 2
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return run


def _is_installed(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("lightning_cgan", "lightning", "torch", "torchvision", "torchmetrics")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Builds what a config describes, and returns what would be handed to `Trainer.fit`, with the Trainer."""

    def build(config: str, *args: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        monkeypatch.setattr(CLI, "fit", lambda cli, **kwargs: seen.update(kwargs, trainer=cli.trainer))
        main(["fit", "--config", str(CONFIGS / config), "--trainer.accelerator", "cpu", *args])
        return seen

    return build


@pytest.fixture(scope="session")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data folder with a small set in MNIST's own format: noise, but with all ten labels."""
    folder = tmp_path_factory.mktemp("mnist")
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        for prefix, count in (("train", 600), ("t10k", 100)):
            write_idx(folder / name / "raw", prefix, count)
    return str(folder)
