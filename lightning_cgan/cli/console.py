"""What the command line says: mistakes in one line, and nothing about what is right as it is."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from traceback import extract_tb

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, callbacks

from lightning_cgan.cli.cluster import is_first_of_machine
from lightning_cgan.cli.trainer_messages import message_of_lightning
from lightning_cgan.core.errors import TrainingError, UsageError
from lightning_cgan.runs.folder import RunFolder
from lightning_cgan.runs.loggers import wandb_upload

# What a disk may say, and no fault of a program
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


@contextmanager
def command() -> Iterator[None]:
    """What every command runs in: quietly, with errors in one line, and nothing left behind in the process."""
    with as_it_was(), encodable(), quiet(), one_line_errors():
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Tells a mistake of the user's, or of the Trainer's options, in one line, and ends with exit code 2.

    A run that cannot go on ends with exit code 1, and so does one whose files cannot be written; after Ctrl-C, it is
    130.
    """
    try:
        yield
    except KeyboardInterrupt:  # before Lightning answers it, or after
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (UsageError, MisconfigurationException, TrainingError)):
            cause = cause.__cause__ or cause.__context__  # jsonargparse wraps what a constructor raises
        if cause is not None:
            told, code = message_of_lightning(cause) or str(cause), 1 if isinstance(cause, TrainingError) else 2
        elif about := message_of_lightning(error) or _of_wandb(error):
            told, code = about, 2
        elif about := _of_disk(error):
            told, code = about, 1
        else:
            raise
        # Before training, all processes fail alike; while it goes on, a file may be broken that one of them reads.
        if is_first_of_machine() or any(frame.name == "advance" for frame in extract_tb(error.__traceback__)):
            print(f"error: {' '.join(told.split())}", file=sys.stderr)
        raise SystemExit(code) from error


def _of_wandb(error: BaseException) -> str | None:
    """One line about what Weights & Biases does not take; none if the error is none of its own."""
    if type(error).__module__.startswith("wandb."):
        expected = f"expected a run that Weights & Biases takes, got its error ({error})"
        return f"--wandb: {expected}; mend that, or leave it out by --wandb.mode disabled"
    return None


def _of_disk(error: BaseException) -> str | None:
    """One line about a file that cannot be written; none if the error is another."""
    if isinstance(error, OSError) and error.errno in _OF_DISKS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; make room, or choose another place"
    return None


def refused_by_callback(error: Exception) -> str | None:
    """What a callback of Lightning's own says of its options, or of what it needs; none, if the error is another's."""
    frames = extract_tb(error.__traceback__)
    theirs = Path(callbacks.__file__).parent
    return " ".join(str(error).split()) if frames and Path(frames[-1].filename).is_relative_to(theirs) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back warnings about what is right as it is, and advertisements."""
    with warnings.catch_warnings():
        # jsonargparse and PyTorch about what Lightning does
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"\s*(By default|``)")
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        # a checkpoint written after a step is what it should be
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
        # the size of float32 weights is what matters
        warnings.filterwarnings("ignore", message="Precision bf16-mixed is not supported by the model summary")
        # a run goes on in its folder
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        # a run with the option `barebones` asks for that
        warnings.filterwarnings("ignore", message="You are trying to `self.log\\(\\)` but `Trainer\\(barebones=True")
        # a command that only looks at a run has no logger
        warnings.filterwarnings("ignore", message="You called `self.log.*have no logger configured")
        # a resumed run has a folder of its own, and such a command has none
        warnings.filterwarnings("ignore", message="The dirpath has changed from")
        # the first process scores for all
        warnings.filterwarnings("ignore", message="It is recommended to use `self.log")
        # the loaders cut batches out of memory: there is nothing for workers to do
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # a `predict` whose images are all there already
        warnings.filterwarnings("ignore", message="Total length of `.*` across ranks is zero")
        # a GPU machine's libraries on a machine without a GPU
        warnings.filterwarnings("ignore", message="No CUDA runtime is found|CUDA initialization: ")
        # a login node's program; where a run is alone, though SLURM gives it more, a line of ours says so
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        with ExitStack() as filtered:
            for name in _TALKATIVE:
                logger = logging.getLogger(name)
                logger.addFilter(_is_of_use)
                filtered.callback(logger.removeFilter, _is_of_use)
            yield


_TALKATIVE = (
    *("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch"),
    "torch.utils.cpp_extension",
)
_OF_NO_USE = (
    *("litlogger", "litmodels", "💡"),  # advertisements
    "TPU available: False",
    "No CUDA runtime is found",  # a GPU machine's libraries on a machine without a GPU
)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _OF_NO_USE)


@contextmanager
def as_it_was() -> Iterator[None]:
    """Leaves the process as it was found: the next command of a notebook gets what a new process would get.

    Environment, signals, the number of threads, and what the Trainer's options set for all of PyTorch.
    """
    environment = dict(os.environ)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            if not name.startswith("WANDB_SERVICE"):  # the service stays, and is found by it
                del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        for number, handler in handlers.items():
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


@contextmanager
def encodable() -> Iterator[None]:
    """Shows what a terminal's encoding lacks as escapes: the name of a class is no reason to end a run."""
    strict = [out for out in (sys.stdout, sys.stderr) if isinstance(out, TextIOWrapper) and out.errors == "strict"]
    for out in strict:
        out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for out in strict:
            with suppress(ValueError):  # closed
                out.reconfigure(errors="strict")


def last_words(trainer: Trainer, folder: RunFolder | None) -> None:
    """Says where the results of a run are: what is there, and nothing else."""
    if trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
        return
    place = folder.path if folder else Path(trainer.default_root_dir)
    pictures = [place / name for name in ("samples", "samples.gif", "curves.png") if (place / name).exists()]
    if pictures:
        print(f"Pictures: {', '.join(map(str, pictures))}")
    print(f"Checkpoint: {_last_checkpoint(trainer, place)}")
    if folder and (command := wandb_upload(folder.path)):
        print(f"Weights & Biases: to upload the run, {command}")


def _last_checkpoint(trainer: Trainer, place: Path) -> str:
    names = ("last_model_path", "best_model_path")
    written = [getattr(callback, name, "") for name in names for callback in trainer.checkpoint_callbacks]
    found = [file for file in (place / "checkpoints" / "last.ckpt", *written) if file and Path(file).exists()]
    if found:
        return str(found[0])
    return "none, since none could be written" if trainer.checkpoint_callbacks else "none, as the options ask"


def resume_words(trainer: Trainer, folder: RunFolder | None) -> None:
    """Says how to go on with a run that was stopped, if it has left a checkpoint."""
    saved = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    saved = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    checkpoint = next(filter(None, saved), None)
    if checkpoint:
        files = folder.path.glob("config*.yaml") if folder else ()
        written = max(files, key=lambda file: file.stat().st_mtime, default=None)
        config = f"--config {written}" if written else "(with the same options)"
        print(
            f"Stopped at step {trainer.global_step:,}. To go on:\n  python -m lightning_cgan fit "
            f"{config} --ckpt_path {checkpoint}"
        )
