"""The processes that torchrun, SLURM or MPI have started, so that options need not repeat their number."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_info

from lightning_cgan.core.errors import UsageError

_STEPS_OF_SLURM_ITSELF = 0xFFFFFFF0  # the batch script and the shell of `salloc` have step numbers above it


def started_processes() -> tuple[int, int] | None:
    """The numbers of nodes and of processes per node; None if no launcher started this process.

    A config cannot contain them, since torchrun may start a different number after a restart.
    """
    if TorchElasticEnvironment.detect():
        return _number("GROUP_WORLD_SIZE"), _number("LOCAL_WORLD_SIZE")
    if _is_mpi():
        processes, each = _number("OMPI_COMM_WORLD_SIZE"), _number("OMPI_COMM_WORLD_LOCAL_SIZE")
        return _nodes("mpirun", processes, processes // each), each
    if _is_step_of_slurm():
        processes = _number("SLURM_NTASKS")
        nodes = _nodes("srun", processes, int(os.environ.get("SLURM_NNODES", "1")))
        return nodes, processes // nodes
    return None


def with_cluster(plugins: list[Any]) -> list[Any]:
    """Adds the cluster environment of the launcher to the plugins of a Trainer, unless they include one.

    In a SLURM job, Lightning would treat every process as one of several. It would also requeue the job from inside a
    signal handler, at any point of a step, with a checkpoint that all later runs would prefer to others. Here, the
    batch script requeues the job after the run has ended.
    """
    if TorchElasticEnvironment.detect() or any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        return plugins
    if _is_mpi():
        if not MPIEnvironment.detect():
            expected = "expected the package mpi4py to be installed, which connects the processes, got none"
            raise UsageError(f"mpirun: {expected}; pip install mpi4py, or start the processes with torchrun")
        return [*plugins, MPIEnvironment()]
    if not _is_step_of_slurm():
        if not _is_job_of_slurm():
            return plugins
        tasks = os.environ["SLURM_NTASKS"]
        if tasks != "1":
            rank_zero_info(f"SLURM: not started by srun, so this run has one process; `srun python …` starts {tasks}")
        return [*plugins, LightningEnvironment()]
    try:
        return [*plugins, SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # about `--ntasks` without `--ntasks-per-node`
        raise UsageError(f"srun: {error}") from error


def check_processes(environment: ClusterEnvironment, nodes: int, devices: int) -> None:
    """Refuses numbers of nodes, or of devices per node, for which Lightning would wait for processes forever."""
    if type(environment) is LightningEnvironment:
        _check_own_processes(nodes, devices)
    elif environment.creates_processes_externally:
        try:
            started = environment.world_size()
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"{error}: expected the variables of a launcher, got none; start it with torchrun"
            ) from error
        if started != nodes * devices:
            expected = f"expected {started} processes, as many as were started, got {nodes} × {devices}"
            raise UsageError(f"--trainer.num_nodes, --trainer.devices: {expected}; omit both")


def _check_own_processes(nodes: int, devices: int) -> None:
    """Raises an error if Lightning would wait forever, due to a missing or a stray environment variable."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if missing == ["NODE_RANK"] and "GROUP_RANK" in os.environ:
        missing = []
    if nodes > 1 and missing:
        expected = f"expected {', '.join(missing)} in the environment of each of {nodes} nodes, got none"
        raise UsageError(f"--trainer.num_nodes: {expected}; start it with srun or torchrun, or omit it")
    if nodes * devices > 1 and "LOCAL_RANK" in os.environ and "MASTER_PORT" in missing:
        expected = f"expected one of {devices} processes that a launcher has started, got no MASTER_PORT"
        raise UsageError(f"LOCAL_RANK={os.environ['LOCAL_RANK']}: {expected}; unset LOCAL_RANK, or use torchrun")


def _is_mpi() -> bool:
    # Under SLURM, Open MPI's daemons on other nodes are SLURM steps; the processes of `mpirun` are not.
    return os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1"


def _is_step_of_slurm() -> bool:
    # The batch script is a single process, although its SLURM_NTASKS is the number of all processes.
    step = os.environ.get("SLURM_STEP_ID", "")
    return _is_job_of_slurm() and step.isdecimal() and int(step) < _STEPS_OF_SLURM_ITSELF


def _is_job_of_slurm() -> bool:
    # `SLURMEnvironment.detect()` warns wherever SLURM is installed but not used.
    is_interactive = SLURMEnvironment.job_name() in ("bash", "interactive")
    return not TorchElasticEnvironment.detect() and "SLURM_NTASKS" in os.environ and not is_interactive


def _nodes(launcher: str, processes: int, nodes: int) -> int:
    if processes % nodes:
        expected = f"expected the same number of processes on each of {nodes} nodes, got {processes} in all"
        raise UsageError(f"{launcher}: {expected}; give a number for each node, as --ntasks-per-node does")
    return nodes


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal() or int(value) < 1:
        expected = "expected the number of processes that a launcher has started"
        raise UsageError(f"{variable}: {expected}, got {value or 'nothing'}; start it with torchrun or srun")
    return int(value)
