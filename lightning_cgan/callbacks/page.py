"""`index.html`, a page about a run in its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_cgan.callbacks.page_content import render_page
from lightning_cgan.callbacks.shared import next_writing, run_folder
from lightning_cgan.core.errors import UsageError, reason_of
from lightning_cgan.core.files import write_atomic

_SECONDS_UNTIL_NEXT_LOOK = 0.5  # for a table of scalars


class RunPage(Callback):
    """Writes `index.html` to the run folder: samples, curves, scores, alarms, commands and the config of a run.

    The page is one file without a network: it opens from disk in any browser. It shows the pictures that lie next to
    it, so it moves with its folder. It is written as soon as `metrics.csv` has a row, then repeatedly during training
    and once at the end; `test` adds its report. Writing takes at most 1 % of the time of a run: where it would take
    more, it is done less often.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> page = RunPage(every_n_seconds=30)
        >>> trainer = Trainer(max_steps=1000, callbacks=[page], logger=False)
        >>> page in trainer.callbacks
        True

    Args:
        every_n_seconds: The time between updates, in seconds; 0 disables the page.
    """

    def __init__(self, every_n_seconds: float = 60.0) -> None:
        if not every_n_seconds >= 0:
            raise UsageError(
                f"--page.every_n_seconds: expected 0 or more, got {every_n_seconds}; 0 disables the page of a run"
            )
        self.every_n_seconds = every_n_seconds
        self._folder: Path | None = None
        self._next_at = 0.0
        self._has_failed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets the run folder."""
        self._folder = run_folder(trainer) if stage == "fit" else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the first page be written as soon as there is something to show."""
        self._next_at = time.monotonic()

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the page is to be written again; several processes, whose clocks differ, do not wait for it."""
        return trainer.world_size == 1 and self.every_n_seconds > 0 and time.monotonic() >= self._next_at

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Updates the page when an update is due."""
        if time.monotonic() >= self._next_at:
            self._write(is_running=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the page of the whole run."""
        self._write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the page of a run that was stopped."""
        self._write()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the report to the page of the run that wrote the checkpoint, if there is one."""
        folder = Path(trainer.ckpt_path).parent.parent if trainer.ckpt_path else None
        if folder is not None and (folder / "index.html").is_file() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._folder = folder
            self._write()

    @rank_zero_only
    def _write(self, is_running: bool = False) -> None:
        started = time.monotonic()
        if not self.every_n_seconds or self._folder is None or not (self._folder / "metrics.csv").exists():
            self._next_at = started + _SECONDS_UNTIL_NEXT_LOOK
            return
        try:
            content = render_page(self._folder, is_running)
            write_atomic(self._folder / "index.html", lambda file: file.write_bytes(content))
        except Exception as error:  # a page is not worth a run
            if not self._has_failed:
                reason = str(error) if isinstance(error, OSError) else reason_of(error)
                rank_zero_warn(f"The page index.html was not written: {reason}. Training continues")
            self._has_failed = True
        else:
            self._has_failed = False
        self._next_at = next_writing(started, time.monotonic(), self.every_n_seconds)
