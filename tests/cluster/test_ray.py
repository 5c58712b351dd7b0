"""Ray Train: the script as it is, with a worker that dies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import plain_fit
from helpers.commands import Forked
from helpers.paths import SCRIPTS

pytest.importorskip("ray.train.lightning")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="Ray gives each worker a CPU of its own"),
]
RUN = Path("ray_runs") / "digits"


def recorded() -> list[int]:
    """The steps of the checkpoints that Ray has recorded, and would resume from."""
    try:
        snapshot = json.loads((RUN / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    return [int(found["metrics"]["step"]) for found in snapshot["checkpoint_results"]]


def workers_of(driver: int) -> list[int]:
    """The processes that train for a script; not those of other clusters on the machine."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith(b"ray::RayTrainWorker"):
            found.append(int(folder.name))

    def is_ours(pid: int) -> bool:
        return pid == driver or (pid in parents and is_ours(parents[pid]))

    return [pid for pid in found if is_ours(pid)]


def run_script_and_kill_a_worker(shown: Path) -> None:
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
    with shown.open("w") as out:
        command = [sys.executable, str(SCRIPTS / "ray_train.py")]
        script = subprocess.Popen(command, env={**os.environ, **variables}, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 900
        while not recorded():
            assert script.poll() is None, shown.read_text()
            assert time.monotonic() < deadline, shown.read_text()
            time.sleep(0.1)
        workers = workers_of(script.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert script.wait(900) == 0, shown.read_text()
    finally:
        script.kill()  # Ray's other processes end with it
        script.wait()


def fit_without_ray(processes: int) -> dict[str, torch.Tensor]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    running = []
    for rank in range(processes):
        variables = {"OMP_NUM_THREADS": "1"}
        if processes > 1:  # what torchrun would set
            variables |= {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
            variables |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        running.append(Forked(f"{processes}.ckpt", str(processes), work=plain_fit.fit, **variables))
    for process in running:
        with process:
            said = process.wait(300)
        assert process.returncode == 0, said
    return weights_of(Path(f"{processes}.ckpt"))


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    saved: dict[str, Any] = torch.load(file, weights_only=True)
    assert saved["global_step"] == 200  # ten epochs of 20 batches
    return dict(saved["state_dict"])


def test_a_worker_dies_and_the_weights_are_those_of_a_run_without_ray(tmp_path: Path) -> None:
    shown = tmp_path / "shown.txt"
    run_script_and_kill_a_worker(shown)
    said = shown.read_text()
    restored = re.findall(r"Restored all states from the checkpoint at (\S*/ray_runs/digits/checkpoint_\S+)", said)
    assert set(restored) != set(), said
    (last,) = re.findall(r"^200 steps; checkpoint in (.+)$", said, re.MULTILINE)
    assert Path(restored[0]).parent != Path(last)  # there was something left to train
    got = weights_of(Path(last) / "checkpoint.ckpt")
    two, one = fit_without_ray(2), fit_without_ray(1)
    assert got.keys() == two.keys() == one.keys()
    for name, value in got.items():
        assert torch.equal(value, two[name]), name
        # Adam divides the first gradient by itself, and so makes a step of what is rounded where that is almost 0.
        assert torch.allclose(value, one[name], rtol=0, atol=1e-5), name
