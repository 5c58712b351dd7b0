"""What is on the screen of a user, and what a command leaves behind in the process that called it."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar

from helpers.commands import BEGINNINGS, Command
from lightning_cgan.__main__ import _check_backend, _check_home
from lightning_cgan.cli.console import command, encodable, quiet, restored_state
from lightning_cgan.cli.main import main
from lightning_cgan.runs.loggers import ended_wandb_run

SMALL = ("--config", "digits", "--data.image_size", "8", "--scores.images", "0", "--trainer.accelerator", "cpu")
SHORT = ("fit", *SMALL, "--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false")

PROGRAM = [sys.executable, "-m", "lightning_cgan"]
ASCII = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "no_such_backend"}

# Every line of a first run, in this order.
LINES = (
    r"Seed set to 0",
    r"Precision \S+, since this CPU .* multiply bfloat16 natively; --trainer.precision chooses another",
    r"GPU available: \w+.*, used: False",
    r"Generator: DCGANGenerator, 46,241 parameters; Discriminator: DCGANDiscriminator, 36,193 parameters",
    r"`Trainer.fit` stopped: `max_steps=2` reached.",
    r"Pictures: (runs/digits/\S+)/samples, \1/samples.gif",
    r"Checkpoint: runs/digits/\S+/checkpoints/last.ckpt",
    r"Weights & Biases: to upload the run, wandb sync runs/digits/\S+/wandb/offline-run-\*",
)


@pytest.mark.ci
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_first_run_says_nothing_that_is_of_no_use(
    begin: type[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, where the tests have set nothing."""
    pytest.importorskip("wandb")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    with begin(*SHORT) as process:
        shown = process.wait().splitlines()
    assert process.returncode == 0, shown
    if torch.cuda.is_available():  # one is asked to use it
        shown = [line for line in shown if "GPU available but not used" not in line]
    assert len(shown) == len(LINES), shown
    for line, expected in zip(shown, LINES, strict=True):
        assert re.fullmatch(expected, line.strip())


@pytest.mark.ci
def test_two_runs_of_a_process_have_runs_of_their_own_at_weights_and_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for options in (["--name", "one"], ["--name", "bad", "--samples.labels", "[11]"], ["--name", "two"]):
        if options[1] == "bad":
            with pytest.raises(SystemExit):
                main([*SHORT, *options])
        else:
            main([*SHORT, *options])
        assert wandb.run is None
    kept = {name: len(list(Path().glob(f"runs/{name}/*/wandb/offline-run-*"))) for name in ("one", "bad", "two")}
    assert kept == {"one": 1, "bad": 0, "two": 1}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("was_there", [False, True])
def test_a_run_of_weights_and_biases_is_ended_by_who_began_it(
    monkeypatch: pytest.MonkeyPatch, fails: bool, was_there: bool
) -> None:
    ended: list[int] = []
    began = SimpleNamespace(finish=lambda exit_code: ended.append(exit_code))
    fake: Any = SimpleNamespace(run=began if was_there else None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    try:
        with ended_wandb_run():
            fake.run = began
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert ended == ([] if was_there else [int(fails)])


def test_a_command_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> list[Any]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        numbers = (torch.get_num_threads(), torch.get_default_dtype(), torch.backends.cudnn.benchmark)
        strict = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        return [dict(os.environ), handlers, numbers, strict]

    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("LOST", "1")
    before = state()
    with restored_state():
        os.environ["KEPT"] = "2"
        del os.environ["LOST"]
        os.environ["LOCAL_RANK"] = "0"  # Lightning's launcher, and a second run would wait for others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    assert state() == before
    main([*SHORT, "--trainer.deterministic", "true", "--threads", "2", "--trainer.benchmark", "true"])
    assert state() == before
    with pytest.raises(SystemExit):
        main([*SHORT, "--trainer.deterministic", "true", "--threads", "2", "--samples.labels", "[-1]"])
    assert state() == before


@pytest.mark.parametrize(
    ("options", "bars", "checkpoint"),
    [
        (["--trainer.enable_checkpointing", "false"], ["ProgressBar"], False),
        (["--trainer.barebones", "true"], [], False),
        (["--trainer.callbacks+=TQDMProgressBar"], ["TQDMProgressBar"], True),
        (["--trainer.callbacks+=RichProgressBar", "--trainer.callbacks.refresh_rate=3"], ["RichProgressBar"], True),
        (["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"], ["ProgressBar"], True),
    ],
)
def test_options_of_lightning_take_the_place_of_ours(
    monkeypatch: pytest.MonkeyPatch, options: list[str], bars: list[str], checkpoint: bool
) -> None:
    seen: list[Any] = []
    real = sys.modules["lightning_cgan.cli.main"].print_results  # type: ignore[attr-defined]
    monkeypatch.setattr("lightning_cgan.cli.main.print_results", lambda *given: (seen.append(given[0]), real(*given)))
    main(["fit", *SMALL, "--trainer.max_steps", "2", *options])
    (trainer,) = seen
    assert trainer.global_step == 2
    assert [type(one).__name__ for one in trainer.callbacks if isinstance(one, AnyProgressBar)] == bars
    assert any(Path().glob("runs/digits/*/checkpoints/last.ckpt")) == checkpoint
    assert any(Path().glob("runs")) == ("--trainer.barebones" not in options)


@pytest.mark.parametrize(("columns", "shown"), [(80, ["D", "G"]), (140, ["D", "G", "images/s"])])
def test_the_bar_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["fit", *SMALL, "--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1"])
    (bar,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch"))
    assert len(bar.rstrip()) <= columns
    assert re.findall(r"([\w/-]+): ", bar) == shown


@pytest.mark.parametrize(
    "message", ["TPU available: False, using: 0 TPU cores", "💡 Tip: litlogger", "No CUDA runtime"]
)
@pytest.mark.parametrize("name", ["lightning.pytorch.utilities.rank_zero", "torch.utils.cpp_extension"])
def test_what_is_kept_back(message: str, name: str) -> None:
    seen: list[str] = []
    logger, handler = logging.getLogger(name), logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    text = f"{message} is found, using CUDA_HOME='/usr/local/cuda'"
    logger.addHandler(handler)
    try:
        with quiet():
            logger.warning(text)
            logger.warning("The judge is not sure")
        assert seen == ["The judge is not sure"]
        logger.warning(text)
        assert len(seen) == 2
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_letter(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    with encodable():
        print("猫 1,000 …", flush=True)
    assert terminal.errors == "strict"
    expected = {"ascii": rb"\u732b 1,000 \u2026", "cp1252": b"\\u732b 1,000 \x85", "utf-8": "猫 1,000 …".encode()}
    assert written.getvalue().strip() == expected[encoding]


def test_a_terminal_that_lacks_a_letter_gets_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert subprocess.run([*PROGRAM, "--help"], env={**os.environ, **ASCII}, check=False).returncode == 0
    assert "[--config FILE.yaml \\u2026]" in capfd.readouterr().out


@pytest.mark.ci
def test_a_terminal_that_lacks_a_letter_gets_errors(capfd: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.run([*PROGRAM, "fit", "--config", "猫.yaml"], env={**os.environ, **ASCII}, check=False)
    shown = capfd.readouterr()
    assert ended.returncode == 2
    assert shown.err.splitlines()[-1].startswith("error: --config: no such file: ")
    assert "\\u732b.yaml" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(("name", "stays"), [("agg", True), ("svg", True), ("widgets", False), ("nonsense://x", False)])
def test_a_backend_of_a_notebook(monkeypatch: pytest.MonkeyPatch, name: str, stays: bool) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context():
        monkeypatch.setenv("MPLBACKEND", name)
        _check_backend()
        assert os.environ.get("MPLBACKEND") == (name if stays else None)


@pytest.mark.skipif(os.name != "posix", reason="where homes have these folders")
@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "file", None])
def test_without_a_home_caches_go_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in ("MPLCONFIGDIR", "WANDB_DATA_DIR", "TORCHINDUCTOR_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", "mine")
    Path("file").touch()
    if home is None:
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user that nobody knows
    else:
        monkeypatch.setenv("HOME", home)
    _check_home()
    assert os.environ["WANDB_CACHE_DIR"] == "mine"
    for name in ("MPLCONFIGDIR", "WANDB_DATA_DIR", "TORCHINDUCTOR_CACHE_DIR", "WANDB_CONFIG_DIR"):
        place = Path(os.environ[name])
        assert place.is_dir()
        assert place.is_relative_to(tmp_path / "temporary")
        monkeypatch.delenv(name)
    assert not Path("~").exists()
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    _check_home()
    assert dict(os.environ) == before


def test_a_mistake_ends_a_command_with_one_line(fails: Callable[..., str]) -> None:
    with pytest.raises(ZeroDivisionError), command():  # which is no user's mistake
        1 / 0  # noqa: B018
    assert fails("fit", *SMALL, "--trainer.barebones", "true", "--trainer.profiler", "simple").startswith(
        "error: --trainer.barebones: expected another value, got true"
    )
