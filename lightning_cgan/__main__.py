"""Entry point of `python -m lightning_cgan` and the console script `lightning-cgan`."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
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
  fit        train, and write a folder with checkpoints, sample grids and curves
  validate   losses and quick scores of a checkpoint on held-out images
  test       score a checkpoint in full: a report with every score, next to that of real images
  predict    make many labelled images from a checkpoint
  generate   make images of chosen classes from a checkpoint: a sheet, a folder, arrays, a walk
  invert     find the latents of given images, to make other images from them
  export     write the generator of a checkpoint as ONNX, a PyTorch program or a folder for the Hugging Face Hub
  demo       serve a web page that shows images of a chosen class
  search     try values of options, one `fit` after another, and write the config of the best

options:
  -h, --help  print this help; `COMMAND --help` lists the options of a command
  --version   print the version, and those of PyTorch, Lightning and CUDA

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


def _check_backend() -> None:
    """Imports matplotlib safely if a notebook names a backend in MPLBACKEND that this environment lacks."""
    if wanted := os.environ.pop("MPLBACKEND", None):
        import matplotlib

        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted
            os.environ["MPLBACKEND"] = wanted


def _check_home() -> None:
    """Moves the caches of libraries to a temporary folder if the home directory is missing or not writable.

    Otherwise each library would warn, and some would create a folder called `~`.
    """
    if os.name == "posix" and not all(map(_is_usable, ("~/.cache", "~/.config"))):
        folder = Path(tempfile.gettempdir()) / f"lightning_cgan-{os.getuid()}"
        for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", *(f"WANDB_{kind}_DIR" for kind in _KINDS_OF_WANDB)):
            cache = folder / name.lower()
            cache.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault(name, str(cache))


def _is_usable(folder: str) -> bool:
    path = os.path.expanduser(folder)
    with suppress(OSError):
        if path != folder:  # a user without a passwd entry has no home
            os.makedirs(path, exist_ok=True)
            return os.access(path, os.W_OK)
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
        with _quiet_interrupts():
            with suppress(OSError):  # no temporary folder either
                _check_home()
            _check_backend()
            run = _command_line(arguments)
        run()


def _command_line(arguments: list[str]) -> Callable[[], None]:
    """Imports what runs the command line; importing Lightning would double the time of a `generate`."""
    from lightning_cgan.cli.parser import FUNCTIONS, call_function

    if arguments[0] in FUNCTIONS:
        return partial(call_function, arguments)
    from lightning_cgan.cli.main import main

    return main


@contextmanager
def _quiet_interrupts() -> Iterator[None]:
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
