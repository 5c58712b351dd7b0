"""A logger that writes the scalars of a run to a CSV table, which resumed runs continue."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from contextlib import suppress
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_cgan.core.files import write_atomic


class MetricsFile(Logger):
    """Writes `metrics.csv` to the folder of a run, one row at a time.

    Lightning's `CSVLogger` deletes the file of a run that resumes in its folder, and buffers rows. Here a row is on
    disk before the next step. Checkpoints store the number of rows; a run that resumes from one drops later rows, since
    it will write them again. If the disk is full, rows wait in memory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._on_disk = 0
        self._failed = False

    @property
    def name(self) -> str:
        """Empty, as the version: the logger uses the folder of the run itself."""
        return ""

    version = name

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.file.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: `config.yaml` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds a row."""
        self.rows.append({**metrics, "step": len(self.rows) if step is None else step})
        try:
            self._write()
        except OSError as error:
            if not self._failed:
                rank_zero_warn(f"{self.file} was not written: {error}. Training continues; its rows wait in memory")
            self._failed = True
        else:
            self._failed = False

    def _write(self) -> None:
        columns = sorted({name for row in self.rows[self._on_disk :] for name in row} | set(self._columns))
        begins = columns != self._columns or not self.file.exists()
        text = StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        if begins:
            writer.writeheader()
        writer.writerows(self.rows if begins else self.rows[self._on_disk :])
        if begins:
            write_atomic(self.file, lambda unfinished: unfinished.write_bytes(text.getvalue().encode()))
        else:
            size = self.file.stat().st_size
            try:
                with self.file.open("ab") as file:
                    file.write(text.getvalue().encode())
            except OSError:
                os.truncate(self.file, size)  # do not leave half a row
                raise
        self._columns, self._on_disk = columns, len(self.rows)

    @rank_zero_only
    def truncate_to(self, count: int) -> None:
        """Loads the first `count` rows of the existing file, and drops the others."""
        if not self.file.exists():
            return
        # The file may have been edited.
        text = self.file.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        reader = csv.DictReader(StringIO(text, newline=""), quoting=csv.QUOTE_NONE)  # numbers and names need no quotes
        self.rows = []
        with suppress(csv.Error):  # the rows after an error are lost
            for row in islice(reader, count):
                self.rows.append({name: value for name, value in row.items() if name})
        self._columns, self._on_disk = [], 0  # the next row rewrites the file
