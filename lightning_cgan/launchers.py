"""What torchrun or SLURM have started, so that a command line need not say it again."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lightning_cgan.errors import UsageError


def started_processes() -> tuple[int, int] | None:
    """The number of nodes, and that of processes on each; none if this process was started alone.

    torchrun may start another number of them after a restart, so no config could hold it.
    """
    if TorchElasticEnvironment.detect():
        return int(os.environ["GROUP_WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if _is_step_of_slurm():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return nodes, int(os.environ["SLURM_NTASKS"]) // nodes
    return None


def with_cluster(plugins: list[Any]) -> list[Any]:
    """Adds to the plugins of a Trainer what it needs to know of SLURM, if that has started the process.

    Lightning would requeue the job itself, from inside a handler of the signal, wherever the run is at that moment, and
    with a checkpoint that is found before all others for ever after. The batch script does it here, once the run ended.

    Args:
        plugins: Those that are given; one of a cluster among them stays the only one.

    Raises:
        UsageError: SLURM was told the number of processes in a way that Lightning cannot use.
    """
    if not _is_step_of_slurm() or any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        return plugins
    try:
        return [*plugins, SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # about `--ntasks` without `--ntasks-per-node`
        raise UsageError(f"srun: {error}") from error


def is_first_of_machine() -> bool:
    """Whether a message of all processes of a machine is this one's to tell."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))


def _is_step_of_slurm() -> bool:
    # Lightning's own question warns wherever SLURM is installed, and not used.
    is_interactive = SLURMEnvironment.job_name() in ("bash", "interactive")
    return not TorchElasticEnvironment.detect() and "SLURM_NTASKS" in os.environ and not is_interactive
