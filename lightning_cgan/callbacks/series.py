"""The scalars of a run as series of points, and how charts group them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

Points = list[tuple[int, float]]  # steps and values

PANELS = {
    "loss": ("discriminator_loss", "generator_loss", "val_discriminator_loss", "val_generator_loss"),
    "mean logit": ("real_logits", "fake_logits"),
    "share": ("val_gan_test", "val_diversity"),
    "Fréchet distance": ("val_judge_fid",),
    "images / s": ("images_per_second",),
}
_NO_SCALARS = ("step", "epoch")  # Lightning's `CSVLogger` adds the epoch


def read_series(metrics: Path) -> dict[str, Points]:
    """Reads the scalars of a run, each with the steps at which it was logged; cells without a number are skipped.

    Args:
        metrics: The CSV file written by `MetricsFile` or by Lightning's `CSVLogger`.
    """
    series: dict[str, Points] = {}
    with metrics.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            if step is None or step != step // 1:
                continue
            for name, value in _scalars(row):
                series.setdefault(name, []).append((int(step), value))
    return series


def _scalars(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name, cell in row.items():
        value = _number(cell) if name and name not in _NO_SCALARS else None
        if value is not None:
            yield name, value


def _number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) and cell else None
    except ValueError:  # the file may have been edited
        return None
