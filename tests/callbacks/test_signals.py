"""Signals that stop a run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.paths import DIGITS
from helpers.run_files import last_of
from lightning_cgan import ConditionalGAN
from lightning_cgan.callbacks.signals import STOP_SIGNALS, StopSignals
from lightning_cgan.cli.main import main

TRAINER: Any = SimpleNamespace(world_size=1, global_step=3)


@pytest.fixture
def signals() -> Any:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    stop_signals = StopSignals()
    stop_signals.install_handlers(TRAINER)
    yield stop_signals
    stop_signals.restore_handlers()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_for_a_stop(signals: StopSignals, number: signal.Signals) -> None:
    assert not signals.must_stop(TRAINER)
    signal.raise_signal(number)
    assert signals.must_stop(TRAINER)
    assert signals.stopped_by == number


def test_a_second_ctrl_c_stops_at_once(signals: StopSignals) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_step_is_finished_and_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    step = ConditionalGAN.run_step

    def interrupted(module: ConditionalGAN, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            signal.raise_signal(number)
        step(module, batch, batch_idx)

    monkeypatch.setattr(ConditionalGAN, "run_step", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", DIGITS, "--trainer.accelerator", "cpu", "--scores.images", "0"])
    assert ended.value.code == 128 + number
    assert "Stopped at step 3. " in capsys.readouterr().out
    (folder,) = tmp_path.glob("runs/digits/*")
    checkpoint = last_of(folder)
    assert checkpoint["global_step"] == 3
    assert [int(optimizer["state"][0]["step"]) for optimizer in checkpoint["optimizer_states"]] == [3, 3]
    assert signal.getsignal(number) == before


def test_a_run_restores_the_handlers(run: Callable[..., Path]) -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    run("--trainer.max_steps", "2", "--scores.images", "0")
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
