"""What the command line says: mistakes in one line, and nothing about what is right as it is."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_tb

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_cgan.errors import TrainingError, UsageError
from lightning_cgan.launchers import is_first_of_machine
from lightning_cgan.trainer_messages import message_of_lightning

# What a disk may say, and no fault of a program
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


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


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back warnings about what is right as it is, and advertisements."""
    with warnings.catch_warnings():
        # jsonargparse and PyTorch about what Lightning does
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"\s*(By default|``)")
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        # a checkpoint written after an alternation is what it should be
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
        # the size of float32 weights is what matters
        warnings.filterwarnings("ignore", message="Precision bf16-mixed is not supported by the model summary")
        # a run goes on in its folder
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
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
        logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        logger.addFilter(_is_no_advertisement)
        try:
            yield
        finally:
            logger.removeFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()
