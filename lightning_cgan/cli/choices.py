"""What a run takes where nobody chose: what its checkpoint has, else what suits the machine."""

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

# Those that a checkpoint may choose; the others of Lightning's need packages, or options, of their own.
_PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true")


def saved_numerics(path: str) -> Numerics | None:
    """What decided the last bits of the run that wrote a checkpoint, read before there is a Trainer.

    Args:
        path: A file, or a URL.

    Returns:
        None if an older version of the package wrote it, or if it cannot be fetched, of which Lightning tells later.

    Raises:
        UsageError: The file is damaged, or would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come once more when Lightning reads it
            checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location=torch.device("cpu"))  # type: ignore[arg-type]
    except UsageError:
        raise
    except Exception:  # of servers, in many ways
        return None
    entry = checkpoint.get("lightning_cgan")
    numerics = entry.get("numerics") if isinstance(entry, dict) else None
    if numerics is not None:
        check_numerics(numerics)
    return numerics


def choose_precision(options: Namespace, saved: Numerics | None) -> None:
    """Chooses the precision, if none is given; `config.yaml` keeps it.

    Args:
        options: Those of the Trainer.
        saved: Of the checkpoint that the run resumes from.
    """
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
    """Chooses the number of CPU threads, if it is not given, nor set by OMP_NUM_THREADS, and sets it.

    It decides in what order sums are formed, and so the last bits of a run.

    Args:
        given: The number that the user wants.
        trainer: Will run the networks.
        networks: The generator and the discriminator.
        batch_size: The number of images in an update, over all processes.
        saved: Of the checkpoint that the run resumes from.

    Returns:
        The number; none where it is left to the environment, or where there is a GPU to do the work.
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
    if trainer.world_size > 1:  # else Lightning would choose once more, and the processes that it starts, too
        os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def _saved_threads(saved: Numerics | None, rank: int) -> int | None:
    """The threads that a process of this number had, if the machine has so many cores, whoever may use them now."""
    threads = [] if saved is None or saved["device"] != "cpu" else saved["threads"]
    return threads[rank] if rank < len(threads) and 1 <= threads[rank] <= (os.cpu_count() or 1) else None
