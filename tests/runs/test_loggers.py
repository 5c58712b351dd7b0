"""Loggers beside Weights & Biases: TensorBoard, and those that a config names."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.loggers import tensorboard as fabric
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image

from helpers.paths import ROOT
from helpers.run_files import FILES
from lightning_cgan.cli.main import main
from lightning_cgan.runs.loggers import loggers

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

Run = Callable[..., Path]
SHORT = ("--trainer.max_steps", "6", "--trainer.log_every_n_steps", "2", "--samples.every_n_steps", "3")


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def events(folder: Path) -> Any:
    found = event_accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_tensorboard_has_scalars_scores_and_images(run: Run) -> None:
    options = ("--data.image_size", "8", "--data.batch_size", "300", "--trainer.check_val_every_n_epoch", "1")
    folder = run(*SHORT, *options, "--scores.images", "50", "--tensorboard", "true")
    assert {file.name for file in folder.iterdir()} == FILES | {"tensorboard"}
    found = events(folder / "tensorboard")
    table = rows(folder / "metrics.csv")
    names = set(table[0]) - {"step"}
    assert names > {"generator_loss", "images_per_second", "val_generator_loss", "val_judge_fid"}
    assert set(found.Tags()["scalars"]) == names
    for name in names:
        told = [(event.step, event.value) for event in found.Scalars(name)]
        expected = [(int(row["step"]), float(row[name])) for row in table if row[name]]
        assert told == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    images = found.Images("samples")
    assert [image.step for image in images] == [0, 3, 6]
    for image in images:
        shown = Image.open(BytesIO(image.encoded_image_string))
        assert shown.tobytes() == Image.open(folder / "samples" / f"{image.step:08d}.png").tobytes()


@pytest.mark.ci
def test_mlflow_has_scalars_and_images(run: Run, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")  # which mlflow-skinny leaves to its users
    pytest.importorskip("alembic")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = ("--trainer.logger+", "MLFlowLogger", "--trainer.logger.tracking_uri", address)
    folder = run(*SHORT, "--data.image_size", "8", *options, "--trainer.logger.experiment_name", "digits")
    client = mlflow.MlflowClient(address)
    (found,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    told = [(value.step, value.value) for value in client.get_metric_history(found.info.run_id, "generator_loss")]
    assert told == [(int(row["step"]), float(row["generator_loss"])) for row in rows(folder / "metrics.csv")]
    paths = [artifact.path for artifact in client.list_artifacts(found.info.run_id, "images")]
    images = {
        int(named[1]): path for path in paths if (named := re.search(r"samples[+%]step[+%](\d+)[+%].*\.png$", path))
    }
    assert sorted(images) == [0, 3, 6]
    for step, path in images.items():
        shown = Image.open(client.download_artifacts(found.info.run_id, path, str(tmp_path)))
        assert shown.tobytes() == Image.open(folder / "samples" / f"{step:08d}.png").tobytes()


@pytest.mark.ci
def test_trackio_has_scalars_and_images(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logger of docs/in_your_project.md, which a resumed run continues."""
    trackio = pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    page = (ROOT / "docs" / "in_your_project.md").read_text()
    (logger,) = re.findall(r"```python\n(# my_trackio\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "my_trackio.py").write_text(logger)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_trackio", raising=False)
    options = ("--data.image_size", "8", "--trainer.logger+", "my_trackio.TrackioLogger")
    options += ("--trainer.logger.project", "tests", "--trainer.logger.name", "first")
    folder = run(*SHORT, *options)
    assert folder == run(*SHORT[2:], "--trainer.max_steps", "8", *options, "--ckpt_path", "last")
    logged = storage.get_logs("tests", "first")
    told = [(row["step"], row["generator_loss"]) for row in logged if "generator_loss" in row]
    table = rows(folder / "metrics.csv")
    assert told == [(int(row["step"]), pytest.approx(float(row["generator_loss"]))) for row in table]
    images = {row["step"]: row["samples"]["file_path"] for row in logged if "samples" in row}
    assert sorted(images) == [0, 3, 6, 8]
    for step, path in images.items():
        shown = Image.open(trackio.TRACKIO_DIR / "media" / path).convert("RGB")  # Trackio adds a channel
        assert shown.tobytes() == Image.open(folder / "samples" / f"{step:08d}.png").tobytes()


@pytest.mark.ci
def test_tensorboard_goes_on_where_the_run_does(run: Run) -> None:
    folder = run(*SHORT, "--tensorboard", "true")
    assert folder == run(*SHORT[2:], "--trainer.max_steps", "8", "--tensorboard", "true", "--ckpt_path", "last")
    assert [event.step for event in events(folder / "tensorboard").Scalars("generator_loss")] == [2, 4, 6, 8]


def test_without_tensorboard_a_line_says_what_to_install(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fabric, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(fabric, "_TENSORBOARDX_AVAILABLE", False)
    assert fails("fit", "--config", "digits", "--tensorboard", "true") == (
        "error: --tensorboard: expected the package tensorboard to be installed, got none; pip install tensorboard"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_wandb_a_run_logs_to_the_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = run(*SHORT)
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["2", "4", "6"]
    assert not (folder / "wandb").exists()


def test_without_wandb_a_line_says_what_to_install(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    expected = "expected the package wandb to be installed for offline, got none; pip install wandb, or give disabled"
    assert fails("fit", "--config", "digits", "--wandb.mode", "offline") == f"error: --wandb.mode: {expected}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["- {}", "  {}"])
def test_loggers_of_a_config_are_added(run: Run, tmp_path: Path, form: str) -> None:
    mine = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: mine, name: '', version: ''}}"
    (tmp_path / "mine.yaml").write_text(f"trainer:\n  logger:\n  {form.format(mine)}\n")
    folder = run(*SHORT, "--config", "mine.yaml")
    assert folder.parent.parent == tmp_path / "runs"
    assert {file.name for file in folder.iterdir()} == FILES
    ours, theirs = rows(folder / "metrics.csv"), rows(tmp_path / "mine" / "metrics.csv")
    assert len(ours) == 3
    assert [row["step"] for row in theirs] == ["2", "4", "6"]
    assert [float(row["generator_loss"]) for row in theirs] == [float(row["generator_loss"]) for row in ours]


@pytest.mark.ci
def test_csv_logger_deletes_its_table_with_a_warning(run: Run, tmp_path: Path) -> None:
    mine = "[{class_path: CSVLogger, init_args: {save_dir: mine, name: '', version: ''}}]"
    options = (*SHORT[2:], "--trainer.logger", mine)
    first = run("--trainer.max_steps", "4", *options)
    with pytest.warns(UserWarning, match="Previous log files in this directory will be deleted"):  # Lightning's own
        assert run("--trainer.max_steps", "8", *options, "--ckpt_path", "last") == first
    assert [row["step"] for row in rows(tmp_path / "mine" / "metrics.csv")] == ["6", "8"]
    assert [row["step"] for row in rows(first / "metrics.csv")] == ["2", "4", "6", "8"]


@pytest.mark.parametrize("form", ["[{}]", "{}"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModuleNotFoundError(\"No module named 'mlflow'\")", "No module named 'mlflow'"),
        ("RuntimeError('no server,\\n  nowhere')", "no server, nowhere"),
        ("OSError(13, 'denied', 'x')", "[Errno 13] denied: 'x'"),
    ],
)
def test_a_logger_that_cannot_be_made(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, error: str, reason: str
) -> None:
    head = "from lightning.pytorch.loggers import CSVLogger\n\n\nclass Broken(CSVLogger):\n    def __init__(self):\n"
    (tmp_path / "broken.py").write_text(f"{head}        raise {error}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    given = form.format("{class_path: broken.Broken}")
    assert fails("fit", "--config", "digits", "--trainer.logger", given) == (
        f"error: --trainer.logger: cannot create broken.Broken: {reason}; change or omit it"
    )
    assert not (tmp_path / "runs").exists()


def test_no_logger_leaves_no_folder(tmp_path: Path) -> None:
    options = ["--trainer.logger", "false", "--trainer.default_root_dir", "here", "--tensorboard", "true"]
    main(["fit", "--config", "digits", *SHORT, "--trainer.accelerator", "cpu", *options])
    assert [file.name for file in tmp_path.iterdir()] == ["here"]
    assert {file.name for file in Path("here").iterdir()} == {"samples", "samples.gif", "checkpoints"}


def test_own_wandb_logger_takes_the_place_of_ours(tmp_path: Path) -> None:
    def kinds(*given: Any) -> list[str]:
        found = loggers(tmp_path, "name", list(given), {"mode": "offline"}, False)  # type: ignore[arg-type]
        assert found[2 - any(isinstance(logger, WandbLogger) for logger in given) :] == list(given)
        return [type(logger).__name__ for logger in found]

    own = WandbLogger(project="mine", save_dir=tmp_path, mode="disabled")
    assert kinds(own) == ["MetricsFile", "WandbLogger"]
    assert kinds(CSVLogger(tmp_path)) == ["MetricsFile", "WandbLogger", "CSVLogger"]


def test_run_without_a_progress_bar(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(*SHORT, "--trainer.enable_progress_bar", "false")
    assert "Epoch" not in capsys.readouterr().out
