"""Two processes against one with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import two_processes
from helpers.commands import Forked
from helpers.paths import DIGITS
from helpers.processes import with_helpers

WORKER = Path(two_processes.__file__)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(*options: str, worker: tuple[str, ...]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--master_addr", "127.0.0.1", *options, *worker]
    return subprocess.Popen(command, env=with_helpers(OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has after all runs, which they made one after the other."""
    folder = tmp_path_factory.mktemp("pair")
    process = torchrun("--nproc_per_node", "2", "--master_port", str(free_port()), worker=(str(WORKER), str(folder)))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def forked_pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same after a few of the runs, of two processes that find what torchrun would tell them."""
    folder, port = tmp_path_factory.mktemp("pair"), str(free_port())
    processes = [Forked(str(folder), "few", work=two_processes.main, **of_torchrun(rank, port)) for rank in range(2)]
    for process in processes:
        with process:
            shown = process.wait(300)
        assert process.returncode == 0, shown
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def of_torchrun(rank: int, port: str) -> dict[str, str]:
    """What torchrun sets for one of two processes."""
    return {
        **{"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0"},
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
    }


def check_one_process_agrees(pair: list[dict[str, Any]], name: str) -> None:
    first, second = (results[name] for results in pair)
    for key in first["weights"]:
        assert torch.equal(first["weights"][key], second["weights"][key]), f"the processes disagree on {key}"
    one = two_processes.train(name, devices=1)
    tolerance = {"sync_batchnorm": 1e-5, "float16": 1e-3}.get(name, 1e-6)
    moved = 0.0
    for key, expected in one["weights"].items():
        assert torch.allclose(first["weights"][key].double(), expected.double(), rtol=0, atol=tolerance), key
        moved = max(moved, (expected.double() - one["before"][key].double()).abs().max().item())
    assert moved > 1e-3  # so that agreement to 1e-6 says something
    # the scalars that would be logged are means over the processes
    for key, expected in one["means"].items():
        assert first["means"][key] == pytest.approx(expected, abs=max(tolerance, 1e-5)), key
    assert first["skipped"] == second["skipped"] == one["skipped"]
    assert one["skipped"] == {"generator": 0, "discriminator": int(name == "float16")}


@pytest.mark.parametrize("name", two_processes.FEW)
def test_two_processes_are_one(forked_pair: list[dict[str, Any]], name: str) -> None:
    check_one_process_agrees(forked_pair, name)


@pytest.mark.ci
@pytest.mark.parametrize("name", two_processes.RUNS)
def test_two_processes_of_torchrun_are_one(pair: list[dict[str, Any]], name: str) -> None:
    check_one_process_agrees(pair, name)


def test_latents_and_images_are_shared_out(forked_pair: list[dict[str, Any]]) -> None:
    first, second = (results["seen"] for results in forked_pair)
    one = two_processes.what_is_seen(devices=1)
    for kind in ("images", "latents", "labels", "fake_labels"):
        together = torch.cat([first[kind], second[kind]])
        assert not torch.equal(first[kind], second[kind])
        rows = {tuple(row.flatten().tolist()) for row in together} if kind in ("images", "latents") else None
        assert rows is None or len(rows) == len(together), f"some {kind} came twice"
        assert sorted(map(str, together.flatten(1).tolist() if together.ndim > 1 else together.tolist())) == sorted(
            map(str, one[kind].flatten(1).tolist() if one[kind].ndim > 1 else one[kind].tolist())
        )


@pytest.mark.ci
def test_losses_on_held_out_images_are_those_of_one_process(pair: list[dict[str, Any]]) -> None:
    expected = two_processes.validate(devices=1)
    for results in pair:
        assert results["validated"].keys() == expected.keys()
        for key, value in expected.items():
            # the latents of the last image differ: the two draw for a batch of their own size
            assert results["validated"][key] == pytest.approx(value, abs=0.05), key


@pytest.mark.ci
def test_scores_are_those_of_one_process(pair: list[dict[str, Any]]) -> None:
    expected = two_processes.scored(devices=1)
    assert 0 < expected["val_gan_test"] < 1
    for results in pair:
        assert results["scored"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["batch_norm", "spectral_norm"])
def test_what_networks_measure_is_the_same_in_all_processes(pair: list[dict[str, Any]], name: str) -> None:
    first, second = (results["processes_agree"][name] for results in pair)
    assert any("running_var" in key or "_u" in key for key in first)
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.ci
def test_unequal_shares_are_cut_to_the_shortest(pair: list[dict[str, Any]]) -> None:
    """An own loader's last batch is of 5 and 4 images, or of 2 and none: one process with what both have agrees."""
    first, second = (results["unequal"] for results in pair)
    for name, one in two_processes.unequal(devices=1).items():
        assert first[name]["steps"] == second[name]["steps"] == one["steps"] == (2 if "empty" in name else 3), name
        for key, expected in one["weights"].items():
            assert torch.equal(first[name]["weights"][key], second[name]["weights"][key]), (name, key)
            assert torch.allclose(first[name]["weights"][key], expected, rtol=0, atol=1e-6), (name, key)


@pytest.mark.ci
def test_what_one_process_finds_is_said_in_all(pair: list[dict[str, Any]]) -> None:
    assert {results["refused"] for results in pair} == {
        "labels: expected class numbers from 0 to 9, got 13 in training batch 2; number the classes from 0, or build "
        "both networks with another num_classes"
    }


def of_slurm(rank: int, port: str) -> dict[str, str]:
    """What srun sets for one of two tasks, each on a node of its own."""
    return {
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "cgan", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"},
        **{"SLURM_NODELIST": "127.0.0.1", "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"},
        **{"SLURM_STEP_ID": "0", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
    }


@pytest.mark.ci
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_nodes(launcher: str, tmp_path: Path) -> None:
    """Two launches of one process each, as on two machines."""
    port, worker = str(free_port()), (str(WORKER), str(tmp_path), "nodes")
    nodes = []
    for rank in range(2):
        if launcher == "torchrun":
            options = ("--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1", "--master_port", port)
            nodes.append(torchrun(*options, worker=worker))
        else:
            environment = with_helpers(**of_slurm(rank, port))
            command = [sys.executable, *worker]
            nodes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    assert [node.communicate(timeout=300) and node.returncode for node in nodes] == [0, 0]
    one = two_processes.train("NonSaturating", devices=1)
    for rank in range(2):
        weights = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for key, expected in one["weights"].items():
            assert torch.allclose(weights[key], expected, rtol=0, atol=1e-6), key


@pytest.mark.ci
def test_command_line_on_two_devices(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "lightning_cgan", "fit", "--config", DIGITS, "--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", "6", "--trainer.log_every_n_steps", "2", "--samples.every_n_steps", "3"),
        *("--model.ema_half_life", "100"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    weights = {}
    for devices in ("1", "2"):
        runs = tmp_path / devices
        options = ["--trainer.devices", devices, "--runs_dir", str(runs)]
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (folder,) = runs.glob("*/*")
        assert {file.name for file in folder.iterdir()} >= {"config.yaml", "metrics.csv", "samples", "checkpoints"}
        assert [file.name for file in sorted((folder / "samples").iterdir())] == [f"{n:08d}.png" for n in (0, 3, 6)]
        weights[devices] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert len((folder / "metrics.csv").read_text().splitlines()) == 4
    assert weights["1"].keys() == weights["2"].keys()
    options = ["--trainer.devices", "2", "--data.batch_size", "33", "--runs_dir", str(tmp_path / "none")]
    failed = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 2
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "--data.batch_size: expected a multiple of the number of processes (2), got 33" in errors[0]
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "none").exists()
