"""The scalars of a run as a table, which goes on where the run goes on."""

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
    """Writes `metrics.csv` into the folder of a run, a row at a time.

    Lightning's `CSVLogger` deletes the file of a run that goes on in its folder, and keeps rows back. Here a row is on
    the disk before the next step, a checkpoint knows how many there were, and a run that goes on from it leaves
    out those that came later: it will write them again. Where the disk is full, rows wait in memory.

    Args:
        folder: The folder of the run.
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
        """Nothing: the folder of the run is the logger's own."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, as above."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.file.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Leaves them to `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds a row."""
        self.rows.append({**metrics, "step": len(self.rows) if step is None else step})
        try:
            self._write()
        except OSError as error:
            if not self._failed:
                rank_zero_warn(f"{self.file} was not written: {error}. Training goes on; its rows wait in memory")
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
                os.truncate(self.file, size)  # half a row would be left
                raise
        self._columns, self._on_disk = columns, len(self.rows)

    @rank_zero_only
    def truncate_to(self, count: int) -> None:
        """Takes up the first rows of the file that is there, and drops the others.

        Args:
            count: The number of rows that stay, at most.
        """
        if not self.file.exists():
            return
        text = self.file.read_text(encoding="utf-8", errors="replace")  # somebody may have written to it
        text = text.replace("\0", "")
        reader = csv.DictReader(StringIO(text, newline=""), quoting=csv.QUOTE_NONE)  # as numbers and names need none
        self.rows = []
        with suppress(csv.Error):  # what comes behind is lost
            for row in islice(reader, count):
                self.rows.append({name: value for name, value in row.items() if name})
        self._columns, self._on_disk = [], 0  # written anew with the next row
