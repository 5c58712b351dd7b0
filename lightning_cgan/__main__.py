"""`python -m lightning_cgan`, and the console script `lightning-cgan`."""

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
    """This version, and those that a report of a fault should name; nothing of them is imported."""
    found = [f"{name} {version(name)}" for name in ("torch", "torchvision", "lightning", "torchmetrics", "wandb")]
    torch = find_spec("torch")
    text = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8") if torch and torch.origin else ""
    cuda = re.findall(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    system = f"Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}"
    return "\n".join([version("lightning_cgan"), *found, f"CUDA {cuda[0] if cuda else 'none'}", system])


def _have_a_backend() -> None:
    """Lets matplotlib be imported where a notebook hands on the name of a backend that this environment lacks."""
    if wanted := os.environ.pop("MPLBACKEND", None):
        import matplotlib

        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted
            os.environ["MPLBACKEND"] = wanted


def _have_a_home() -> None:
    """Lets libraries keep their caches in a folder for temporary files where there is no home that can be written to.

    Otherwise each of them complains, and some make a folder called `~`.
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
        if place != folder:  # somebody of no known name has no home
            os.makedirs(place, exist_ok=True)
            return os.access(place, os.W_OK)
    return False


def main() -> None:
    """Runs the command line; who stops it, or what reads its output, gets no traceback.

    Raises:
        SystemExit: As `cli.main.main`; with code 141 where nobody reads what is printed, as `| head` does.
    """
    try:
        _main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain as it ends
        raise SystemExit(128 + 13) from None  # SIGPIPE, which Windows has not


def _main() -> None:
    """Answers what needs no PyTorch at once, and hands everything else to the command line."""
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):  # an encoding that lacks a letter is no reason to end
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments == ["--version"]:
        print(_versions())
    else:
        with _ending_at_once():
            with suppress(OSError):  # nor a folder for temporary files
                _have_a_home()
            _have_a_backend()
            from lightning_cgan.cli.main import main as command_line
        command_line()


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Ends the process at Ctrl-C, without a word: libraries that are being imported would make a traceback of it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # nohup, or a program of one's own
        return
    signal.signal(signal.SIGINT, lambda *_: exit_at_once(128 + signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
