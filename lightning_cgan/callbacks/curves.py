"""The curves of a run as a picture."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_cgan.callbacks.shared import run_folder, warn_on_write_error
from lightning_cgan.core.errors import check_positive

_PANELS = {
    "loss": ("discriminator_loss", "generator_loss", "val_discriminator_loss", "val_generator_loss"),
    "mean logit": ("real_logits", "fake_logits"),
    "share": ("val_gan_test", "val_diversity"),
    "Fréchet distance": ("val_judge_fid",),
    "images / s": ("images_per_second",),
}


class Curves(Callback):
    """Draws `curves.png` in the run folder from its `metrics.csv`, again and again as the run goes on.

    Args:
        every_n_seconds: The time from one drawing to the next: by the clock, since a drawing takes as long as hundreds
            of steps of small networks. There is one at the end in any case.
    """

    def __init__(self, every_n_seconds: float = 60.0) -> None:
        check_positive("--curves.every_n_seconds", every_n_seconds)
        self.every_n_seconds = every_n_seconds
        self._folder: Path | None = None
        self._drawn = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run folder."""
        self._folder = run_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._drawn = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Draws the curves when it is time."""
        if time.monotonic() - self._drawn > self.every_n_seconds:
            self._draw()
            self._drawn = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the whole run."""
        self._draw()

    @rank_zero_only
    def _draw(self) -> None:
        if self._folder is not None and (self._folder / "metrics.csv").exists():
            with warn_on_write_error("The picture of curves"):
                plot_curves(self._folder / "metrics.csv", self._folder / "curves.png")


def plot_curves(metrics: Path, picture: Path) -> None:
    """Draws losses, logits, scores and speed against the number of steps.

    Args:
        metrics: The file that `MetricsFile`, or Lightning's `CSVLogger`, wrote.
        picture: The PNG file to write.
    """
    from matplotlib.figure import Figure  # takes a second, which a run without curves need not wait for

    with metrics.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 12), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(_PANELS), sharex=True), _PANELS.items(), strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                marker = "o" if name.startswith("val_") else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3, linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="upper right", fontsize="small")
    axes.set_xlabel("steps")
    figure.savefig(picture, dpi=100)
