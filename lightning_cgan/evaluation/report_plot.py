"""The picture of a report, `report.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lightning_cgan.core.errors import printable
from lightning_cgan.core.images import grid, signed_from_pixels
from lightning_cgan.evaluation.protocol import ReportImages
from lightning_cgan.evaluation.score_rows import about_generators

_COLUMNS = 10
_MOST_ROWS = 20


def plot_report(report: dict[str, Any], report_images: ReportImages, class_names: Sequence[str], file: Path) -> None:
    """Plots what `Evaluation.report` returns: samples, the nearest training images, confusion, scores by class."""
    from matplotlib.figure import Figure  # the import takes a second

    class_names = [printable(name, 30).replace("$", r"\$") for name in class_names]  # $…$ would be a formula
    figure = Figure(figsize=(13, 12), layout="constrained")
    samples, neighbours, confusion, bars = figure.subplots(2, 2).flatten()
    figure.suptitle(_headline(report))
    samples.imshow(_samples(report_images))
    samples.set_title("samples, one row for each class")
    neighbours.imshow(_neighbours(report_images))
    neighbours.set_title("samples, each next to the nearest training image (by pixels)")
    for axes in (samples, neighbours):
        axes.axis("off")
    _plot_confusion(confusion, report["scores"]["confusion"], class_names)
    _plot_bars(bars, report, class_names)
    figure.savefig(file, dpi=100, format="png")


def _headline(report: dict[str, Any]) -> str:
    scores, real = report["scores"], report["scores_of_real_images"]
    students, students_of_real = report["gan_train"], report["gan_train_of_real_images"]
    return (
        f"GAN-test {scores['gan_test']:.2%} (real images {real['gan_test']:.2%})   "
        f"judge FID {scores['judge_fid']:.2f} ({real['judge_fid']:.2f})   "
        f"diversity {scores['diversity']:.2f} ({real['diversity']:.2f})   "
        f"GAN-train {students['mean']:.2%} ({students_of_real['mean']:.2%})   "
        f"memorisation {report['memorisation']['ratio']:.2f}\n"
        f"protocol: {report['protocol']['name']}{_of_several(report)}"
    )


def _of_several(report: dict[str, Any]) -> str:
    """A further line of the headline, if students also learned from several generators."""
    if "gan_train_of_several" not in report:
        return ""
    names = printable(about_generators(report), 110).replace("$", r"\$")
    mean = f"{report['gan_train_of_several']['mean']:.2%}"
    return f"\nGAN-train, {len(report['generators'])} generators {mean}{f': {names}' if names else ''}"


def _samples(report_images: ReportImages) -> Any:
    labels = report_images.fakes.labels.cpu()
    of_class = [torch.nonzero(labels == label)[:, 0] for label in labels.unique().tolist()[:_MOST_ROWS]]
    columns = min(_COLUMNS, *map(len, of_class))  # the same number for each class, so that all rows are full
    indices = torch.cat([indices[:columns] for indices in of_class])
    images = cast(Tensor, report_images.fakes.images.index_select(0, indices))
    return grid(signed_from_pixels(images), columns).permute(1, 2, 0).numpy()


def _neighbours(report_images: ReportImages) -> Any:
    indices = list(report_images.nearest)[: 2 * _COLUMNS]
    pairs = [image for index in indices for image in (report_images.fakes.images[index], report_images.nearest[index])]
    stacked = torch.stack([image.cpu() for image in pairs])
    return grid(signed_from_pixels(stacked), 4).permute(1, 2, 0).numpy()


def _plot_confusion(axes: Any, confusion: list[list[int]], class_names: Sequence[str]) -> None:
    counts = torch.tensor(confusion, dtype=torch.float64)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)  # square root: shows small values
    few = len(class_names) <= 12
    for row, values in enumerate(shares.tolist() if few else []):
        for column, share in enumerate(values):
            if share > 0:
                color = "white" if share > 0.4 else "black"
                axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=7, color=color)
    if few:
        axes.set_xticks(range(len(class_names)), class_names, rotation=60, ha="right")
        axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("class predicted by the judge")
    axes.set_ylabel("label")
    axes.set_title("confusion matrix of generated images, % of each label")


def _plot_bars(axes: Any, report: dict[str, Any], class_names: Sequence[str]) -> None:
    indices = torch.arange(len(class_names)).numpy()
    rows = (("scores", "generated", 0.2), ("scores_of_real_images", "real, held out", -0.2))
    for name, label, shift in rows:
        values = [value if value is not None else 0.0 for value in report[name]["judge_fid_by_class"]]
        axes.barh(indices - shift, values, height=0.4, label=label)
    if len(class_names) <= 30:
        axes.set_yticks(indices, class_names)
    axes.invert_yaxis()
    axes.set_title("judge FID of each class")
    axes.legend()
