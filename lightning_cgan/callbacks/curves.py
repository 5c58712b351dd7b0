"""`curves.png`, a plot of the metrics of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_cgan.callbacks.series import PANELS, read_series
from lightning_cgan.callbacks.shared import next_writing, run_folder, warn_on_write_error
from lightning_cgan.core.errors import check_positive


class Curves(Callback):
    """Plots `metrics.csv` of the run folder as `curves.png`, repeatedly during training and once at the end.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> curves = Curves(every_n_seconds=30)
        >>> trainer = Trainer(max_steps=1000, callbacks=[curves], logger=False)
        >>> curves in trainer.callbacks
        True

    Args:
        every_n_seconds: The shortest time between plots, in seconds instead of steps since a plot takes as long as
            hundreds of steps of small networks. On a slow machine it grows until plots take a hundredth of the time.
    """

    def __init__(self, every_n_seconds: float = 60.0) -> None:
        check_positive("--curves.every_n_seconds", every_n_seconds)
        self.every_n_seconds = every_n_seconds
        self._folder: Path | None = None
        self._next_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets the run folder."""
        self._folder = run_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the timer."""
        self._next_at = time.monotonic() + self.every_n_seconds

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the time between plots is over; several processes, whose clocks differ, do not wait for it."""
        return trainer.world_size == 1 and time.monotonic() >= self._next_at

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Plots the curves when a plot is due."""
        started = time.monotonic()
        if started >= self._next_at:
            self._plot()
            self._next_at = next_writing(started, time.monotonic(), self.every_n_seconds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plots the curves of the whole run."""
        self._plot()

    @rank_zero_only
    def _plot(self) -> None:
        if self._folder is not None and (self._folder / "metrics.csv").exists():
            with warn_on_write_error("curves.png"):
                plot_curves(self._folder / "metrics.csv", self._folder / "curves.png")


def plot_curves(metrics: Path, picture: Path) -> None:
    """Plots losses, logits, scores and speed against the number of steps.

    Args:
        metrics: The CSV file written by `MetricsFile` or by Lightning's `CSVLogger`.
        picture: The PNG file to write.
    """
    from matplotlib.figure import Figure  # the import takes a second, which runs without plots save

    series = read_series(metrics)
    figure = Figure(figsize=(8, 12), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(PANELS), sharex=True), PANELS.items(), strict=True):
        for name in names:
            if points := series.get(name):
                marker = "o" if name.startswith("val_") else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3, linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="upper right", fontsize="small")
    axes.set_xlabel("steps")
    figure.savefig(picture, dpi=100)
