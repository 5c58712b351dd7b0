"""`alarms.csv`, the warnings about a failing run, in its folder."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from lightning_cgan.core.files import write_atomic


class Alarm(NamedTuple):
    """A warning about a failing run."""

    step: int
    kind: str  # such as `collapse`
    text: str


def read_alarms(folder: Path) -> list[Alarm]:
    """Reads the alarms of a run; rows that are not alarms are skipped."""
    try:
        text = (folder / "alarms.csv").read_text(encoding="utf-8", errors="replace").replace("\0", "")
    except FileNotFoundError:
        return []
    rows = list(csv.reader(StringIO(text, newline="")))[1:]
    return [Alarm(int(row[0]), row[1], row[2]) for row in rows if len(row) == 3 and row[0].isdecimal()]


def write_alarms(folder: Path, alarms: list[Alarm]) -> None:
    """Writes the alarms of a run atomically."""
    text = StringIO(newline="")
    csv.writer(text).writerows([("step", "kind", "text"), *alarms])
    content = text.getvalue().encode("utf-8", "replace")
    write_atomic(folder / "alarms.csv", lambda unfinished: unfinished.write_bytes(content))
