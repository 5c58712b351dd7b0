"""The command line as a person uses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from helpers.commands import BEGINNINGS, Command
from helpers.paths import CONFIGS, DIGITS
from lightning_cgan import DigitsData
from lightning_cgan.cli.main import main

Run = Callable[..., Path]


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments, "--print_config"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_print_config_round_trips(capsys: pytest.CaptureFixture[str], tmp_path: Path, config: Path) -> None:
    printed = printed_config(capsys, "--config", str(config))
    (tmp_path / "printed.yaml").write_text(printed)
    assert yaml.safe_load(printed_config(capsys, "--config", "printed.yaml")) == yaml.safe_load(printed)
    assert "Unable to serialize" not in printed


@pytest.mark.parametrize("option", [["--config", "digits"], ["--config=digits"], ["-c", "digits"]])
def test_shipped_configs_have_names(capsys: pytest.CaptureFixture[str], tmp_path: Path, option: list[str]) -> None:
    assert printed_config(capsys, *option) == printed_config(capsys, "--config", DIGITS)
    (tmp_path / "digits").write_text(Path(DIGITS).read_text() + "seed_everything: 7\n")  # a file comes first
    assert "seed_everything: 7" in printed_config(capsys, *option)


@pytest.mark.ci
def test_config_of_a_run_repeats_the_run(run: Run) -> None:
    first = run("--trainer.max_steps", "3", "--model.generator.latent_dim", "9")
    second = run(config=str(first / "config.yaml"))
    assert first != second
    assert first.parent == second.parent  # the run keeps its name
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (first, second))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.usefixtures("_quick_judge")
def test_validate_and_test(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = run("--trainer.max_steps", "3", "--data.classes", "[3,5,8]", "--scores.images", "50")
    before = sorted(tmp_path.rglob("*"))
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    capsys.readouterr()
    for command, prefix in (("validate", "val"), ("test", "test")):
        # of the reports of `test` there is more in evaluation/test_protocol.py
        main([command, *common, *(["--report.protocol", "none"] if command == "test" else [])])
        shown = capsys.readouterr().out
        assert re.search(rf"{prefix}_discriminator_loss +│ +\d", shown)
        assert re.search(rf"{prefix}_generator_loss +│ +\d", shown)
    assert sorted(tmp_path.rglob("*")) == before  # they leave nothing behind


def test_fast_dev_run_leaves_nothing(tmp_path: Path) -> None:
    main(["fit", "--config", DIGITS, "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"])
    assert list(tmp_path.iterdir()) == []


def test_samples_share_latents_between_rows_and_over_the_run(run: Run) -> None:
    folder = run(
        *("--trainer.max_steps", "4", "--samples.every_n_steps", "2", "--samples.columns", "4", "--samples.rows", "2"),
        *("--samples.labels", "[7,7,1]", "--data.image_size", "56"),
    )
    files = sorted((folder / "samples").iterdir())
    assert [file.name for file in files] == ["00000000.png", "00000002.png", "00000004.png"]
    picture = Image.open(files[-1])
    assert picture.size == (4 * 58 + 2, 6 * 58 + 2)

    def row(number: int) -> bytes:
        return picture.crop((0, 58 * number + 2, picture.width, 58 * number + 58)).tobytes()

    assert row(0) == row(2)  # the label 7 again, with the same latents
    assert row(1) == row(3)
    assert len({row(0), row(1), row(4), row(5)}) == 4


@pytest.mark.ci
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_ctrl_c_saves_and_says_how_to_go_on(begin: type[Command], tmp_path: Path) -> None:
    command = ("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", "--model.generator_scheduler", "null")
    endless = ("--trainer.max_steps", "100000", "--trainer.log_every_n_steps", "1")
    with begin(*command, *endless) as process:
        deadline = time.monotonic() + 120
        while not any(len(f.read_text().splitlines()) > 5 for f in tmp_path.glob("runs/digits/*/metrics.csv")):
            assert time.monotonic() < deadline
            assert process.returncode is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        shown = process.wait(60)
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    stopped = re.search(r"Stopped at step ([\d,]+). To resume:\n  python -m lightning_cgan (fit .*)\n", shown)
    assert stopped, shown
    step = int(stopped[1].replace(",", ""))
    (folder,) = tmp_path.glob("runs/digits/*")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == step
    # both networks have made the same number of updates: it stopped between two steps
    assert [int(optimizer["state"][0]["step"]) for optimizer in checkpoint["optimizer_states"]] == [step, step]
    main([*stopped[2].split(), "--trainer.max_steps", str(step + 2)])
    resumed = max(tmp_path.glob("runs/digits/*"), key=lambda path: path.stat().st_mtime_ns)
    assert torch.load(resumed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == step + 2


def test_ctrl_c_at_start_up_is_quiet(tmp_path: Path) -> None:
    """It comes while libraries are imported, which would make a traceback of it."""
    command = [sys.executable, "-X", "importtime", "-m", "lightning_cgan", "fit", "--config", DIGITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:  # a line for each module that has been imported
            if line.rstrip().endswith("| torch.version") or line.rstrip().endswith(" torch.torch_version"):
                process.send_signal(signal.SIGINT)
                break
        shown, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (shown, [line for line in told.splitlines() if not line.startswith("import time:")]) == ("", [])
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_data_are_read_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DigitsData, "read", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", DIGITS, "--trainer.accelerator", "cpu"])
    assert ended.value.code == 130
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_who_closes_the_pipe_gets_no_traceback(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lightning_cgan", *arguments]
    try:
        ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(
    "command", ["fit", "validate", "test", "predict", "generate", "invert", "export", "demo", "search"]
)
def test_help_of_each_command(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("0", "1", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr()
        assert shown.out.startswith("usage: python -m lightning_cgan")
        assert shown.err == ""
