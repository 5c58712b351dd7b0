"""The picture of a search, `search.png`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cgan.core.errors import printable
from lightning_cgan.search.space import Choices, Varied
from lightning_cgan.search.study import SCORE

if TYPE_CHECKING:
    from lightning_cgan.search.results import Row

_COLUMNS = 3
_LOOKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": "tab:blue"},
    "pruned": {"marker": "x", "color": "tab:gray"},
    "failed": {"marker": "v", "color": "tab:orange"},
    "running": {"marker": "s", "color": "tab:green"},
}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pairs that no other pair matches or beats in both numbers, by their first number; smaller is better."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def plot_search(rows: Sequence[Row], space: Sequence[Varied], file: Path) -> None:
    """Plots the scores of trials against the seconds that they took, and against each option that varied."""
    from matplotlib.figure import Figure  # the import takes a second

    scored = [row for row in rows if row.score is not None and row.seconds is not None]
    count = 1 + len(space)
    columns = min(count, _COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    all_axes = figure.subplots(lines, columns, squeeze=False).flatten()
    _plot_cost(all_axes[0], scored)
    for axes, varied in zip(all_axes[1:], space, strict=False):
        _plot_option(axes, scored, varied)
    if rows[0] in scored and rows[0].state == "complete":
        _mark_best(all_axes, rows[0], space)
    for axes in all_axes[count:]:
        axes.axis("off")
    spread = [row.score for row in scored if row.score]
    for axes in all_axes[:count]:
        axes.set_ylabel(SCORE)
        axes.grid(alpha=0.3)
        if min(spread, default=0) > 0 and max(spread) > 10 * min(spread):
            axes.set_yscale("log")
    all_axes[0].legend(fontsize="small")
    figure.savefig(file, dpi=100, format="png")


def _plot_cost(axes: Any, rows: Sequence[Row]) -> None:
    for state, look in _LOOKS.items():
        points = [(row.seconds, row.score) for row in rows if row.state == state]
        if points:
            axes.scatter(*zip(*points, strict=True), label=state, zorder=2, **look)
    complete = [(row.seconds or 0.0, row.score or 0.0) for row in rows if row.state == "complete"]
    if front := pareto_front(complete):
        label = "no other is both faster and better"
        axes.plot(
            *zip(*front, strict=True), color="tab:red", drawstyle="steps-post", linewidth=1, label=label, zorder=1
        )
    axes.set_xlabel("seconds")


def _plot_option(axes: Any, rows: Sequence[Row], varied: Varied) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with_value = [row for row in rows if varied.name in row.values]
    for state, look in _LOOKS.items():
        of_state = [row for row in with_value if row.state == state]
        if of_state:
            values = [_position(row.values[varied.name], varied) for row in of_state]
            axes.scatter(values, [row.score for row in of_state], **look)
    if isinstance(varied, Choices):
        axes.set_xticks(range(len(varied.values)), [_label(text) for text in varied.values])
        axes.set_xlim(-0.5, len(varied.values) - 0.5)
    elif varied.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(printable(varied.name, 60))


def _mark_best(all_axes: Any, best: Row, space: Sequence[Varied]) -> None:
    positions = [best.seconds, *(_position(best.values[varied.name], varied) for varied in space)]
    look = {"s": 110, "facecolors": "none", "edgecolors": "tab:red", "zorder": 3}
    for axes, position in zip(all_axes, positions, strict=False):
        axes.scatter([position], [best.score], label="the best", **look)


def _position(text: str, varied: Varied) -> float:
    return varied.values.index(text) if isinstance(varied, Choices) else float(text)


def _label(text: str) -> str:
    """A short text for a choice: of classes with options, the class and the numbers."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    parts = value if isinstance(value, list) else [value]
    shown = [
        f"{part['class_path'].rpartition('.')[2]} {', '.join(f'{k} {v}' for k, v in part.get('init_args', {}).items())}"
        if isinstance(part, dict) and isinstance(part.get("class_path"), str)
        else str(part)
        for part in parts
    ]
    text = "\n".join(shown) if any(isinstance(part, dict) for part in parts) else text
    return "\n".join(printable(line.strip(), 24) for line in text.split("\n")).replace("$", r"\$")
