"""What the page of a run shows, read from the files in its folder."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import yaml
from PIL import Image

from lightning_cgan.callbacks.series import PANELS, Points, read_series
from lightning_cgan.core.errors import printable
from lightning_cgan.evaluation.score_rows import SCORES, ScoreRow, about_generators, score_rows
from lightning_cgan.runs.alarms_file import read_alarms
from lightning_cgan.runs.folder import newest_config, resume_command

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_POINTS = 1000  # of a curve; a chart has fewer pixels
_LOG_RATIO = 20  # of the largest to the smallest distance: a chart with a wider range is logarithmic
_MOST_CHARTS = 24
_VALIDATION_SCORES = ("gan_test", "judge_fid", "diversity")
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Grid(NamedTuple):
    """A grid of samples."""

    step: int
    src: str  # relative to the page
    width: int
    height: int
    classes: tuple[str, ...]  # from top to bottom; empty if unknown


class ReportOfTest(NamedTuple):
    """A report that `test` has written."""

    checkpoint: str
    protocol: str
    rows: list[ScoreRow]
    generators: str  # those of a row of several; empty if there is none
    picture: str | None  # relative to the page
    is_outdated: bool  # whether the checkpoint was replaced since


def render_page(folder: Path, is_running: bool = False) -> bytes:
    """The page of a run as HTML in UTF-8.

    Args:
        folder: The folder of the run.
        is_running: Whether the run is in progress.
    """
    series = read_series(folder / "metrics.csv")
    grids, config_file = _grids(folder), newest_config(folder)
    text = config_file.read_text(encoding="utf-8", errors="replace") if config_file else ""
    config = _parsed(text)
    step = max([points[-1][0] for points in series.values()] + [grid.step for grid in grids[-1:]], default=0)
    charts, alarms = _charts(series), read_alarms(folder)
    content = {
        "name": config.get("name") or folder.name,
        "folder": str(folder),
        "folder_name": folder.name,
        "step": step,
        "max_steps": _max_steps(config),
        "is_running": is_running,
        "facts": list(_facts(config, series)),
        "grids": grids,
        "has_gif": (folder / "samples.gif").is_file(),
        "charts": charts,
        "scores": _scores(series, config),
        "reports": list(_reports(folder)),
        "alarms": alarms,
        "commands": list(_commands(folder)),
        "config": text,
        "config_name": config_file.name if config_file else None,
        "written": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "version": version("lightning_cgan"),
        "data": {"charts": charts, "alarms": alarms, **_for_slider(grids)},
    }
    return _template().render(content).encode("utf-8", "replace")  # names may hold surrogates


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "page_files"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    style, script = (
        (files(__package__) / "page_files" / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    # The browser runs this script and no other, even if text from elsewhere became markup.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
    return environment.get_template("page.html")


def _plain(value: Any) -> Any:
    """Escapes unprintable characters in text, but not in what is markup already."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


# ---- samples ---------------------------------------------------------------------------------------------------------


def _grids(folder: Path) -> list[Grid]:
    """The grids of samples, in the order of their steps; damaged files are left out."""
    grids = []
    for file in sorted((folder / "samples").glob("[0-9]*.png")):
        if file.stem.isdecimal():
            try:
                with Image.open(file) as image:
                    (width, height), classes = image.size, json.loads(image.info.get("classes", "[]"))
            except (OSError, SyntaxError, ValueError):  # SyntaxError: a broken PNG file
                continue
            names = tuple(map(str, classes)) if isinstance(classes, list) else ()
            grids.append(Grid(int(file.stem), f"samples/{quote(file.name)}", width, height, names))
    return grids


def _for_slider(grids: Sequence[Grid]) -> dict[str, Any]:
    """The grids for the script of the page; each list of classes is there once."""
    lists = list(dict.fromkeys(grid.classes for grid in grids))
    return {"grids": [(*grid[:4], lists.index(grid.classes)) for grid in grids], "classes": lists}


# ---- curves ----------------------------------------------------------------------------------------------------------


def _charts(series: Mapping[str, Points]) -> list[dict[str, Any]]:
    """The charts: those of `curves.png`, then learning rates, skipped steps, and one for each other scalar."""
    groups = [(title, [name for name in names if name in series]) for title, names in PANELS.items()]
    groups.append(("learning rate", [name for name in series if name.startswith("lr-")]))
    groups.append(("skipped updates", [name for name in series if name.endswith("_skipped_steps")]))
    grouped = {name for _, names in groups for name in names}
    groups += [(name, [name]) for name in series if name not in grouped]
    charts = [_chart(title, {name: series[name] for name in names}) for title, names in groups if names]
    return charts[:_MOST_CHARTS]


def _chart(title: str, series: Mapping[str, Points]) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    colors: dict[str, int] = {}
    for name, points in series.items():
        # A loss has the colour of the same loss in validation.
        color = colors.setdefault(name.removeprefix("val_"), len(colors))
        drawn = [(step, _rounded(value)) for step, value in _thinned(points)]
        is_validation = name.startswith("val_")
        lines.append({"name": name, "color": color % 6, "is_validation": is_validation, "points": drawn})
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    is_log = title == "Fréchet distance" and min(values, default=0) > 0 and max(values) > _LOG_RATIO * min(values)
    return {"title": title[0].upper() + title[1:], "is_log": is_log, "lines": lines}


def _thinned(points: Points) -> Points:
    """At most `_MOST_POINTS` of the points: the smallest and the largest of each stretch of equal length, and the last.

    Values that are not finite count as the largest.
    """
    if len(points) <= _MOST_POINTS:
        return points
    length = -(-2 * len(points) // (_MOST_POINTS - 2))
    kept: dict[int, float] = {}
    for start in range(0, len(points), length):
        stretch = sorted(points[start : start + length], key=lambda point: (not math.isfinite(point[1]), point[1]))
        kept |= dict(sorted((stretch[0], stretch[-1])))
    return list((kept | dict(points[-1:])).items())


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON has no NaN


# ---- scores ----------------------------------------------------------------------------------------------------------


def _scores(series: Mapping[str, Points], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scores of the best and the last validation, if there are any."""
    monitor = str(_at(config, "best_checkpoint.monitor") or "val_judge_fid")
    monitored = [point for point in series.get(monitor, ()) if math.isfinite(point[1])]
    names = [name for name in _VALIDATION_SCORES if f"val_{name}" in series]
    if not monitored or not names:
        return None
    choose = max if _at(config, "best_checkpoint.mode") == "max" else min
    best, last = choose(monitored, key=lambda point: point[1])[0], monitored[-1][0]
    values = {name: dict(series[f"val_{name}"]) for name in names}
    rows = []
    for name in names:
        score = SCORES[name]
        shown = [score.form.format(values[name][step]) if step in values[name] else "–" for step in (best, last)]
        rows.append((score.title, score.what.replace("test images", "validation images"), *shown))
    return {"best": best, "last": last, "rows": rows, "monitor": monitor}


def _reports(folder: Path) -> Iterator[ReportOfTest]:
    """The reports next to the checkpoints; damaged ones are left out."""
    for file in sorted(folder.glob("checkpoints/*-report/report.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            rows, checkpoint = score_rows(report), file.parent.with_name(str(report["checkpoint"]["name"]))
            protocol, generators = str(report["protocol"]["name"]), about_generators(report)
            is_outdated = checkpoint.is_file() and checkpoint.stat().st_mtime > file.stat().st_mtime
        except Exception:  # a broken file raises many kinds of errors
            continue
        picture = file.with_name("report.png")
        src = quote(picture.relative_to(folder).as_posix()) if picture.is_file() else None
        yield ReportOfTest(checkpoint.name, protocol, rows, generators, src, is_outdated)


# ---- facts and commands ----------------------------------------------------------------------------------------------


def _facts(config: Mapping[str, Any], series: Mapping[str, Points]) -> Iterator[tuple[str, str]]:
    """The parts of a run, and its speed."""
    penalties = _at(config, "model.penalties")
    parts = {name: _at(config, f"model.{name}") for name in ("generator", "discriminator", "loss")}
    named = [("data", config.get("data")), *parts.items()]
    named += [("penalty", penalty) for penalty in (penalties if isinstance(penalties, list) else ())]
    for title, part in named:
        if path := _at(part, "class_path"):
            yield title, str(path).rpartition(".")[2]
    for title, key in (("batch size", "data.init_args.batch_size"), ("precision", "trainer.precision")):
        if value := _at(config, key):
            yield title, str(value)
    if "seed_everything" in config:
        yield "seed", str(config["seed_everything"])
    speeds = [value for _, value in series.get("images_per_second", ()) if math.isfinite(value)]
    if speeds:
        yield "images / s, median", f"{median(speeds):,.0f}"


def _commands(folder: Path) -> Iterator[tuple[str, str]]:
    """What to do with a run, and the command for it."""
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    if last.is_file():
        yield "Resume", resume_command(folder, last)
    checkpoint = best if best.is_file() else last
    if checkpoint.is_file():
        options = f"{shlex.quote(str(checkpoint))} --labels 0 --count 10 --out sheet.png"
        yield "Generate images of a class", f"python -m lightning_cgan generate {options}"
        if config := newest_config(folder):
            options = f"--config {shlex.quote(str(config))} --ckpt_path {shlex.quote(str(checkpoint))}"
            yield "Score the generated images", f"python -m lightning_cgan test {options}"


def _max_steps(config: Mapping[str, Any]) -> int | None:
    found = _at(config, "trainer.max_steps")
    return found if isinstance(found, int) and found > 0 else None


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        config = yaml.load(text, _YamlLoader)  # a safe loader
    except Exception:  # the file may have been edited
        config = None
    return config if isinstance(config, dict) else {}


def _at(config: Any, path: str) -> Any:
    """The value at a dotted path of a config; None if there is none."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config
