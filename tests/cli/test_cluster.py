"""Who has started a process: it waits for others only where somebody starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from helpers.paths import DIGITS
from lightning_cgan import UsageError
from lightning_cgan.cli import cluster as launchers
from lightning_cgan.cli.cluster import check_processes, started_processes, with_cluster

BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
BATCH |= {"SLURM_NNODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "3"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "4",
    "WORLD_SIZE": "8",
    "RANK": "0",
}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "6", "OMPI_COMM_WORLD_LOCAL_SIZE": "3"}

SetEnvironment = Callable[[dict[str, str]], None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    """Sets variables, and no others of launchers."""
    beginnings = ("SLURM_", "OMPI_", "JSM_", "TORCHELASTIC_", "MASTER_", "WORLD_", "GROUP_", "LOCAL_", "NODE_", "RANK")
    for name in [name for name in os.environ if name.startswith(beginnings)]:
        monkeypatch.delenv(name)

    def put(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("variables", "started"),
    [
        ({}, None),
        (BATCH, None),  # the batch script, where srun was forgotten
        ({**BATCH, "SLURM_STEP_ID": "4294967291"}, None),  # SLURM's own number for that
        ({**BATCH, "SLURM_STEP_ID": "4294967290"}, None),  # the shell of `salloc`
        ({**STEP, "SLURM_JOB_NAME": "bash"}, None),  # Lightning's words for who wants none of it
        ({**STEP, "SLURM_JOB_NAME": "interactive"}, None),
        (STEP, (1, 2)),
        ({**STEP, "SLURM_NTASKS": "1"}, (1, 1)),
        ({**STEP, "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, (2, 4)),
        (TORCHRUN, (2, 4)),
        ({**BATCH, **TORCHRUN}, (2, 4)),
        ({**STEP, **TORCHRUN}, (2, 4)),
        (MPIRUN, (2, 3)),
        ({**STEP, **MPIRUN}, (2, 3)),  # the processes of mpirun on another node come from a step
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"RANK": "1"}, None),
        ({"WORLD_SIZE": "4", "RANK": "1"}, None),
    ],
)
def test_who_has_started_it(
    environment: SetEnvironment, variables: dict[str, str], started: tuple[int, int] | None
) -> None:
    environment(variables)
    assert started_processes() == started


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x"},
            "GROUP_WORLD_SIZE: expected the number of processes that a launcher has started, ",
        ),
        (
            {**TORCHRUN, "LOCAL_WORLD_SIZE": "0"},
            "LOCAL_WORLD_SIZE: expected the number of processes that a launcher has ",
        ),
        (
            {**STEP, "SLURM_NTASKS": "3", "SLURM_NNODES": "2"},
            "srun: expected the same number of processes on each of 2 nodes, got 3",
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": "2"},
            "OMPI_COMM_WORLD_LOCAL_SIZE: expected the number of processes that a launcher ",
        ),
    ],
)
def test_half_set_variables(environment: SetEnvironment, variables: dict[str, str], message: str) -> None:
    environment(variables)
    with pytest.raises(UsageError) as refused:
        started_processes()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        ({}, []),
        (BATCH, [LightningEnvironment]),
        (STEP, [SLURMEnvironment]),
        ({**BATCH, **TORCHRUN}, []),
        ({**STEP, "SLURM_JOB_NAME": "bash"}, []),
    ],
)
def test_what_the_trainer_is_told(environment: SetEnvironment, variables: dict[str, str], kinds: list[type]) -> None:
    environment(variables)
    assert [type(plugin) for plugin in with_cluster([])] == kinds
    own = LightningEnvironment()
    assert with_cluster([own]) == [own]


def test_mpi_needs_its_package(environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(MPIRUN)
    monkeypatch.setattr(MPIEnvironment, "detect", lambda: False)
    with pytest.raises(
        UsageError, match="^mpirun: expected the package mpi4py to be installed, .*; pip install mpi4py, or start"
    ):
        with_cluster([])


@pytest.mark.parametrize(
    ("variables", "kind", "nodes", "devices", "message"),
    [
        ({}, LightningEnvironment, 1, 2, None),
        (
            {},
            LightningEnvironment,
            2,
            1,
            "--trainer.num_nodes: expected MASTER_ADDR, MASTER_PORT, NODE_RANK in the env",
        ),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1", "GROUP_RANK": "1"}, LightningEnvironment, 2, 1, None),
        (
            {"MASTER_ADDR": "a", "NODE_RANK": "1"},
            LightningEnvironment,
            2,
            1,
            "--trainer.num_nodes: expected MASTER_PORT",
        ),
        ({"LOCAL_RANK": "0"}, LightningEnvironment, 1, 1, None),
        (
            {"LOCAL_RANK": "0"},
            LightningEnvironment,
            1,
            2,
            "LOCAL_RANK=0: expected one of 2 processes that a launcher has",
        ),
        ({"LOCAL_RANK": "1", "MASTER_PORT": "1"}, LightningEnvironment, 1, 2, None),
        (STEP, SLURMEnvironment, 1, 2, None),
        (STEP, SLURMEnvironment, 1, 1, "--trainer.num_nodes, --trainer.devices: expected 2 processes, as many as were"),
        (
            TORCHRUN,
            TorchElasticEnvironment,
            1,
            4,
            "--trainer.num_nodes, --trainer.devices: expected 8 processes, as many",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x"},
            TorchElasticEnvironment,
            1,
            1,
            "'WORLD_SIZE': expected the variables of a launcher",
        ),
    ],
)
def test_nobody_waits_for_ever(
    environment: SetEnvironment, variables: dict[str, str], kind: Any, nodes: int, devices: int, message: str | None
) -> None:
    environment(variables)
    if message is None:
        check_processes(kind(), nodes, devices)
        return
    with pytest.raises(UsageError) as refused:
        check_processes(kind(), nodes, devices)
    assert str(refused.value).startswith(message)


def test_jsrun_counts_too(environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment({"JSM_NAMESPACE_SIZE": "4"})
    monkeypatch.setattr(LSFEnvironment, "__init__", lambda self: None)
    check_processes(LSFEnvironment(), 2, 2)
    with pytest.raises(UsageError, match="expected 4 processes, as many as were started, got 1 × 1; omit both"):
        check_processes(LSFEnvironment(), 1, 1)


def test_a_batch_script_without_srun_trains_alone(
    environment: SetEnvironment, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(launchers, "rank_zero_info", said.append)
    environment(BATCH)
    folder = run("--trainer.max_steps", "1", "--scores.images", "0", config=DIGITS)
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert said == ["SLURM: not started by srun, so this run has one process; `srun python …` starts 2"]
