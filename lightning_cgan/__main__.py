"""`python -m lightning_cgan`, and the console script `lightning-cgan`."""

from __future__ import annotations

import sys

_HELP = """\
usage: python -m lightning_cgan COMMAND [--config FILE.yaml …] [--OPTION VALUE …]

Trains class-conditional GANs: choose a label, get an image of it.

commands:
  fit        train, and leave a folder with checkpoints, pictures and curves
  validate   losses of a checkpoint on held-out images
  test       losses of a checkpoint on the test split
  predict    make labelled images in bulk from a checkpoint
  generate   make images of chosen classes from a checkpoint: a sheet, a folder, arrays, a walk

options:
  -h, --help  this help; `COMMAND --help` lists the options of a command
  --version   the version

example: python -m lightning_cgan fit --config configs/digits.yaml
"""


def main() -> None:
    """Answers what needs no PyTorch at once, and hands everything else to the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments == ["--version"]:
        from lightning_cgan import __version__

        print(__version__)
    else:
        from lightning_cgan.cli import main as command_line

        command_line()


if __name__ == "__main__":
    main()
