"""The folder of a run, and the loggers that write there."""

from __future__ import annotations

import netrc
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.errors import UsageError, check_name, kind_of
from lightning_cgan.metrics_file import MetricsFile

WandbMode = Literal["auto", "online", "offline", "disabled"]

# Who names a file of these kinds does not want a folder of that name.
_KINDS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp"),
    *(".avi", ".mov", ".mp4", ".webm", ".csv", ".json", ".yaml", ".tar", ".gz", ".zip", ".bin", ".h5"),
    *(".npy", ".npz", ".ckpt", ".onnx", ".pt", ".pt2", ".pth", ".pkl", ".safetensors"),
)


def name_of(configs: Iterable[str]) -> str:
    """The name of a run: that of the first of its configs that is not for laying over others."""
    files = [Path(config) for config in configs]
    named = [file for file in files if file.parent.name != "with"] or files
    return named[0].stem if named else "run"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, which is there.

    Attributes:
        path: The folder.
        is_resumed: Whether it is that of an earlier run, which goes on there.
        made: What was made for it, from itself upwards.
    """

    path: Path
    is_resumed: bool = False
    made: tuple[Path, ...] = ()

    def discard(self) -> None:
        """Removes a folder that was made for this run, and those above that were and hold nothing else."""
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)
        for folder in self.made[1:]:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()


def new_run_folder(runs_dir: str, name: str) -> RunFolder:
    """Makes the folder of a new run, `<runs_dir>/<name>/<time>`, which no other run gets.

    Raises:
        UsageError: It cannot be made.
    """
    folder = Path(runs_dir) / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    missing = [above for above in folder.parents if not os.path.lexists(above)]
    for attempt in count(1):
        chosen = folder if attempt == 1 else folder.with_name(f"{folder.name}_{attempt}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            chosen.mkdir()  # of several runs that try at once, one succeeds
        except OSError as error:
            is_taken = isinstance(error, FileExistsError) and folder.parent.is_dir()
            # Another run that failed may have taken its folders away, since.
            may_be_gone = isinstance(error, (FileExistsError, FileNotFoundError)) and attempt < 100
            if not (is_taken or may_be_gone):
                raise _unwritable(chosen, f"which cannot be made ({error.strerror})") from error
        else:
            return RunFolder(chosen, made=(chosen, *missing))
    raise AssertionError


def _unwritable(place: Path, reason: str, option: str = "--runs_dir") -> UsageError:
    return UsageError(f"{option}: expected a folder to write to, got {place}, {reason}; name another")


def check_writable(folder: Path, option: str = "--runs_dir") -> None:
    """Refuses a folder that could not be written to.

    Args:
        folder: The folder; it need not exist.
        option: The option that names it.

    Raises:
        UsageError: It, or the nearest folder above that exists, may not be written to, or is a file.
    """
    existing = next(path for path in (folder, *folder.resolve().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise _unwritable(existing, "which is not", option)


def check_place(
    place: Path, wants_folder: bool, overwrite: bool, is_ours: Callable[[Path], bool], contents: str
) -> None:
    """Refuses a place for what `--out` names, where something is that may not be replaced.

    Args:
        place: The file or folder to write.
        wants_folder: Whether it is a folder.
        overwrite: Whether what is there may be replaced.
        is_ours: Whether something in the folder may be removed.
        contents: What the folder may hold, in the words of the error.

    Raises:
        UsageError: The place is taken, cannot be written to, or is a folder named like a file of another kind.
    """
    if place.name:
        check_name("--out", place.name)
    kind = kind_of(place)
    if not place.name or place.is_symlink() or kind not in (None, "a folder"):
        which = "" if kind in (None, "a folder") else f", which is {kind}"
        which = which or (", which is a link" if place.is_symlink() else "")
        raise UsageError(f"--out: expected the name of a file or of a folder, got {str(place)!r}{which}; name one")
    if wants_folder and place.suffix.lower() in _KINDS:
        expected = "expected a kind of file that this command writes, or a folder"
        raise UsageError(f"--out: {expected}, got {place}; choose an ending that --help names, or none")
    check_writable(place.parent, "--out")
    if not place.exists() or (place.is_dir() and wants_folder and not any(place.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"--out: expected a new name, got {place}, which exists; name another, or --overwrite")
    if place.is_dir() != wants_folder:
        kind = "folder" if wants_folder else "file"
        raise UsageError(f"--out: expected a {kind} in the place of a {kind}, got {place}; name another")
    if wants_folder and not all(map(is_ours, place.iterdir())):
        raise UsageError(f"--out: expected nothing but {contents} there, got {place}; name another")


def folder_of_run(checkpoint: str | None, runs_dir: str, name: str) -> RunFolder:
    """The folder of a run: that of an earlier one, which goes on there, or a new one.

    Of several processes, only the first may ask; the others learn it from the Trainer (`callbacks/base.py`).

    Raises:
        UsageError: It could not be written to.
    """
    old = folder_that_goes_on(checkpoint, runs_dir, name)
    check_writable(old or Path(runs_dir) / name)
    return RunFolder(old, is_resumed=True) if old else new_run_folder(runs_dir, name)


def newest_checkpoint(runs_dir: str, name: str) -> Path | None:
    """The `last.ckpt` that was written last of all runs of a name, if there is one."""
    checkpoints = Path(runs_dir, name).glob("*/checkpoints/last.ckpt")
    return max(checkpoints, key=lambda file: file.stat().st_mtime, default=None)


def folder_that_goes_on(checkpoint: str | None, runs_dir: str, name: str) -> Path | None:
    """The folder of the run that a checkpoint is the end of; none if it is another's, or not the last of its run."""
    if checkpoint is None or Path(checkpoint).name != "last.ckpt":
        return None
    checkpoints = Path(checkpoint).resolve().parent
    is_ours = checkpoints.name == "checkpoints" and checkpoints.parents[1] == Path(runs_dir, name).resolve()
    return Path(runs_dir, name, checkpoints.parent.name) if is_ours else None


def loggers(
    folder: Path, name: str, given: Logger | Iterable[Logger] | bool | None, wandb: Namespace, tensorboard: bool
) -> list[Logger]:
    """The loggers of a run, that of its table before the others: it says where the folder is.

    Args:
        folder: The folder of the run.
        name: The name of the run.
        given: The user's own, as the Trainer takes them.
        wandb: The options of `wandb_logger`. A user's own logger for W&B takes its place: a process has one run there.
        tensorboard: Whether TensorBoard's files go to `tensorboard/` in the folder.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    own = [given] if isinstance(given, Logger) else [] if given is None or isinstance(given, bool) else list(given)
    found = [] if any(isinstance(logger, WandbLogger) for logger in own) else [wandb_logger(folder, name, **wandb)]
    if tensorboard:
        found.append(_tensorboard_logger(folder))
    return [MetricsFile(folder), *(logger for logger in found if logger is not None), *own]


def _tensorboard_logger(folder: Path) -> Logger:
    try:
        return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise UsageError(
            "--tensorboard: expected TensorBoard to be installed, got no such package; `pip install tensorboard`"
        ) from error


def wandb_logger(
    folder: Path,
    name: str,
    mode: WandbMode = "auto",
    project: str = "lightning_cgan",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
) -> Logger | None:
    """Logs a run to Weights & Biases, and never asks a question.

    Args:
        folder: The folder of the run, which W&B's files go to as well.
        name: The name of the run.
        mode: `auto` follows the environment variable WANDB_MODE if it is set; else it is online where an API key is
            configured (WANDB_API_KEY, or a line in the netrc file that `wandb login` writes), and offline elsewhere.
            An offline run can be uploaded later with `wandb sync`.
        project: The project that the run belongs to.
        entity: The user or team that owns the project.
        group: Joins runs that belong together.
        tags: Marks the run for searches.

    Returns:
        The logger; none where W&B is disabled.
    """
    if mode == "auto":
        mode = _mode_of_environment()
    if mode == "disabled":
        return None
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
        resume=None if mode == "offline" else "allow",  # which W&B would warn of
        # Offline it would say again and again how to go online; else its links stay, but no tips and no summary.
        settings={"silent": True} if mode == "offline" else {"quiet": True},
    )
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)  # Lightning always hands it on, of which W&B warns
    return logger


@contextmanager
def ended_wandb_run() -> Iterator[None]:
    """Ends the run of Weights & Biases that begins within; the next one of the process would log into it.

    One that had begun before is its owner's.
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
            except Exception as error:  # as without a network
                rank_zero_warn(f"Weights & Biases did not end its run: {error}")


def _wandb_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


def wandb_upload(folder: Path) -> str | None:
    """The command that uploads what Weights & Biases has kept offline in the folder of a run, if there is something."""
    pattern = "wandb/offline-run-*"  # one for each time that the run went on
    return f"wandb sync {shlex.quote(str(folder))}/{pattern}" if any(folder.glob(pattern)) else None


def _wandb_id(folder: Path) -> str | None:
    """The id of the run that W&B has kept in a folder named like `offline-run-20261124_200508-k3j2h1g0`."""
    return next((found.name.rpartition("-")[2] for found in folder.glob("wandb/*run-*-*")), None)


def _mode_of_environment() -> WandbMode:
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted in ("online", "run", "shared"):
        return "online"
    if wanted in ("offline", "dryrun"):
        return "offline"
    if wanted == "disabled":
        return "disabled"
    return "online" if _has_wandb_key() else "offline"


def _has_wandb_key() -> bool:
    """Whether W&B would find an API key. W&B's own check for one changes from release to release, and may prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and netrc.netrc(os.path.expanduser(file)).authenticators(host):
                return True
        except (OSError, ValueError, netrc.NetrcParseError):  # ValueError: no text
            continue
    return False
