"""Defaults for precision, CPU threads and compilation: those of the checkpoint, else those that suit the machine."""

from __future__ import annotations

import math
import os
import warnings

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.hardware import available_cores, fastest_precision
from lightning_cgan.data import LabelledImages
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO
from lightning_cgan.training.checkpointing import renamed
from lightning_cgan.training.compilation import Compiled, has_compiler_for_cpu
from lightning_cgan.training.compile_choice import (
    DEVICES,
    count_graphs,
    is_dense,
    is_known,
    is_of_libraries,
    steps_to_repay,
)
from lightning_cgan.training.numerics import Numerics, check_numerics
from lightning_cgan.training.threads import fastest_threads, flops_of_step

# Precisions taken from a checkpoint; Lightning's others need extra packages or options.
_PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true")
# A run that a shorter time limit may end does not compile: that alone may take a tenth of it.
_FEWEST_SECONDS = 600


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
    return renamed(numerics)  # type: ignore[no-any-return]


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


def choose_compile(
    options: Namespace, trainer: Trainer, module: ConditionalGAN, data: LabelledImages, saved: Numerics | None
) -> Compiled:
    """Chooses what a `fit` compiles, which decides its last bits, and sets it in the module.

    A run that resumes from a checkpoint compiles what its run did; another one compiles its steps if that pays off.
    """
    reason = _why_compile(options, trainer, module, data)
    mode: Compiled = "step" if reason else "none"
    if saved is not None and saved["device"] == trainer.strategy.root_device.type:
        mode = _saved_mode(saved, trainer, module)
        if reason or mode != "none":
            reason = "as in the checkpoint"
    if reason:
        rank_zero_info(f"Compile {mode}, {reason}; --model.compile chooses another")
    module.compilation.choose(mode)
    return mode


def _why_compile(options: Namespace, trainer: Trainer, module: ConditionalGAN, data: LabelledImages) -> str | None:
    """The reason for compiling the steps of a run from its beginning to its end; None if there is none."""
    device = trainer.strategy.root_device.type
    if device not in DEVICES or (device == "cpu" and not has_compiler_for_cpu()) or options.trainer.detect_anomaly:
        return None
    if not is_known(module, trainer.callbacks) or module.compilation.obstacle(trainer):  # type: ignore[attr-defined]
        return None
    networks = module.generator, module.discriminator
    gflop = flops_of_step(*networks, data.batch_size) / 1e9
    fewest = steps_to_repay(gflop, is_dense(*networks), count_graphs(module))
    steps = _length_of_run(trainer, data, module.discriminator_steps, fewest)
    return f"since {steps:,} steps of {gflop:.2g} GFLOP repay the compilation" if fewest <= steps < math.inf else None


def _length_of_run(trainer: Trainer, data: LabelledImages, discriminator_steps: int, fewest: float) -> float:
    """The number of steps until the limits of a Trainer end a run; infinity if there are none, 0 if it has little time.

    The data are read only where `max_steps` allows at least `fewest` steps. Those of a data module of the user's, which
    may need a Trainer or have no length, are not: they count as 0.
    """
    left = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]  # type: ignore[attr-defined]
    if any(seconds is not None and seconds < _FEWEST_SECONDS for seconds in left):
        return 0
    steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if steps < fewest or fewest == math.inf or trainer.max_epochs in (None, -1):
        return steps
    if not all(map(is_of_libraries, (data.prepare_data, data.setup, data.train_dataloader))):
        return 0
    data.prepare_data()  # called by Lightning as well, once the training begins
    data.setup("fit")
    batches, limit = len(data.train_dataloader()) // discriminator_steps, trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return min(steps, trainer.max_epochs * batches)


def _saved_mode(saved: Numerics, trainer: Trainer, module: ConditionalGAN) -> Compiled:
    """What a resumed run compiles to have the last bits of an uninterrupted one, if that is possible here."""
    graph = saved["graph"]
    compiles = trainer.strategy.root_device.type != "cpu" or has_compiler_for_cpu()
    if graph == "networks" and compiles:
        return "networks"
    # A graph that is not compiled comes from a CPU without a compiler, or from `cuda_graph`, which is an option itself.
    is_possible = graph == ("step, compiled" if compiles else "step") and not module.compilation.obstacle(trainer)
    return "step" if is_possible else "none"
