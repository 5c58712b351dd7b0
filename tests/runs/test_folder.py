"""The folder of a run: its own from the first moment, and none where nothing has begun."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.callbacks import device_stats_monitor

from lightning_cgan import UsageError
from lightning_cgan.cli.main import CLI, main
from lightning_cgan.runs import folder as run_module
from lightning_cgan.runs.folder import RunFolder, new_run_folder, resolve_run_dir

SMALL = ("--data.image_size", "8", "--scores.images", "0", "--trainer.accelerator", "cpu")


@pytest.fixture(autouse=True)
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """All begin in the same second."""
    monkeypatch.setattr(run_module, "datetime", SimpleNamespace(now=lambda: datetime(2026, 11, 24, 9, 30)))


def in_parallel(count: int, work: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own() -> None:
    found: list[Path] = []
    in_parallel(40, lambda: found.append(new_run_folder("runs", "digits").path))
    expected = ["2026-11-24_09-30-00", *(f"2026-11-24_09-30-00_{number}" for number in range(2, 41))]
    assert sorted(path.name for path in found) == sorted(expected)
    assert sorted(Path("runs/digits").iterdir()) == sorted(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that start at once")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_so_do_those_of_several_processes() -> None:
    def begin(barrier: Any, told: Any) -> None:
        barrier.wait()
        told.put(str(new_run_folder("runs", "array job").path))

    context = multiprocessing.get_context("fork")
    barrier, told = context.Barrier(12), context.SimpleQueue()
    processes = [context.Process(target=begin, args=(barrier, told)) for _ in range(12)]
    for process in processes:
        process.start()
    found = {told.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 12


def test_what_was_made_for_a_run_is_taken_away_and_nothing_else() -> None:
    Path("mine/deep").mkdir(parents=True)
    new_run_folder("mine/deep/a/b", "name").discard()
    assert [str(path) for path in Path().rglob("*")] == ["mine", "mine/deep"]
    first, second = (new_run_folder("a/b", "name") for _ in range(2))
    first.discard()
    assert [path for path in Path("a").rglob("*") if not any(path.iterdir())] == [second.path]
    (second.path / "metrics.csv").write_text("step\n", encoding="utf-8")
    RunFolder(second.path, is_resuming=True).discard()  # another run's
    assert (second.path / "metrics.csv").exists()


def test_runs_that_fail_do_not_take_the_folder_of_others_away() -> None:
    failures: list[BaseException] = []

    def begin_and_fail() -> None:
        try:
            for _ in range(50):
                folder = new_run_folder("runs", "digits")
                (folder.path / "config.yaml").touch(exist_ok=False)
                folder.discard()
        except BaseException as error:
            failures.append(error)

    in_parallel(4, begin_and_fail)
    assert failures == []


@pytest.mark.parametrize(("runs_dir", "name"), [("runs", "x" * 300), ("file/runs", "name"), ("file", "name")])
def test_a_place_that_cannot_be_made(runs_dir: str, name: str) -> None:
    Path("file").touch()
    with pytest.raises(UsageError, match="^--runs_dir: expected a folder to write to, got .*; name another$"):
        resolve_run_dir(None, runs_dir, name)
    assert [path.name for path in Path().rglob("*")] in (["file"], ["file", "runs"], ["runs", "file"])


@pytest.mark.parametrize("is_first", [True, False])
def test_only_the_first_process_chooses(is_first: bool) -> None:
    cli = object.__new__(CLI)
    wandb = Namespace(mode="disabled")
    options = {"logger": True, "ckpt_path": None, "runs_dir": "runs", "name": "n", "wandb": wandb, "tensorboard": False}
    options["trainer"] = SimpleNamespace(logger=True)
    state = {"is_global_zero": is_first, "fast_dev_run": False, "barebones": False, "loggers": []}
    trainer: Any = SimpleNamespace(**state, checkpoint_callbacks=[])
    cli.subcommand, cli.config_init, cli.trainer = "fit", {"fit": SimpleNamespace(**options)}, trainer
    cli.before_fit()
    assert len(list(Path().glob("runs/n/*"))) == is_first
    assert (cli.run_folder is not None) == is_first
    assert len(trainer.loggers) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples.labels", "[10]"], "--samples.labels: expected names or numbers of classes, got 10"),
        (["--samples.columns", "2000"], "--samples.rows: expected a grid of 2,000 by at most 0 images, got 1 rows"),
        (["--trainer.callbacks+=DeviceStatsMonitor"], "--trainer.callbacks: `DeviceStatsMonitor` cannot log CPU stats"),
    ],
)
def test_a_mistake_that_is_found_late_leaves_nothing(
    fails: Callable[..., str], tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights & Biases has begun its files by then."""
    monkeypatch.setattr(device_stats_monitor, "_PSUTIL_AVAILABLE", False, raising=False)
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu._PSUTIL_AVAILABLE", False)
    pytest.importorskip("wandb")
    told = fails("fit", "--config", "digits", *SMALL, "--wandb.mode", "offline", "--runs_dir", "a/b", *options)
    assert told.startswith(f"error: {message}")
    assert not (tmp_path / "a").exists()


def test_a_mistake_that_is_found_after_training_began_leaves_the_run(fails: Callable[..., str]) -> None:
    stopping = [
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor",
        "val_nothing",
        "--trainer.check_val_every_n_epoch",
        "1",
    ]
    told = fails(
        "fit", "--config", "digits", *SMALL, "--trainer.max_epochs", "1", "--trainer.max_steps", "-1", *stopping
    )
    assert told.startswith("error: --trainer.callbacks: Early stopping conditioned on metric `val_nothing`")
    assert len(list(Path().glob("runs/digits/*/config.yaml"))) == 1


def test_a_run_that_is_not_over_is_not_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    short = ("fit", "--config", "digits", *SMALL, "--trainer.enable_progress_bar", "false", "--trainer.max_steps")
    main([*short, "2"])
    main([*short, "2", "--ckpt_path", "last"])  # nothing is left to do
    (folder,) = Path("runs/digits").iterdir()
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("Pictures", "Checkpoint"))]
    words = [f"Pictures: {folder}/samples, {folder}/samples.gif", f"Checkpoint: {folder}/checkpoints/last.ckpt"]
    assert last == 2 * words
    main([*short, "2", "--ckpt_path", "last", "--trainer.enable_checkpointing", "false"])
    assert len(list(Path("runs/digits").iterdir())) == 2  # whose table it could not go on with
    assert capsys.readouterr().out.endswith("Checkpoint: none, since checkpoints are disabled\n")
