"""What a run takes by itself is told, kept and overridden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from helpers.paths import DIGITS
from lightning_cgan import DigitsData
from lightning_cgan.cli import machine_defaults
from lightning_cgan.cli.main import CLI, main
from lightning_cgan.training import compilation, compile_choice

Run = Callable[..., Path]
Choose = Callable[..., tuple[str, list[str]]]
SMALL = ("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator", "--data.image_size", "8")


def test_the_choice_is_printed_kept_and_overridden(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()
    try:
        folder = run("--trainer.max_steps", "1", *SMALL)
        shown = caplog.text
        caplog.clear()
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert f"Precision {kept['trainer']['precision']}, since this CPU" in shown
        assert f"CPU threads: {kept['threads']}; --threads chooses another number" in shown
        assert kept["threads"] >= 1
        folder = run("--trainer.max_steps", "1", *SMALL, "--trainer.precision", "32-true", "--threads", "1")
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert (kept["trainer"]["precision"], kept["threads"], torch.get_num_threads()) == ("32-true", 1, 1)
        assert "chooses another" not in caplog.text
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_other_commands(monkeypatch: pytest.MonkeyPatch, short_run: Path) -> None:
    seen = []
    monkeypatch.setattr(CLI, "_run_subcommand", lambda *_: seen.append(torch.get_num_threads()))
    last = ["--config", str(short_run / "config.yaml"), "--ckpt_path", str(short_run / "checkpoints" / "last.ckpt")]
    for number in (2, 1):
        main(["validate", *last, "--threads", str(number)])
    assert seen == [2, 1]


def test_threads_must_be_positive(fails: Callable[..., str]) -> None:
    message = fails("fit", "--config", DIGITS, "--threads", "0")
    assert message.startswith("error: --threads: expected 1 or more, got 0; give a positive number")


# ---- what is compiled ------------------------------------------------------------------------------------------------


@pytest.fixture
def _compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has what compiling needs."""
    monkeypatch.setattr(machine_defaults, "has_compiler_for_cpu", lambda: True)


@pytest.fixture
def choose(_compiler: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Choose:
    """Builds a run without training, and returns what it would compile, and the lines about it."""
    caplog.set_level(logging.INFO)

    def chosen(config: str, *args: str) -> tuple[str, list[str]]:
        caplog.clear()
        seen: list[CLI] = []
        with monkeypatch.context() as patch:
            patch.setattr(CLI, "fit", lambda cli, **_: (cli.choose_compile(), seen.append(cli)))
            main(["fit", "--config", config, "--trainer.accelerator", "cpu", *args])
        (cli,) = seen
        mode = cli.config["fit"].model.compile
        assert cli.model.compilation.mode == cli.model.hparams["compile"] == mode
        return mode, [message for message in caplog.messages if "ompile" in message or "graph" in message]

    return chosen


def told(mode: str, reason: str) -> tuple[str, list[str]]:
    return mode, [f"Compile {mode}, {reason}; --model.compile chooses another"]


def test_long_runs_of_small_networks_are_compiled(choose: Choose, mnist_folder: str) -> None:
    data = ("--data.data_dir", mnist_folder)
    long = told("step", "since 100,000 steps of 0.15 GFLOP repay the compilation")
    assert choose("mnist_mlp", *data) == choose("mnist_mlp", *data, "--model.compile", "auto") == long
    assert choose("mnist_mlp", *data, "--model.compile", "none") == ("none", [])
    assert choose("mnist_mlp", *data, "--model.compile", "networks") == ("networks", [])
    assert choose("mnist_mlp", *data, "--trainer.max_steps", "5999") == ("none", [])
    assert choose("mnist", *data, "--trainer.max_steps", "1000000") == ("none", [])


def test_epochs_are_counted_in_steps(choose: Choose, mnist_folder: str) -> None:
    """The 550 images that are not held out make four batches of 128."""
    config = ("mnist_mlp_batchnorm", "--data.data_dir", mnist_folder)
    assert choose(*config) == ("none", [])
    long = (*config, "--trainer.max_epochs", "20000")
    assert choose(*long) == told("step", "since 80,000 steps of 1.5 GFLOP repay the compilation")
    part = choose(*long, "--trainer.limit_train_batches", "0.5")
    assert part == told("step", "since 40,000 steps of 1.5 GFLOP repay the compilation")
    assert choose(*long, "--trainer.limit_train_batches", "1") == ("none", [])
    assert choose(*long, "--model.discriminator_steps", "3") == ("none", [])
    assert choose(*long, "--trainer.max_steps", "30000") == ("none", [])
    endless = choose(*config, "--trainer.max_epochs", "-1", "--trainer.max_time", "01:00:00:00")
    assert endless == ("none", [])


class OwnCallback(Callback):
    pass


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.max_time", "00:00:09:00"),
        ("--trainer.detect_anomaly", "true"),
        ("--trainer.devices", "2"),
        ("--trainer.callbacks", f"{__name__}.OwnCallback"),
        ("--model.generator_clip_norm", "1"),
        ("--model.generator_accumulation", "2"),
        ("--model.generator_optimizer", "torch.optim.SGD", "--model.generator_optimizer.lr", "0.1"),
    ],
)
def test_nothing_is_said_where_steps_cannot_be_compiled(choose: Choose, options: tuple[str, ...]) -> None:
    assert choose("mnist_mlp", "--data", "DigitsData", *options) == ("none", [])


def test_without_a_compiler_or_on_a_gpu_nothing_is_compiled(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ("mnist_mlp", "--data", "DigitsData")
    assert choose(*config, "--trainer.max_time", "00:00:11:00")[0] == "step"
    with monkeypatch.context() as patch:
        patch.setattr(machine_defaults, "has_compiler_for_cpu", lambda: False)
        assert choose(*config) == ("none", [])
    monkeypatch.setattr(machine_defaults, "DEVICES", ("another",))
    assert choose(*config) == ("none", [])


def test_what_compiling_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not compilation.has_compiler_for_cpu()
    (tmp_path / "Python.h").touch()
    assert not compilation.has_compiler_for_cpu()
    compiler = tmp_path / "g++"
    compiler.touch(0o755)
    assert compilation.has_compiler_for_cpu()
    (tmp_path / "Python.h").unlink()
    assert not compilation.has_compiler_for_cpu()


@pytest.mark.parametrize(
    ("graph", "mode"),
    [
        ("step, compiled", "step"),
        ("alternation, compiled", "step"),  # as an earlier version called it
        ("networks", "networks"),
        ("none", "none"),
        ("step", "none"),  # of a machine without a compiler, which this one has
    ],
)
def test_a_resumed_run_compiles_what_it_did_before(
    choose: Choose, short_run: Path, monkeypatch: pytest.MonkeyPatch, graph: str, mode: str
) -> None:
    saved = torch.load(short_run / "checkpoints" / "last.ckpt", weights_only=True)
    saved["lightning_cgan"]["numerics"]["graph"] = graph
    torch.save(saved, "a.ckpt")
    resumed = ("mnist_mlp", "--data", "DigitsData", "--ckpt_path", "a.ckpt")
    assert choose(*resumed) == told(mode, "as in the checkpoint")
    short = (*resumed, "--trainer.max_steps", "30")
    assert choose(*short) == (("none", []) if mode == "none" else told(mode, "as in the checkpoint"))
    assert choose(*resumed, "--model.compile", "networks") == ("networks", [])
    if mode == "step":
        assert choose(*resumed, "--model.generator_clip_norm", "1") == ("none", [])
    monkeypatch.setattr(machine_defaults, "has_compiler_for_cpu", lambda: False)
    assert choose(*resumed)[0] == ("step" if graph == "step" else "none")


def test_a_checkpoint_that_does_not_say_what_was_compiled(choose: Choose, short_run: Path) -> None:
    saved = torch.load(short_run / "checkpoints" / "last.ckpt", weights_only=True)
    del saved["lightning_cgan"]["numerics"]
    torch.save(saved, "a.ckpt")
    assert choose("digits", "--ckpt_path", "a.ckpt") == ("none", [])


class LoadsUnderATrainer(DigitsData):
    """A data module that asks its Trainer for something."""

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return super().train_dataloader()


@pytest.mark.parametrize(("data", "steps"), [(DigitsData(batch_size=64), 2 * 20), (LoadsUnderATrainer(), 0)])
def test_epochs_are_counted_of_data_that_need_no_trainer(data: DigitsData, steps: int) -> None:
    trainer = SimpleNamespace(callbacks=[], max_steps=-1, max_epochs=2, limit_train_batches=1.0)
    found = machine_defaults._length_of_run(trainer, data, 1, 10)  # type: ignore[arg-type]
    assert found == steps  # 1,317 images for training


@pytest.mark.usefixtures("_compiler")
def test_the_choice_is_printed_and_kept(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two graphs, one with the penalty, and none of them compiled, which is quick."""
    monkeypatch.setattr(compile_choice, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(compile_choice, "_STEPS_PER_GFLOP", 0)
    monkeypatch.setattr(compilation.Compilation, "has_compiler", lambda _: False)
    caplog.set_level(logging.INFO)
    for steps, mode in ((1, "none"), (2, "step")):
        caplog.clear()
        folder = run("--trainer.max_steps", str(steps), "--name", f"of-{steps}", *SMALL)
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["compile"] == mode
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert saved["hyper_parameters"]["compile"] == mode
        assert saved["lightning_cgan"]["numerics"]["graph"] == mode
        lines = [message for message in caplog.messages if message.startswith("Compile ")]
        said = "Compile step, since 2 steps of 0.015 GFLOP repay the compilation; --model.compile chooses another"
        assert lines == ([said] if mode == "step" else [])


@pytest.mark.ci
@pytest.mark.skipif(not compilation.has_compiler_for_cpu(), reason="torch.compile needs a compiler and headers")
def test_a_compiled_run_resumes_to_the_last_bit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_choice, "_FEWEST_STEPS", 3)
    monkeypatch.setattr(compile_choice, "_STEPS_PER_GFLOP", 0)
    options = (*SMALL, "--model.penalties", "[]", "--scores.images", "0", "--model.generator_scheduler", "null")
    options += ("--model.discriminator_scheduler", "null")
    whole, part = (run("--trainer.max_steps", steps, "--name", steps, *options) for steps in ("6", "3"))
    rest = run("--trainer.max_steps", "6", "--name", "3", "--ckpt_path", "last", *options)
    assert rest == part
    assert yaml.safe_load((rest / "config_2.yaml").read_text())["model"]["compile"] == "step"
    expected, got = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (whole, rest))
    assert got["lightning_cgan"]["numerics"]["graph"] == "step, compiled"
    assert all(torch.equal(value, got["state_dict"][name]) for name, value in expected["state_dict"].items())
