"""Configs that are laid over another, and the search of Weights & Biases."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.paths import CONFIGS, DIGITS, ROOT, SCRIPTS
from helpers.run_files import FILES
from helpers.wandb_files import written_records
from lightning_cgan import Checkpoints, ProgressBar
from lightning_cgan.cli.main import CLI, main

Run = Callable[..., Path]
OVERLAYS = sorted((CONFIGS / "with").glob("*.yaml"))
SWEEP = SCRIPTS / "sweep.yaml"
SHORT = ("--data.batch_size", "16", "--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1")


def written(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "config.yaml").read_text()))


def includes(config: Any, overlay: Any) -> bool:
    if isinstance(overlay, dict):
        return all(name in config and includes(config[name], value) for name, value in overlay.items())
    return bool(config == overlay)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_changes_what_it_says_and_nothing_else(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for config in ([], ["--config", str(overlay)], ["--config", f"with/{overlay.stem}"]):
        with pytest.raises(SystemExit):
            main(["fit", "--config", "digits", *config, "--print_config"])
        found.append(yaml.safe_load(capsys.readouterr().out))
    before, by_path, by_name = found
    wanted = yaml.safe_load(overlay.read_text())
    assert by_path == by_name
    assert includes(by_name, wanted)
    assert not includes(before, wanted)  # each value says something new
    for group, options in wanted.items():
        for name in options if isinstance(options, dict) else ():
            assert before[group][name] != by_name[group].pop(name), f"{group}.{name} is the default"
            before[group].pop(name)
        if not isinstance(options, dict):
            before.pop(group), by_name.pop(group)
    assert by_name == before


def test_every_overlay_is_told() -> None:
    told = re.findall(r"^\| `with/(\w+)` \|", (ROOT / "docs" / "train.md").read_text(), re.MULTILINE)
    assert sorted(told) == [overlay.stem for overlay in OVERLAYS]


def test_a_misspelt_overlay(fails: Callable[..., str]) -> None:
    message = fails("fit", "--config", "digits", "--config", "with/tensorbord")
    assert message.startswith("error: --config: no such file: ")
    assert message.endswith("with/tensorbord; did you mean tensorboard?")


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        (["with/tensorboard", "digits"], "digits"),
        ([str(CONFIGS / "with" / "wandb.yaml"), "with/tensorboard", DIGITS, "mnist"], "digits"),
        (["with/tensorboard"], "tensorboard"),
        ([], "run"),
    ],
)
def test_an_overlay_names_no_run(monkeypatch: pytest.MonkeyPatch, configs: list[str], name: str) -> None:
    names = []
    monkeypatch.setattr(CLI, "instantiate_classes", lambda cli: names.append(cli.config["fit"].name))
    monkeypatch.setattr(CLI, "_run_subcommand", lambda *_: None)
    parts = ["--data", "DigitsData", "--model.loss", "Hinge"]
    parts += ["--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator"]
    main(["fit", *[part for config in configs for part in ("--config", config)], *parts])
    assert names == [name]


def test_tensorboard(run: Run) -> None:
    folder = run("--config", "with/tensorboard", *SHORT)
    assert folder.parent.name == "digits"
    assert {file.name for file in folder.iterdir()} == FILES | {"tensorboard"}
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.ci
def test_wandb(run: Run) -> None:
    folder = run("--config", "with/wandb", "--wandb.mode", "offline", *SHORT)
    (begin,) = [record.run for record in written_records(folder) if record.HasField("run")]
    assert (begin.project, list(begin.tags)) == ("conditional_gans", ["lightning_cgan"])
    assert {file.name for file in folder.iterdir()} == FILES | {"wandb"}


@pytest.mark.ci
def test_multi_gpu_on_two_processes_is_the_run_of_one(run: Run, tmp_path: Path) -> None:
    options = [*SHORT, "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    for network in ("generator", "discriminator"):  # Adam would make steps of rounding errors
        options += [f"--model.{network}_optimizer", "SGD", f"--model.{network}_optimizer.lr", "0.1"]
    command = [sys.executable, "-m", "lightning_cgan", "fit", "--config", DIGITS, "--config", "with/multi_gpu"]
    command += [*options, "--trainer.devices", "2", "--runs_dir", "two"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (two,) = Path("two").glob("digits/*")
    assert {file.name for file in two.iterdir()} == FILES
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (two, run(*options))
    ]
    assert all(torch.allclose(value, states[1][name], atol=1e-4) for name, value in states[0].items())


def test_mixed_precision(run: Run) -> None:
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        folder = run("--config", "with/mixed_precision", *SHORT)
    assert written(folder)["trainer"]["precision"] == "16-mixed"
    assert {file.name for file in folder.iterdir()} == FILES


def test_slurm(built: Callable[..., dict[str, Any]], run: Run) -> None:
    trainer = built("digits.yaml", "--config", "with/slurm")["trainer"]
    assert trainer.progress_bar_callback is None
    assert not any(isinstance(callback, ProgressBar) for callback in trainer.callbacks)
    (saves,) = [callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)]
    assert saves._every_n_train_steps == 500
    assert trainer.loggers[1]._wandb_init["mode"] == "offline"


def test_slurm_runs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("--config", "with/slurm", "--wandb.mode", "disabled", *SHORT)
    assert "Epoch" not in capsys.readouterr().out
    assert {file.name for file in folder.iterdir()} == FILES


# ---- the search --------------------------------------------------------------------------------------------------------


def ends(parameter: dict[str, Any]) -> tuple[Any, Any]:
    """The first and the last value of a parameter."""
    values = parameter.get("values") or [parameter["min"], parameter["max"]]
    return values[0], values[-1]


@pytest.mark.ci
@pytest.mark.parametrize("end", [0, 1])
def test_the_command_of_the_sweep_runs(end: int, tmp_path: Path) -> None:
    """As the agent of Weights & Biases puts it together."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = yaml.safe_load(SWEEP.read_text())
    chosen = {name: {"value": ends(parameter)[end]} for name, parameter in sweep["parameters"].items()}
    flags = utils.create_sweep_command_args({"args": chosen})["args"]
    command = utils.create_sweep_command(sweep["command"])
    assert command[:5] == ["${env}", "python", "-m", "lightning_cgan", "fit"]
    assert command[-1] == "${args}"
    short = ["--data", "DigitsData", "--data.batch_size", "300", "--trainer.max_steps", "8", "--scores.images", "50"]
    main([*command[4:-1], *flags, *short, "--wandb.mode", "disabled", "--trainer.accelerator", "cpu"])
    (folder,) = Path("runs", "mnist_quick").iterdir()
    made = written(folder)["model"]
    assert made["generator_optimizer"]["init_args"]["lr"] == chosen["model.generator_optimizer.lr"]["value"]
    assert made["loss"]["class_path"] == f"lightning_cgan.{chosen['model.loss']['value']}"
    assert made["penalties"][0]["init_args"]["gamma"] == [0.3, 1.0][end]
    with (folder / "metrics.csv").open() as table:
        scored = [row for row in csv.DictReader(table) if row[sweep["metric"]["name"]]]
    assert len(scored) == 1
