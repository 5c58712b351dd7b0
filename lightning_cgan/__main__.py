"""Entry point of `python -m lightning_cgan` and the console script `lightning-cgan`."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

from lightning_cgan.core.compat import exit_at_once

_KINDS_OF_WANDB = ("CACHE", "CONFIG", "DATA")
_HELP = """\
usage: python -m lightning_cgan COMMAND [--config FILE.yaml …] [--OPTION VALUE …]

Trains class-conditional GANs: choose a label, get an image of it.

commands:
  fit        train, and leave a folder with checkpoints, pictures and curves
  validate   losses and quick scores of a checkpoint on held-out images
  test       examine a checkpoint: every score beside what real images reach, in a report
  predict    make labelled images in bulk from a checkpoint
  generate   make images of chosen classes from a checkpoint: a sheet, a folder, arrays, a walk
  export     leave the generator of a checkpoint for others: ONNX, a PyTorch program, a folder for the Hugging Face Hub
  demo       show a page in the browser on which to choose a class and see images of it

options:
  -h, --help  this help; `COMMAND --help` lists the options of a command
  --version   the version, and those of PyTorch, Lightning and CUDA

example: python -m lightning_cgan fit --config digits
"""


def _versions() -> str:
    """Returns the versions that a bug report should name, without importing any of the packages."""
    found = [f"{name} {version(name)}" for name in ("torch", "torchvision", "lightning", "torchmetrics", "wandb")]
    torch = find_spec("torch")
    text = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8") if torch and torch.origin else ""
    cuda = re.findall(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    system = f"Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}"
    return "\n".join([version("lightning_cgan"), *found, f"CUDA {cuda[0] if cuda else 'none'}", system])


def _have_a_backend() -> None:
    """Imports matplotlib safely if a notebook passes on the name of a backend that this environment lacks."""
    if wanted := os.environ.pop("MPLBACKEND", None):
        import matplotlib

        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted
            os.environ["MPLBACKEND"] = wanted


def _have_a_home() -> None:
    """Moves the caches of libraries to a temporary folder if the home directory is missing or not writable.

    Otherwise each library would warn, and some would create a folder called `~`.
    """
    if os.name == "posix" and not all(map(_is_usable, ("~/.cache", "~/.config"))):
        folder = Path(tempfile.gettempdir()) / f"lightning_cgan-{os.getuid()}"
        for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", *(f"WANDB_{kind}_DIR" for kind in _KINDS_OF_WANDB)):
            place = folder / name.lower()
            place.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault(name, str(place))


def _is_usable(folder: str) -> bool:
    place = os.path.expanduser(folder)
    with suppress(OSError):
        if place != folder:  # a user without a passwd entry has no home
            os.makedirs(place, exist_ok=True)
            return os.access(place, os.W_OK)
    return False


def main() -> None:
    """Runs the command line; no traceback is shown when it is interrupted, or when its output is no longer read.

    Raises:
        SystemExit: As `cli.main.main`; with code 141 if the reader of its output has exited, such as `| head`.
    """
    try:
        _main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would report an error at exit
        raise SystemExit(128 + 13) from None  # SIGPIPE, which Windows does not have


def _main() -> None:
    """Answers `--help` and `--version` without importing PyTorch, and runs the command line for everything else."""
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):  # do not fail where the encoding lacks a character
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments == ["--version"]:
        print(_versions())
    else:
        with _ending_at_once():
            with suppress(OSError):  # no temporary folder either
                _have_a_home()
            _have_a_backend()
            from lightning_cgan.cli.main import main as command_line
        command_line()


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Exits silently at Ctrl-C; libraries being imported would otherwise turn it into a traceback."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # nohup, or a custom program
        return
    signal.signal(signal.SIGINT, lambda *_: exit_at_once(128 + signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
