"""A run that was killed, or stopped, goes on in its folder as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import BEGINNINGS, Command, Forked, Typed
from helpers.marks import ci_but_for
from helpers.paths import DIGITS, FIXED_DECAY
from helpers.processes import script
from helpers.run_files import last_of, rows_of
from lightning_cgan import AtomicCheckpointIO
from lightning_cgan.cli import machine_defaults
from lightning_cgan.cli.main import main
from lightning_cgan.runs.csv_logger import MetricsFile

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def _as_typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Most who use the command line set no number of threads; here, the answer is another whenever a run asks for it."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    answers = cycle((2, 1, 3))
    monkeypatch.setattr(machine_defaults, "fastest_threads", lambda *_: next(answers))
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "at", ci_but_for([19, 20, 23], 20)
)  # before, at and after the end of an epoch, where scores are looked at
def test_it_goes_on_in_its_folder(run: Run, at: int) -> None:
    options = ("--trainer.log_every_n_steps", "6", "--trainer.check_val_every_n_epoch", "1")
    options += (*FIXED_DECAY, "--data.image_size", "8", "--scores.images", "50")  # a judge is shipped for this size
    options += ("--model.discriminator.dropout", "0.3")  # draws from the global generator
    part = run("--trainer.max_steps", str(at), *options, "--name", "part")
    whole = run("--trainer.max_steps", "30", *options, "--name", "whole", "--threads", "2")
    rest = run("--trainer.max_steps", "30", *options, "--name", "part", "--ckpt_path", "last")
    assert rest == part
    assert rows_of(rest) == rows_of(whole)
    expected, got = last_of(whole), last_of(rest)
    assert all(torch.equal(value, got["state_dict"][name]) for name, value in expected["state_dict"].items())
    assert str(got["optimizer_states"]) == str(expected["optimizer_states"])
    assert sorted(file.name for file in rest.glob("config*.yaml")) == ["config.yaml", "config_2.yaml"]
    assert "max_steps: 30" in (rest / "config_2.yaml").read_text()


def test_another_name_begins_another_run(run: Run) -> None:
    part = run("--trainer.max_steps", "2", "--name", "part")
    before = {file: file.stat().st_mtime_ns for file in part.rglob("*") if file.is_file()}
    other = run("--trainer.max_steps", "4", "--name", "other", "--ckpt_path", str(part / "checkpoints" / "last.ckpt"))
    assert other.parent.name == "other"
    assert last_of(other)["global_step"] == 4
    assert {file: file.stat().st_mtime_ns for file in part.rglob("*") if file.is_file()} == before


@pytest.mark.usefixtures("_quick_judge")
def test_last_of_no_run_begins_one(run: Run, tmp_path: Path, fails: Callable[..., str]) -> None:
    message = fails("validate", "--config", DIGITS, "--ckpt_path", "last")
    assert message == "error: --ckpt_path: expected a run with a checkpoint in runs/digits, got none; name a file"
    folder = run("--trainer.max_steps", "1", "--ckpt_path", "last")
    assert last_of(folder)["global_step"] == 1
    main(["validate", "--config", DIGITS, "--ckpt_path", "last", "--trainer.accelerator", "cpu"])


def test_other_data_is_told(run: Run) -> None:
    folder = run("--trainer.max_steps", "2", "--data.classes", "[4, 9]")
    expected = (
        r"--data: expected what the checkpoint was trained with, classes \['4', '9'\], got \['3', '8'\]; "
        r"training images \d+, got \d+; batch size 64, got 32; resuming anyway"
    )
    with pytest.warns(UserWarning, match=expected):
        run("--trainer.max_steps", "3", "--data.classes", "[3, 8]", "--data.batch_size", "32", "--ckpt_path", "last")
    assert last_of(folder)["global_step"] == 3


def test_a_mistake_in_going_on_leaves_the_run_as_it_was(run: Run, fails: Callable[..., str]) -> None:
    folder = run("--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1")
    before = (folder / "metrics.csv").read_bytes()
    options = ["--trainer.accelerator", "cpu", "--ckpt_path", "last", "--data.classes", "[4,9]"]
    assert "discriminator" in fails("fit", "--config", DIGITS, *options)
    assert last_of(folder)["global_step"] == 2
    assert (folder / "metrics.csv").read_bytes() == before


@pytest.mark.ci
@pytest.mark.parametrize(
    "options",
    [
        ("--processes", "1", "--busy"),
        ("--processes", "2", "--then", "1"),
        ("--at", "epoch-end"),
        ("--at", "early-stopping"),
    ],
)
def test_a_killed_run_goes_on(tmp_path: Path, options: tuple[str, ...]) -> None:
    shown = script("kill_test.py", "--kills", "1", "--steps", "30", *options, "--out", str(tmp_path / "out"))
    assert shown.strip().splitlines()[-1].startswith("1 of 1 runs ended "), shown


@pytest.mark.ci
@pytest.mark.parametrize(("to", "number"), [("second", signal.SIGTERM), ("first", signal.SIGUSR1)])
def test_a_signal_to_one_process_ends_both_after_the_same_step(tmp_path: Path, to: str, number: signal.Signals) -> None:
    command = ("fit", "--config", DIGITS, "--trainer.accelerator", "cpu")
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.log_every_n_steps", "1"]
    options += ["--trainer.max_steps", "100000", "--model.generator_scheduler", "null", "--scores.images", "0"]
    with Typed(*command, *options) as first:
        _wait(first, lambda: any(len(rows_of(file.parent)) > 5 for file in tmp_path.glob("runs/digits/*/metrics.csv")))
        (second,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        os.kill(first.pid if to == "first" else int(second), number)
        shown = first.wait(60)
    assert first.returncode == 128 + number, shown
    assert "Traceback" not in shown
    _wait(None, lambda: not Path(f"/proc/{second}").exists())
    (folder,) = tmp_path.glob("runs/digits/*")
    checkpoint = last_of(folder)
    assert f"Stopped at step {checkpoint['global_step']:,}. To resume:" in shown
    assert checkpoint["global_step"] % 10 == 0
    updates = [int(optimizer["state"][0]["step"]) for optimizer in checkpoint["optimizer_states"]]
    assert updates == [checkpoint["global_step"]] * 2


def _wait(process: Command | None, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.returncode is None
        time.sleep(0.1)


@pytest.mark.ci
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_training_goes_on_where_nothing_can_be_written(begin: type[Command]) -> None:
    """The limit of a process on the size of files fails a write in its middle, as a full disk does."""
    options = ["--trainer.max_steps", "100", "--trainer.log_every_n_steps", "1"]
    options += ["--checkpoints.every_n_train_steps", "10", "--scores.images", "0"]
    with begin("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *options, largest_file=6000) as process:
        shown = process.wait()
    assert process.returncode == 0, shown
    said = re.sub(r"\S*/", "", shown)
    assert "The checkpoint last.ckpt was not written: [Errno 27] File too large. Training continues" in said
    assert "metrics.csv was not written: [Errno 27] File too large. Training continues; its rows wait in memory" in said
    assert "The grid of samples was not written: " in said
    assert "Checkpoint: none, since none could be written" in shown


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB, which has room for six checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fit_on(disk: Path) -> Forked:
    options = ["--trainer.max_steps", "100", "--trainer.log_every_n_steps", "1", "--scores.images", "0"]
    options += ["--checkpoints.every_n_train_steps", "10", "--runs_dir", str(disk)]
    return Forked("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *options)


def _good_checkpoint(disk: Path) -> dict[str, Any]:
    (folder,) = disk.glob("digits/*/checkpoints")
    assert not list(folder.glob(".*")), "nothing unfinished stays"
    return AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")


@pytest.mark.ci
def test_training_goes_on_while_a_disk_is_full(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(11 * 2**20))
    with _fit_on(small_disk) as process:
        shown = process.wait()
    assert process.returncode == 0, shown
    assert re.search(
        "ckpt was not written: .*No space left on device.* Training continues; the last good one stays", shown
    )
    assert 0 < _good_checkpoint(small_disk)["global_step"] < 100


@pytest.mark.ci
def test_training_goes_on_in_a_folder_that_became_read_only(small_disk: Path) -> None:
    with _fit_on(small_disk) as process:
        _wait(process, lambda: list(small_disk.glob("digits/*/checkpoints/last.ckpt")))
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        shown = process.wait()
    assert process.returncode == 0, shown
    assert re.search(
        "ckpt was not written: .*Read-only file system.* Training continues; the last good one stays", shown
    )
    assert "metrics.csv was not written: [Errno 30] Read-only file system" in shown
    assert 0 < _good_checkpoint(small_disk)["global_step"] < 100


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "file").touch()
    message = fails("fit", "--config", DIGITS, "--runs_dir", "file", "--trainer.accelerator", "cpu")
    assert message.startswith("error: --runs_dir: expected a folder to write to, got ")


def test_metrics_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.log_metrics({"b": 1.5}, step=1)
    file.log_metrics({"b": 2.5}, step=2)
    assert (tmp_path / "metrics.csv").read_bytes() == b"b,step\r\n1.5,1\r\n2.5,2\r\n"
    file.log_metrics({"a": 3.5}, step=3)
    assert (tmp_path / "metrics.csv").read_bytes() == b"a,b,step\r\n,1.5,1\r\n,2.5,2\r\n3.5,,3\r\n"
    with (tmp_path / "metrics.csv").open("a") as torn:
        torn.write("4.")
    again = MetricsFile(tmp_path)
    again.truncate_to(2)
    again.log_metrics({"a": 5.5}, step=3)
    assert (tmp_path / "metrics.csv").read_bytes() == b"a,b,step\r\n,1.5,1\r\n,2.5,2\r\n5.5,,3\r\n"


def test_a_table_that_somebody_spoilt_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b'a,step\r\n1.0,1\r\n2."0,2\r\n' + b"x" * 200_000 + b"\r\n4.0,4\r\n")
    file = MetricsFile(tmp_path)
    file.truncate_to(4)
    file.log_metrics({"a": 5.0}, step=5)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["a,step", "1.0,1", '"2.""0",2', "5.0,5"]


def test_metrics_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    file = MetricsFile(folder)
    folder.touch()  # nothing can be written below a file
    with pytest.warns(UserWarning, match=r"metrics.csv was not written: .* its rows wait in memory"):
        file.log_metrics({"a": 1.0}, step=1)
    folder.unlink()
    file.log_metrics({"a": 2.0}, step=2)
    assert (folder / "metrics.csv").read_bytes() == b"a,step\r\n1.0,1\r\n2.0,2\r\n"


def test_a_new_rate_and_a_longer_run_are_taken(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A run that had ended, by hand: linear decay to zero at 4, then at 16, is at a half after 8 steps."""
    schedule, rate = "--model.generator_scheduler.total_iters", "--model.discriminator_optimizer.lr"
    caplog.set_level("INFO")
    run("--trainer.max_steps", "4")
    longer = ("--trainer.max_steps", "8", schedule, "16", rate, "1e-5")
    folder = run(*longer, "--ckpt_path", "last")
    generator, discriminator = (state["param_groups"][0] for state in last_of(folder)["optimizer_states"])
    assert generator["lr"] == pytest.approx(1e-3 / 2)
    assert discriminator["lr"] == 0  # its decay ends with the run
    said = [message for message in caplog.messages if " → " in message]
    assert said == [
        f"{schedule}: 4 → 16 from step 4",
        f"{rate}: 0.001 → 1e-05 from step 4",
        "--model.discriminator_scheduler.total_iters: 4 → 8 from step 4",
    ]
    config = (folder / "config_2.yaml").read_text()
    assert "total_iters: 16" in config
    assert "lr: 1.0e-05" in config
    caplog.clear()
    folder = run("--trainer.max_steps", "16", *longer[2:], "--ckpt_path", "last")
    said = [message for message in caplog.messages if " → " in message]
    assert said == ["--model.discriminator_scheduler.total_iters: 8 → 16 from step 8"]  # nothing else is new any more
    rates = [state["param_groups"][0]["lr"] for state in last_of(folder)["optimizer_states"]]
    assert rates == [0, 0]
