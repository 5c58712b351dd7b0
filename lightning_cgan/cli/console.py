"""The output of a command: errors in one line, and no expected warnings.

It does not import Lightning, but knows its errors where it has been imported.
"""

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
from importlib import import_module
from io import TextIOWrapper
from traceback import extract_tb
from types import ModuleType

import torch

from lightning_cgan.core.errors import TrainingError, UsageError

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
        # Importing Lightning takes seconds; without it, no error is Lightning's.
        lightning = import_module("lightning_cgan.cli.trainer_messages") if "lightning.pytorch" in sys.modules else None
        reported = _message_and_code(error, lightning)
        if reported is None:
            raise
        # Before training, all processes fail alike. During training, one alone may fail, such as on a broken file.
        message, code = reported
        if _is_first_of_machine() or any(frame.name == "advance" for frame in extract_tb(error.__traceback__)):
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(code) from error


def _is_first_of_machine() -> bool:
    """Whether this process is the first of its machine, which reports errors that all processes share."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))


def _message_and_code(error: BaseException, lightning: ModuleType | None) -> tuple[str, int] | None:
    """The line about an error, and the exit code; None for an error of the program."""
    known = (UsageError, TrainingError, *((lightning.MisconfigurationException,) if lightning else ()))
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, known):
        cause = cause.__cause__ or cause.__context__  # jsonargparse wraps errors of constructors
    of_lightning = lightning.message_of_lightning(cause or error) if lightning else None
    if cause is not None:
        return of_lightning or str(cause), 1 if isinstance(cause, TrainingError) else 2
    if found := of_lightning or _message_of_wandb(error):
        return found, 2
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror}; free disk space, or choose another folder", 1
    return None


def _message_of_wandb(error: BaseException) -> str | None:
    """One line about an error of Weights & Biases; None for any other error."""
    if not type(error).__module__.startswith("wandb."):
        return None
    expected = f"expected options that Weights & Biases accepts, got its error ({error})"
    return f"--wandb: {expected}; change them, or disable it with --wandb.mode disabled"


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
    deterministic = _deterministic()
    benchmark = torch.backends.cudnn.benchmark
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            if not name.startswith("WANDB_SERVICE"):  # the service keeps running; the variable locates it
                del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if deterministic != _deterministic():  # setting it imports the compiler, which takes a second
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None and handler is not signal.getsignal(number):
                    signal.signal(number, handler)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


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
