"""The loggers of a run: its CSV table, Weights & Biases and TensorBoard."""

from __future__ import annotations

import netrc
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cgan.core.compat import forget_anonymous
from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import pil_image
from lightning_cgan.runs.csv_logger import MetricsFile

WandbMode = Literal["auto", "online", "offline", "disabled"]


def loggers(
    folder: Path, name: str, given: Logger | Iterable[Logger] | bool | None, wandb: Namespace, tensorboard: bool
) -> list[Logger]:
    """The loggers of a run; the CSV table is first, since it determines the folder.

    `wandb` holds the options of `wandb_logger`; a W&B logger among the given ones replaces it, since a process has one.
    """
    own = [given] if isinstance(given, Logger) else [] if given is None or isinstance(given, bool) else list(given)
    found: list[Logger | None] = []
    if not any(isinstance(logger, WandbLogger) for logger in own):
        found.append(wandb_logger(folder, name, **wandb))
    if tensorboard:
        try:
            found.append(TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False))
        except ModuleNotFoundError as error:
            expected = "expected the package tensorboard to be installed, got none"
            raise UsageError(f"--tensorboard: {expected}; pip install tensorboard") from error
    return [MetricsFile(folder), *(logger for logger in found if logger is not None), *own]


def wandb_logger(
    folder: Path,
    name: str,
    mode: WandbMode = "auto",
    project: str = "lightning_cgan",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
) -> Logger | None:
    """Logs a run to Weights & Biases, without interactive prompts.

    Args:
        folder: The folder of the run, also for W&B's files.
        name: The name of the run.
        mode: `auto` follows the environment variable WANDB_MODE if it is set; else it is online if an API key is
            configured (WANDB_API_KEY, or a line in the netrc file that `wandb login` writes), and offline otherwise. An
            offline run can be uploaded later with `wandb sync`. Without the package wandb, it logs nothing there.
        project: The project of the run.
        entity: The user or team that owns the project.
        group: The group of related runs.
        tags: Tags of the run, for searches.
    """
    found = find_spec("wandb")
    is_installed = found is not None and found.origin is not None  # unlike the folder wandb that a run leaves
    if mode == "auto":
        mode = _mode_of_environment() if is_installed else "disabled"
    if mode == "disabled":
        return None
    if not is_installed:
        raise UsageError(
            f"--wandb.mode: expected the package wandb to be installed for {mode}, got none; pip install wandb, or "
            "give disabled"
        )
    logger = WandbLogger(
        name=name,
        save_dir=folder,
        project=project,
        entity=entity,
        group=group,
        tags=tags,
        mode=mode,
        log_model=False,
        id=_wandb_id(folder),
        resume=None if mode == "offline" else "allow",  # offline, W&B would warn about it
        # Offline, W&B would repeat how to go online. Online, its links are shown, but not its tips and summary.
        settings={"silent": True} if mode == "offline" else {"quiet": True},
    )
    forget_anonymous(logger)
    return logger


def log_picture(logger: Logger, name: str, picture: Tensor, step: int) -> None:
    """Sends a picture, shape (C, H, W), uint8, to a logger; nothing to those that take none.

    A custom logger gets it if it has a method `log_image(key, images, step)`, as `WandbLogger` has.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pil_image(picture), key=name, step=step)
    elif callable(log_image := getattr(logger, "log_image", None)):
        log_image(name, [pil_image(picture)], step=step)


@contextmanager
def ended_wandb_run() -> Iterator[None]:
    """Ends a Weights & Biases run that begins within; else the next run of the process would log into it.

    A run that began before is left open, for its owner to end.
    """
    before, failed = _wandb_run(), True
    try:
        yield
        failed = False
    finally:
        after = _wandb_run()
        if after is not None and after is not before:
            try:
                after.finish(exit_code=int(failed))
            except Exception as error:  # such as a missing network
                rank_zero_warn(f"Weights & Biases did not end its run: {error}")


def _wandb_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


def wandb_upload(folder: Path) -> str | None:
    """The command that uploads a run's offline Weights & Biases data, if there are any."""
    pattern = "wandb/offline-run-*"  # one for each time that the run was resumed
    return f"wandb sync {shlex.quote(str(folder))}/{pattern}" if any(folder.glob(pattern)) else None


def _wandb_id(folder: Path) -> str | None:
    """The id of the W&B run stored in a folder named like `offline-run-20261124_200508-k3j2h1g0`."""
    return next((found.name.rpartition("-")[2] for found in folder.glob("wandb/*run-*-*")), None)


def _mode_of_environment() -> WandbMode:
    modes: dict[str, WandbMode] = dict.fromkeys(("online", "run", "shared"), "online")
    modes |= {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}
    wanted = os.environ.get("WANDB_MODE", "").lower()
    return modes.get(wanted) or ("online" if _has_wandb_key() else "offline")


def _has_wandb_key() -> bool:
    """Whether W&B would find an API key; its own check changes between releases, and may prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and netrc.netrc(os.path.expanduser(file)).authenticators(host):
                return True
        except (OSError, ValueError, netrc.NetrcParseError):  # ValueError: not text
            continue
    return False
