"""Jobs that are stopped from outside go on by themselves, and end like one that nobody disturbed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from helpers.paths import DIGITS, ROOT, TESTS
from helpers.run_files import last_of, rows_of

SLURM = TESTS / "cluster" / "slurm.sh"
OPTIONS = ["--config", DIGITS, "--trainer.accelerator", "cpu"]
# 1,317 images: no multiple of 10 below 410 ends an epoch
OPTIONS += ["--data.batch_size", "32", "--trainer.max_steps", "400", "--trainer.check_val_every_n_epoch", "2"]
OPTIONS += ["--trainer.log_every_n_steps", "20", "--checkpoints.every_n_train_steps", "20"]
SLOWLY = ["--trainer.callbacks", "slow.Slow"]

pytestmark = pytest.mark.cluster


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell whose `python` is this one; a callback makes steps slow until a file `hurry` is there."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n\n\n"
        "class Slow(Callback):\n"
        "    def on_train_batch_end(self, *arguments):\n"
        f"        time.sleep(0 if Path({str(tmp_path / 'hurry')!r}).exists() else 0.5)\n"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}


def wait(condition: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def check_same(expected: Path, got: Path) -> None:
    left, right = last_of(expected), last_of(got)
    assert left["global_step"] == right["global_step"] == 400
    assert all(torch.equal(value, right["state_dict"][name]) for name, value in left["state_dict"].items())
    assert str(left["optimizer_states"]) == str(right["optimizer_states"])
    assert rows_of(expected) == rows_of(got)


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Runs a command of a SLURM with two nodes, and returns what it prints."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("slurmctld"):
        pytest.skip("needs root, and slurm-wlm and munge of Debian or Ubuntu")
    folder = tmp_path / "slurm"
    environment["SLURM_CONF"] = str(folder / "slurm.conf")
    environment["MASTER_ADDR"] = "127.0.0.1"  # the nodes have names that nobody can look up

    def command(*arguments: str) -> str:
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    with FileLock(Path(tempfile.gettempdir()) / "lightning_cgan_slurm.lock"):  # its ports are there once
        subprocess.run([SLURM, "start", folder], check=True, env=environment, timeout=60)
        yield command
        subprocess.run([SLURM, "stop", folder], check=True, env=environment, timeout=60)


def submit(cluster: Callable[..., str], name: str, limit: str, *options: str) -> str:
    """Submits a job for two nodes, with a time limit of which SLURM tells it a minute before."""
    job = ["sbatch", "--parsable", "--nodes", "2", "--time", limit, "--signal", "USR1@60", "--output", f"{name}.txt"]
    return cluster(*job, str(ROOT / "scripts" / "slurm.sbatch"), *OPTIONS, "--name", name, *options)


def wait_for_end(cluster: Callable[..., str], job: str, until: Callable[[], bool] = lambda: False) -> str:
    """Waits until a job has ended, or `until` is true, and returns SLURM's account of the job.

    A job that was requeued begins again after seconds, where SLURM would wait for minutes.
    """
    hurried: set[int] = set()
    seen = 0  # a job that is being put back into the queue looks for a moment as if it had ended

    def account() -> str | None:
        nonlocal seen
        text = cluster("scontrol", "show", "job", job)
        if "Reason=BeginTime" in text and (restarts := _restarts(text)) not in hurried:
            hurried.add(restarts)
            # Not at once: SLURM refuses the credential of a job that begins in the second in which it was stopped.
            cluster("scontrol", "update", f"job={job}", "StartTime=now+5")
        seen = seen + 1 if re.search("JobState=(COMPLETED|FAILED|TIMEOUT|CANCELLED)", text) else 0
        return text if seen > 20 or until() else None

    return str(wait(account, 800))


def _restarts(account: str) -> int:
    return int(re.findall("Restarts=([0-9]+)", account)[0])


def test_slurm_job_is_preempted_and_meets_its_time_limit(tmp_path: Path, cluster: Callable[..., str]) -> None:
    whole = submit(cluster, "whole", "10")
    assert "JobState=COMPLETED" in wait_for_end(cluster, whole), Path("whole.txt").read_text()
    job = submit(cluster, "disturbed", "3", *SLOWLY)
    wait(lambda: list(tmp_path.glob("runs/disturbed/*/checkpoints/last.ckpt")))
    cluster("scontrol", "requeue", job)
    account = wait_for_end(cluster, job, until=lambda: "exit code 138" in Path("disturbed.txt").read_text())
    assert "JobState=COMPLETED" not in account, "two minutes are not enough"
    (tmp_path / "hurry").touch()
    account = wait_for_end(cluster, job)
    said = Path("disturbed.txt").read_text()
    assert "JobState=COMPLETED" in account, said
    assert "exit code 143" in said
    assert "exit code 138" in said
    stops = [int(step.replace(",", "")) for step in re.findall("Stopped at step ([0-9,]+)", said)]
    # All restarts but the first are the script's own. SLURM may send the signal up to a minute early, before Python listens.
    assert 2 <= len(stops) <= _restarts(account)
    assert stops == sorted(stops)
    assert all(step % 41 for step in stops)  # in mid-epoch
    (expected,), (got,) = tmp_path.glob("runs/whole/*"), tmp_path.glob("runs/disturbed/*")
    check_same(expected, got)


def test_torchrun_restarts_when_a_process_dies(tmp_path: Path, environment: dict[str, str]) -> None:
    script = [str(ROOT / "scripts" / "torchrun.sh"), *OPTIONS]
    environment["PROCESSES"] = "2"
    subprocess.run([*script, "--name", "whole"], env=environment, check=True, capture_output=True, timeout=300)
    shown = tmp_path / "shown.txt"
    with shown.open("w") as out:
        agent = subprocess.Popen(
            [*script, "--name", "disturbed", *SLOWLY], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    wait(lambda: list(tmp_path.glob("runs/disturbed/*/checkpoints/last.ckpt")))
    (tmp_path / "hurry").touch()
    workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    assert agent.wait(300) == 0, shown.read_text()
    assert "Restored all states" in shown.read_text()
    (expected,), (got,) = tmp_path.glob("runs/whole/*"), tmp_path.glob("runs/disturbed/*")
    check_same(expected, got)
