"""Defaults for precision and CPU threads: those of the checkpoint, else those that suit the machine."""

from __future__ import annotations

import os
import warnings

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.utilities import rank_zero_info

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.hardware import available_cores, fastest_precision
from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO
from lightning_cgan.training.numerics import Numerics, check_numerics
from lightning_cgan.training.threads import fastest_threads

# Precisions taken from a checkpoint; Lightning's others need extra packages or options.
_PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true")


def saved_numerics(path: str) -> Numerics | None:
    """Reads from a checkpoint, a file or a URL, which settings decided the last bits of its run.

    None if an older version of the package wrote the checkpoint, or if it cannot be fetched, which Lightning reports.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # repeated when Lightning reads the file
            checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location=torch.device("cpu"))  # type: ignore[arg-type]
    except UsageError:
        raise
    except Exception:  # servers fail in many ways
        return None
    entry = checkpoint.get("lightning_cgan")
    numerics = entry.get("numerics") if isinstance(entry, dict) else None
    if numerics is not None:
        check_numerics(numerics)
    return numerics


def choose_precision(options: Namespace, saved: Numerics | None) -> None:
    """Sets the precision in the options of the Trainer if none is given; `config.yaml` records it."""
    if options.precision is not None or options.plugins:
        return
    if saved is not None and saved["precision"] in _PRECISIONS:
        options.precision, reason = saved["precision"], "as in the checkpoint"
    else:
        accelerator = options.accelerator
        if accelerator in ("auto", "gpu"):
            accelerator = "cuda" if torch.cuda.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"
        options.precision, reason = fastest_precision(str(accelerator))
        reason = f"since {reason}"
    rank_zero_info(f"Precision {options.precision}, {reason}; --trainer.precision chooses another")


def choose_threads(
    given: int | None,
    trainer: Trainer,
    networks: tuple[Generator, Discriminator],
    batch_size: int,
    saved: Numerics | None,
) -> int | None:
    """Sets the number of CPU threads, which decides the last bits of a run, since it changes the order of summation.

    If neither it nor OMP_NUM_THREADS is given, it is that of the checkpoint, or the fastest one for `batch_size` images
    over all processes.

    Returns:
        The number; None if OMP_NUM_THREADS decides it, or if the networks do not run on the CPU.
    """
    threads = given
    if threads is None:
        if "OMP_NUM_THREADS" in os.environ or trainer.strategy.root_device.type != "cpu":
            return None
        threads = _saved_threads(saved, trainer.global_rank)
        reason = ", as in the checkpoint"
        if threads is None:
            share, cores = batch_size // trainer.world_size, available_cores() // trainer.num_devices
            threads, reason = fastest_threads(*networks, share, trainer.precision, max(1, cores)), ""
        rank_zero_info(f"CPU threads: {threads}{reason}; --threads chooses another number")
    torch.set_num_threads(threads)
    if trainer.world_size > 1:  # else Lightning and the processes that it starts would set it again
        os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def _saved_threads(saved: Numerics | None, rank: int) -> int | None:
    """The threads of the process with this rank, if the machine has that many cores, whether or not they are free."""
    threads = [] if saved is None or saved["device"] != "cpu" else saved["threads"]
    return threads[rank] if rank < len(threads) and 1 <= threads[rank] <= (os.cpu_count() or 1) else None
