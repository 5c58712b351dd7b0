"""What the progress bar shows in a terminal."""

from __future__ import annotations

import io

import pytest
from lightning.pytorch.callbacks.progress.rich_progress import CustomProgress, MetricsTextColumn
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from helpers.quiet import quiet_trainer
from lightning_cgan import ProgressBar


@pytest.mark.parametrize(("columns", "speed"), [(80, False), (140, True)])
def test_a_bar_is_one_line(columns: int, speed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the largest numbers of a shipped config."""
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr("lightning_cgan.callbacks.progress.get_console", lambda: console)
    bar = ProgressBar()
    trainer = quiet_trainer(1, callbacks=[bar], enable_progress_bar=True)
    trainer.state.fn = TrainerFn.FITTING
    trainer.training = True
    metrics = MetricsTextColumn(trainer, bar.theme.metrics, bar.theme.metrics_text_delimiter, bar.theme.metrics_format)
    progress = CustomProgress(*bar.configure_columns(trainer), metrics, console=console)
    bar.train_progress_bar_id = progress.add_task("Epoch 13", total=17160, completed=12345)
    metrics.update({"D": 1.234, "G": 10.567, "FID": 123.456})
    console.print(progress.get_renderable())
    assert isinstance(console.file, io.StringIO)
    (line,) = console.file.getvalue().splitlines()
    assert "Epoch 13 ━" in line
    assert "12345/17160" in line
    assert line.rstrip().endswith("D: 1.234 G: 10.567 FID: 123.456")
    assert ("it/s" in line) == speed
