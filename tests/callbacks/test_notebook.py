"""What a fit shows below the cell of a notebook; tests/test_notebook.py runs a real one."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from PIL import Image

from helpers.quiet import quiet_trainer
from helpers.small_gan import gan
from lightning_cgan import DigitsData, ProgressBar, SampleGrid
from lightning_cgan.callbacks.notebook import in_notebook

Output = list[dict[str, Any]]  # what one output has shown, the latest last


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """What is displayed, as if this process ran the cells of a notebook."""
    shown: list[Output] = []

    def display(content: dict[str, Any], *, raw: bool, display_id: bool) -> Any:
        assert (raw, display_id) == (True, True)
        output = [content]
        shown.append(output)
        return SimpleNamespace(update=lambda content, *, raw: output.append(content))

    shell = SimpleNamespace(kernel="a kernel")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return shown


def fit(folder: Path, *callbacks: Callback, steps: int = 6, times: int = 1, **options: Any) -> None:
    shown = {"default_root_dir": str(folder), "enable_progress_bar": True, "log_every_n_steps": 1}
    for _ in range(times):
        trainer = quiet_trainer(steps, callbacks=list(callbacks), **shown, **options)
        trainer.fit(gan(), DigitsData(batch_size=16))


def test_one_bar_and_one_grid(outputs: list[Output], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, ProgressBar(), SampleGrid(every_n_steps=2, columns=3))
    bar, grid = outputs
    assert {tuple(content) for content in bar} == {("text/plain",)}
    assert bar[0]["text/plain"].startswith("Epoch 0 ╌╌╌")
    assert " 0/6 " in bar[0]["text/plain"]
    assert bar[-1]["text/plain"].startswith("Epoch 0 " + "━" * 30 + " 6/6  0:00:")
    assert "  D " in bar[-1]["text/plain"]
    assert [content["text/plain"] for content in grid] == [f"Samples of step {step}" for step in (0, 2, 4, 6)]
    for content, file in zip(grid, sorted(tmp_path.glob("samples/*.png")), strict=True):
        shown = Image.open(io.BytesIO(content["image/png"]))
        assert shown.tobytes() == Image.open(file).tobytes()
    shown = capfd.readouterr()
    assert "━" not in shown.out + shown.err


def test_every_fit_has_its_own_output(outputs: list[Output], tmp_path: Path) -> None:
    fit(tmp_path, ProgressBar(), SampleGrid(columns=1), steps=1, times=2)
    assert len(outputs) == 4
    assert [" 1/1 " in output[-1]["text/plain"] for output in outputs] == [True, False, True, False]


def test_a_bar_for_an_unknown_number_of_steps(outputs: list[Output], tmp_path: Path) -> None:
    class Ends(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 3

    fit(tmp_path, ProgressBar(), Ends(), steps=-1, max_epochs=-1)
    ((*_, last),) = outputs
    assert last["text/plain"].startswith("Epoch 0 " + "╌" * 30 + " 3  0:00:")


def test_a_display_that_fails_does_not_end_a_run(
    outputs: list[Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such display")

    monkeypatch.setattr(sys.modules["IPython.display"], "display", fail)
    with pytest.warns(
        UserWarning, match=r"The output below the cell was not written: no such display\. Training continues"
    ):
        fit(tmp_path, ProgressBar(), SampleGrid(columns=1))
    assert (tmp_path / "samples" / "00000006.png").exists()


def test_a_terminal_is_no_notebook(outputs: list[Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    fit(tmp_path, ProgressBar(), SampleGrid(columns=1), steps=1)
    assert outputs == []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
