"""Makes the pictures of docs/gallery.md from the folders of runs.

    python scripts/gallery.py runs/digits/2026-11-24_09-30-00 runs/mnist/2026-11-24_10-00-00

Of each run: a sheet of images, a walk through the latents, and the grids of the training, small enough for a page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from PIL import Image, ImageSequence

from lightning_cgan.images import save_gif
from lightning_cgan.keeping import write_whole

_BYTES = 300_000
_HEIGHTS = (584, 440, 330, 250)


def generate(run: Path, out: Path, *options: str) -> None:
    """Runs the command `generate` on the last checkpoint of a run."""
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    command = [sys.executable, "-m", "lightning_cgan", "generate", checkpoint, "--out", str(out), "--overwrite", "true"]
    subprocess.run([*command, *options], check=True)


def shrink(film: Path, out: Path, most: int = 48) -> None:
    """Writes a film again with at most so many frames, in the largest of a few sizes that is small enough for a page."""
    with Image.open(film) as opened:
        every = -(-opened.n_frames // most)
        seconds = every * opened.info["duration"] / 1000
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
    frames = frames[::-every][::-1]  # the last one stays
    for height in _HEIGHTS:
        size = (round(frames[0].width * height / frames[0].height), height)
        smaller = [frame.resize(size, Image.Resampling.LANCZOS).quantize(32) for frame in frames]
        write_whole(out, partial(save_gif, smaller, seconds=seconds, seconds_of_last=max(2.0, seconds)))
        if out.stat().st_size <= _BYTES:
            return


def main() -> None:
    """Makes the pictures of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that have ended")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="the folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for run in options.runs:
        name = run.resolve().parent.name
        walk = options.out / f"{name}-walk.gif"
        generate(run, options.out / f"{name}.png", "--count", "10")
        generate(run, walk, "--walk", "latents", "--count", "6", "--frames", "12")
        shrink(walk, walk)
        shrink(run / "samples.gif", options.out / f"{name}-training.gif")


if __name__ == "__main__":
    main()
