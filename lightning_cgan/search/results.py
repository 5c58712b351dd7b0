"""The results of a search: a table, its CSV file, and the config of the best trial."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from optuna.trial import FrozenTrial, TrialState

from lightning_cgan.core.errors import printable
from lightning_cgan.core.files import write_atomic
from lightning_cgan.search.picture import plot_search
from lightning_cgan.search.space import Varied
from lightning_cgan.search.study import SCORE, SearchStudy, score_of
from lightning_cgan.search.trial_run import run_folder_of

_ORDER = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
_WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Row:
    """What is known about a trial.

    Attributes:
        number: The number of the trial, from 0.
        state: `complete`, `pruned`, `failed` or `running`.
        score: The smallest score of all validations up to its end; None if there is none.
        step: The step of that validation.
        seconds: How long its processes took, from their start.
        images: How many real images the discriminator has seen.
        values: The value of each option, as text for the command line.
        run: The folder of its run, in the folder of the search.
        reason: Why it failed.
    """

    number: int
    state: str
    score: float | None
    step: int | None
    seconds: float | None
    images: int | None
    values: dict[str, str] = field(default_factory=dict)
    run: str = ""
    reason: str = ""


def rows_of(study: SearchStudy) -> list[Row]:
    """The trials of a search, the best one first: complete ones by their scores, then pruned ones, then the others."""

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        score = score_of(trial)
        return _ORDER.index(trial.state), float("inf") if score is None else score, trial.number

    return [_row(study, trial) for trial in sorted(study.all_trials(), key=rank)]


def _row(study: SearchStudy, trial: FrozenTrial) -> Row:
    facts = trial.user_attrs
    folder = study.folder_of(trial.number)
    run = run_folder_of(folder) if folder.is_dir() else None
    return Row(
        number=trial.number,
        state=_WORDS.get(trial.state, "running"),
        score=score_of(trial),
        step=facts.get("step"),
        seconds=facts.get("seconds"),
        images=facts.get("images"),
        values={varied.name: _text(trial.params[varied.name]) for varied in study.space if varied.name in trial.params},
        run=str(run.relative_to(study.folder)) if run else "",
        reason=facts.get("reason", ""),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names, as many as tell them apart."""
    parts = [name.split(".") for name in names]
    for count in range(1, max(map(len, parts), default=1) + 1):
        short = [".".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)


def table_of(rows: Sequence[Row], space: Sequence[Varied]) -> str:
    """The table for the terminal, and below it the reasons of failed trials."""
    names = [varied.name for varied in space]
    lines = [["trial", "score", "state", *short_names(names), "step", "seconds", "images"]]
    for row in rows:
        score, seconds = (_rounded(number, digits) for number, digits in ((row.score, 4), (row.seconds, 0)))
        values = [_short_number(row.values.get(name, "")) for name in names]
        images = f"{row.images:,}" if row.images is not None else ""
        step = f"{row.step:,}" if row.step is not None else ""
        lines.append([str(row.number), score, row.state, *values, step, seconds, images])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    reasons = [f"Trial {row.number} failed: {row.reason}" for row in rows if row.reason]
    return "\n".join([*text, *reasons])


def _rounded(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"


def _short_number(text: str) -> str:
    """A value for the table: four digits of a number, since `trials.csv` has all; long text is cut."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.4g}"
    except ValueError:
        return printable(text, 40)


def write_results(study: SearchStudy, base: dict[str, Any]) -> list[Row]:
    """Writes `trials.csv`, `search.png` and `best.yaml`, and returns the trials, the best one first.

    Args:
        study: The search, whose `mutex` is held.
        base: What `best.yaml` has in place of the trial's own name and folder.
    """
    rows = rows_of(study)
    content = _csv(rows, [varied.name for varied in study.space]).encode()
    write_atomic(study.folder / "trials.csv", lambda file: file.write_bytes(content), sync=False)
    if any(row.score is not None and row.seconds is not None for row in rows):
        write_atomic(study.folder / "search.png", lambda file: plot_search(rows, study.space, file), sync=False)
    if rows and rows[0].state == "complete":
        best = _best_config(study.folder, rows[0], base)
        write_atomic(study.folder / "best.yaml", lambda file: file.write_bytes(best))
    return rows


def _csv(rows: Sequence[Row], names: Sequence[str]) -> str:
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["number", "score", "state", "step", "seconds", "images", *names, "run", "reason"])
    for row in rows:
        seconds = None if row.seconds is None else round(row.seconds, 1)
        values = [row.values.get(name) for name in names]
        writer.writerow([row.number, row.score, row.state, row.step, seconds, row.images, *values, row.run, row.reason])
    return text.getvalue()


def _best_config(folder: Path, row: Row, base: dict[str, Any]) -> bytes:
    """The config with which the run of a trial began, for a run that is not part of a search."""
    config = yaml.safe_load((folder / row.run / "config.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump({**config, **base, "ckpt_path": None}, sort_keys=False, allow_unicode=True)
    return f"# Trial {row.number} of a search: {SCORE} {row.score:.4f} at step {row.step}\n{text}".encode()


def images_seen(run: Path | None) -> int | None:
    """The real images that the discriminator has seen in a run; None if no checkpoint or config tells."""
    if run is None:
        return None
    try:
        saved = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", mmap=True, weights_only=True)
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        batch_size = config["data"]["init_args"]["batch_size"]
        return int(saved["global_step"] * batch_size * config["model"].get("discriminator_steps", 1))
    except (KeyError, TypeError, OSError, RuntimeError, UnpicklingError, yaml.YAMLError):
        return None


def reason_for(text: str) -> str:
    """Why a trial failed, in one line of bounded length."""
    return printable(" ".join(text.split()), _LONGEST_REASON)
