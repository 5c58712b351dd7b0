"""What a run chose by itself and its last bits depend on is taken from its checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from helpers.paths import DIGITS, FIXED_DECAY
from lightning_cgan import ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.cli import machine_defaults
from lightning_cgan.training.numerics import warn_of_differences

Run = Callable[..., Path]
SMALL = ("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator", "--scores.images", "0")
SMALL += ("--data.image_size", "8", *FIXED_DECAY)


@pytest.fixture(autouse=True)
def _as_typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Most who use the command line set no number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Makes the machine one that suits a number of threads and a precision."""

    def become(threads: int, precision: str) -> None:
        monkeypatch.setattr(machine_defaults, "fastest_threads", lambda *_: threads)
        monkeypatch.setattr(machine_defaults, "fastest_precision", lambda _: (precision, "this CPU is so"))

    return become


def kept(folder: Path, number: str = "") -> tuple[str, int | None]:
    config = yaml.safe_load((folder / f"config{number}.yaml").read_text())
    return config["trainer"]["precision"], config["threads"]


def checkpoint(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))


def test_a_run_keeps_its_threads_and_its_precision(
    run: Run, machine: Callable[[int, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine(2, "bf16-mixed")
    whole = run(*SMALL, "--trainer.max_steps", "6", "--name", "whole")
    part = run(*SMALL, "--trainer.max_steps", "3", "--name", "part")
    expected = {"threads": [2], "precision": "bf16-mixed", "device": "cpu", "graph": "none"}
    assert checkpoint(part)["lightning_cgan"]["numerics"] == expected
    machine(1, "32-true")  # busy by now, or another
    torch.set_num_threads(1)
    caplog.clear()
    rest = run(*SMALL, "--trainer.max_steps", "6", "--name", "part", "--ckpt_path", "last")
    assert "Precision bf16-mixed, as in the checkpoint; --trainer.precision chooses another" in caplog.messages
    assert "CPU threads: 2, as in the checkpoint; --threads chooses another number" in caplog.messages
    assert torch.get_num_threads() == 1  # as before the run, which had two: see `numerics`
    assert kept(rest) == kept(rest, "_2") == ("bf16-mixed", 2)
    wanted, got = checkpoint(whole), checkpoint(rest)
    assert all(torch.equal(value, got["state_dict"][name]) for name, value in wanted["state_dict"].items())
    assert str(wanted["optimizer_states"]) == str(got["optimizer_states"])
    assert got["lightning_cgan"]["numerics"] == expected


OTHERWISE = (
    "the checkpoint: expected what its run had, {}; resuming anyway, but the last bits will differ from those of an "
    "uninterrupted run"
)


# Options, OMP_NUM_THREADS, what differs, and what config.yaml says then
OTHERS = [
    (["--threads", "1"], None, "CPU threads 2, got 1", ("bf16-mixed", 1)),
    ([], "1", "CPU threads 2, got 1", ("bf16-mixed", None)),
    (["--trainer.precision", "32-true"], None, "precision bf16-mixed, got 32-true", ("32-true", 2)),
    (["--config", "mine.yaml"], None, "CPU threads 2, got 1; precision bf16-mixed, got 32-true", ("32-true", 1)),
    (["--threads", "2"], "1", None, ("bf16-mixed", 2)),
]


@pytest.mark.ci
def test_who_says_otherwise_is_told(
    run: Run,
    machine: Callable[[int, str], None],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("mine.yaml").write_text("threads: 1\ntrainer: {precision: 32-true}\n")
    machine(2, "bf16-mixed")
    last = str(run(*SMALL, "--trainer.max_steps", "1") / "checkpoints" / "last.ckpt")
    machine(3, "32-true")
    for number, (options, threads, differences, expected) in enumerate(OTHERS):
        recwarn.clear()
        with monkeypatch.context() as environment:
            if threads is not None:
                environment.setenv("OMP_NUM_THREADS", threads)
                torch.set_num_threads(int(threads))  # as PyTorch does when it is loaded
            name = ("--name", f"other-{number}")
            rest = run(*SMALL, "--trainer.max_steps", "2", *name, "--ckpt_path", last, *options)
        assert kept(rest) == expected
        said = [str(one.message) for one in recwarn if "last bits" in str(one.message)]
        assert said == ([] if differences is None else [OTHERWISE.format(differences)])


@pytest.mark.ci
def test_what_a_checkpoint_cannot_choose_the_machine_does(run: Run, machine: Callable[[int, str], None]) -> None:
    machine(2, "32-true")
    saved = checkpoint(run(*SMALL, "--trainer.max_steps", "1"))
    numerics = saved["lightning_cgan"].pop("numerics")
    machine(3, "bf16-mixed")
    for number, (change, expected) in enumerate(
        [
            (None, ("bf16-mixed", 3)),  # as an older version wrote it
            ({"threads": [64], "precision": "transformer-engine"}, ("bf16-mixed", 3)),
            ({"threads": []}, ("32-true", 3)),
            ({"device": "cuda"}, ("32-true", 3)),
        ]
    ):
        changed = {} if change is None else {"numerics": {**numerics, **change}}
        torch.save({**saved, "lightning_cgan": {**saved["lightning_cgan"], **changed}}, "a.ckpt")
        name = ("--name", f"other-{number}")
        assert kept(run(*SMALL, "--trainer.max_steps", "2", *name, "--ckpt_path", "a.ckpt")) == expected


def test_damaged_numerics_are_refused(run: Run, fails: Callable[..., str], tmp_path: Path) -> None:
    saved = checkpoint(run(*SMALL, "--trainer.max_steps", "1", "--threads", "1"))
    whole = saved["lightning_cgan"]["numerics"]
    options = ("--name", "bad", "--trainer.accelerator", "cpu", "--ckpt_path", "bad.ckpt")
    for numerics, expected in (
        ("all", "{'threads': [], 'precision': '', 'device': '', 'graph': ''} for lightning_cgan.numerics, got 'all'"),
        ({"threads": [1.5]}, "1 for lightning_cgan.numerics.threads.0, got 1.5"),
        ({"threads": [-1]}, "1 for lightning_cgan.numerics.threads.0, got -1"),
        ({"precision": 32}, "'' for lightning_cgan.numerics.precision, got 32"),
        ({"device": None}, "'' for lightning_cgan.numerics.device, got None"),
    ):
        saved["lightning_cgan"]["numerics"] = numerics if isinstance(numerics, str) else {**whole, **numerics}
        torch.save(saved, "bad.ckpt")
        message = f"error: the checkpoint: expected a value such as {expected}; it is damaged: take another"
        assert fails("fit", "--config", DIGITS, *options) == message
        assert not (tmp_path / "runs" / "bad").exists()


def test_a_damaged_file_and_one_that_cannot_be_fetched(fails: Callable[..., str]) -> None:
    Path("bad.ckpt").write_bytes(b"nothing")
    options = ("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", "--ckpt_path")
    assert "expected a complete checkpoint, got bad.ckpt, which is damaged" in fails(*options, "bad.ckpt")
    assert machine_defaults.saved_numerics("nowhere://bucket/last.ckpt") is None
    assert machine_defaults.saved_numerics("http://127.0.0.1:9/last.ckpt") is None


def test_a_checkpoint_of_another_place_is_read(run: Run) -> None:
    folder = run(*SMALL, "--trainer.max_steps", "1", "--threads", "1")
    numerics = machine_defaults.saved_numerics(f"file://{folder}/checkpoints/last.ckpt")
    assert numerics == checkpoint(folder)["lightning_cgan"]["numerics"]


def test_a_trainer_of_ones_own_is_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    def fit(threads: int, precision: Any, ckpt_path: Path | None = None) -> Trainer:
        torch.set_num_threads(threads)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", precision=precision, max_steps=2 if ckpt_path else 1, **quiet)
        module = ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), NonSaturating())
        trainer.fit(module, DigitsData(), ckpt_path=ckpt_path)
        return trainer

    fit(1, "32-true").save_checkpoint(tmp_path / "a.ckpt")
    fit(1, "32-true", tmp_path / "a.ckpt")
    assert not [one for one in recwarn if "last bits" in str(one.message)]
    fit(2, "bf16-mixed", tmp_path / "a.ckpt")
    (said,) = [str(one.message) for one in recwarn if "last bits" in str(one.message)]
    assert said == OTHERWISE.format("CPU threads 1, got 2; precision 32-true, got bf16-mixed")


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"graph": "step"}, "compilation step, compiled, got step"),
        ({"threads": [2]}, "processes 2, got 1"),
        ({"threads": [2, 1]}, "CPU threads 2, got 2, 1"),
        ({"device": "cuda", "threads": [9, 9]}, "device cpu, got cuda"),
    ],
)
def test_all_that_differs_is_named(change: dict[str, Any], differences: str) -> None:
    saved = {"threads": [2, 2], "precision": "32-true", "device": "cpu", "graph": "step, compiled"}
    with pytest.warns(UserWarning, match="last bits") as said:
        warn_of_differences(saved, {**saved, **change})
    assert str(said[0].message) == OTHERWISE.format(differences)


def test_threads_reach_the_processes_that_lightning_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        world_size = num_devices = 2

    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # for monkeypatch to restore
    assert machine_defaults.choose_threads(2, Two(), (), 8, None) == 2  # type: ignore[arg-type]
    assert os.environ["OMP_NUM_THREADS"] == "2"
