"""Makes the pictures of docs/gallery.md from the folders of runs.

    python scripts/gallery.py runs/digits/2026-11-24_09-30-00 runs/mnist/2026-11-24_10-00-00

For each run: a sheet of images, a walk through the latents, and the grids of the training, small enough for a page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from PIL import Image, ImageSequence

from lightning_cgan.core.files import write_atomic
from lightning_cgan.core.images import save_gif

_BYTES = 300_000
# From the best to the smallest: what the size of a grid, which magnifies pixels, is divided by, and the shades.
_FORMS = ((1, 64), (2, 64), (2, 32), (2, 16), (4, 16))


def generate(run: Path, out: Path, *options: str) -> None:
    """Runs the command `generate` on the last checkpoint of a run."""
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    command = [sys.executable, "-m", "lightning_cgan", "generate", checkpoint, "--out", str(out), "--overwrite"]
    subprocess.run([*command, *options], check=True)


def shrink(film: Path, out: Path) -> None:
    """Writes a film again in the best form that is small enough for a page."""
    with Image.open(film) as opened:
        seconds = max(0.1, opened.info["duration"] / 1000)  # fewer pictures than a smooth walk has
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
    for factor, shades in _FORMS:
        size = (frames[0].width // factor, frames[0].height // factor)
        smaller = [frame.resize(size, Image.Resampling.NEAREST).quantize(shades) for frame in frames]
        last = None if film == out else 2.0  # a walk ends where it began
        write_atomic(out, partial(save_gif, smaller, seconds=seconds, seconds_of_last=last))
        if out.stat().st_size <= _BYTES:
            return


def main() -> None:
    """Makes the pictures of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of completed runs")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="the folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for run in options.runs:
        name = run.resolve().parent.name
        walk = options.out / f"{name}-walk.gif"
        generate(run, options.out / f"{name}.png", "--count", "10")
        generate(run, walk, "--walk", "latents", "--count", "4", "--frames", "6")
        shrink(walk, walk)
        shrink(run / "samples.gif", options.out / f"{name}-training.gif")


if __name__ == "__main__":
    main()
