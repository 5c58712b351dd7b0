"""The output of a command: errors in one line, no expected warnings, and where the results are."""

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

from lightning_cgan.callbacks.signals import STOP_SIGNALS
from lightning_cgan.cli.cluster import is_first_of_machine
from lightning_cgan.cli.trainer_messages import message_of_lightning
from lightning_cgan.core.errors import TrainingError, UsageError
from lightning_cgan.runs.folder import RunFolder, resume_command
from lightning_cgan.runs.loggers import wandb_upload

# Errors of the disk, not of the program
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


@contextmanager
def command() -> Iterator[None]:
    """The context of every command: expected warnings are silenced, errors are one line, process state is restored."""
    with restored_state(), encodable(), quiet(), one_line_errors():
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Reports errors in one line: a usage error, also in the options of the Trainer, ends with exit code 2.

    The exit code is 1 if a run cannot continue or its files cannot be written, and 130 after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:  # outside of Lightning's own handling
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (UsageError, MisconfigurationException, TrainingError)):
            cause = cause.__cause__ or cause.__context__  # jsonargparse wraps errors of constructors
        if cause is not None:
            message, code = message_of_lightning(cause) or str(cause), 1 if isinstance(cause, TrainingError) else 2
        elif found := message_of_lightning(error) or _message_of_wandb(error):
            message, code = found, 2
        elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            file = f"{error.filename}: " if error.filename else ""
            message, code = f"{file}{error.strerror}; free disk space, or choose another folder", 1
        else:
            raise
        # Before training, all processes fail alike. During training, one alone may fail, such as on a broken file.
        if is_first_of_machine() or any(frame.name == "advance" for frame in extract_tb(error.__traceback__)):
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(code) from error


def _message_of_wandb(error: BaseException) -> str | None:
    """One line about an error of Weights & Biases; None for any other error."""
    if not type(error).__module__.startswith("wandb."):
        return None
    expected = f"expected options that Weights & Biases accepts, got its error ({error})"
    return f"--wandb: {expected}; change them, or disable it with --wandb.mode disabled"


def message_of_callback(error: Exception) -> str | None:
    """The message of an error that one of Lightning's callbacks has raised; None for any other error."""
    file = Path(extract_tb(error.__traceback__)[-1].filename)
    return " ".join(str(error).split()) if file.is_relative_to(Path(callbacks.__file__).parent) else None


_EXPECTED_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning uses deprecated parts of PyTorch
    "Using ModelCheckpoint with manual optimization",  # checkpoints are written after whole steps, as they should be
    "Precision bf16-mixed is not supported by the model summary",  # the size of the float32 weights is what matters
    "Checkpoint directory .* exists and is not empty",  # a run resumes in its folder
    r"You are trying to `self.log\(\)` but `Trainer\(barebones=True",  # the option `barebones` implies it
    "You called `self.log.*have no logger configured",  # commands other than `fit` have no logger
    "The dirpath has changed from",  # a resumed run may have a new folder, and commands other than `fit` have none
    "It is recommended to use `self.log",  # the first process computes the scores for all
    "The number of training batches .* is smaller than the logging interval",  # steps are counted over epochs
    ".*does not have many workers",  # the loaders slice batches from memory, which needs no workers
    "Total length of `.*` across ranks is zero",  # all images of a `predict` exist already
    "No CUDA runtime is found|CUDA initialization: ",  # PyTorch with CUDA on a machine without a GPU
    "The `srun` command is available",  # login nodes have it; cluster.py reports a single process in a larger job
)
_LOGGERS = (
    *("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch"),
    "torch.utils.cpp_extension",
)
_SILENCED = (
    *("litlogger", "litmodels", "💡"),  # product tips
    "TPU available: False",
    "No CUDA runtime is found",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings that are expected here, and Lightning's product tips."""
    with warnings.catch_warnings(), ExitStack() as filtered:
        # Lightning uses deprecated parts of jsonargparse.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"\s*(By default|``)")
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addFilter(_is_useful)
            filtered.callback(logger.removeFilter, _is_useful)
        yield


def _is_useful(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _SILENCED)


@contextmanager
def restored_state() -> Iterator[None]:
    """Restores environment, signal handlers, threads and PyTorch's settings, for the next command in a notebook."""
    environment = dict(os.environ)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            if not name.startswith("WANDB_SERVICE"):  # the service keeps running; the variable locates it
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
    """Prints characters that the terminal's encoding lacks as escapes, so that a class name cannot end a run."""
    strict = [out for out in (sys.stdout, sys.stderr) if isinstance(out, TextIOWrapper) and out.errors == "strict"]
    for out in strict:
        out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for out in strict:
            with suppress(ValueError):  # closed
                out.reconfigure(errors="strict")


def print_results(trainer: Trainer, folder: RunFolder | None) -> None:
    """Prints where the results of a run are, listing only files that exist."""
    if trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
        return
    run = folder.path if folder else Path(trainer.default_root_dir)
    pictures = [run / name for name in ("samples", "samples.gif", "curves.png") if (run / name).exists()]
    if pictures:
        print(f"Pictures: {', '.join(map(str, pictures))}")
    if (run / "index.html").exists():
        print(f"Page for a browser: {run / 'index.html'}")
    print(f"Checkpoint: {_last_checkpoint(trainer, run)}")
    if folder and (command := wandb_upload(folder.path)):
        print(f"Weights & Biases: to upload the run, {command}")


def _last_checkpoint(trainer: Trainer, run: Path) -> str:
    names = ("last_model_path", "best_model_path")
    written = [getattr(callback, name, "") for name in names for callback in trainer.checkpoint_callbacks]
    found = [file for file in (run / "checkpoints" / "last.ckpt", *written) if file and Path(file).exists()]
    if found:
        return str(found[0])
    return (
        "none, since none could be written" if trainer.checkpoint_callbacks else "none, since checkpoints are disabled"
    )


def print_resume_command(trainer: Trainer, folder: RunFolder | None) -> None:
    """Prints how to resume a stopped run, if it has a checkpoint."""
    saved = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    checkpoint = next(filter(None, saved), None)
    if checkpoint:
        print(f"Stopped at step {trainer.global_step:,}. To resume:")
        print(f"  {resume_command(folder.path if folder else None, checkpoint)}")
