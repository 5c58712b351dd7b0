"""What a run takes by itself: precision and threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import DIGITS

from lightning_cgan import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from lightning_cgan.core import hardware as machine

Run = Callable[..., Path]


def test_flops_are_those_counted_by_hand() -> None:
    generator, discriminator = MLPGenerator(10, 1, 28), MLPDiscriminator(10, 1, 28)
    forward_generator = 2 * (110 * 128 + 128 * 784)
    forward_discriminator = 2 * (794 * 128 + 128)
    expected = 64 * (3 * forward_generator + 8 * forward_discriminator)
    assert machine.flops_of_alternation(generator, discriminator, 64) == expected
    generator, discriminator = DCGANGenerator(2, 1, 8, 4, channels=(6, 3)), DCGANDiscriminator(2, 1, 8, channels=(3, 6))  # type: ignore[assignment]
    # dense to 2 x 2 x 6, then 4 x 4 kernels: each input pixel meets all 16 places
    forward_generator = 2 * (6 * 24 + 4 * 6 * 3 * 16 + 16 * 3 * 16)
    forward_discriminator = 2 * (16 * 1 * 3 * 16 + 4 * 3 * 6 * 16 + 24)
    assert (
        machine.flops_of_alternation(generator, discriminator, 1) == 3 * forward_generator + 8 * forward_discriminator
    )
    assert generator.training


def test_precision_is_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_it, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(machine, "_cpu_checks", lambda has_it=has_it: [lambda: False, lambda: has_it])
        assert machine.fastest_precision("cpu")[0] == precision
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it, **_: has_it)
        assert machine.fastest_precision("cuda")[0] == precision
    assert machine.fastest_precision("mps") == ("32-true", "this device does not multiply bfloat16 by itself")


def test_small_networks_try_threads_and_large_ones_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = MLPGenerator(10, 1, 8, hidden=(4,)), MLPDiscriminator(10, 1, 8, hidden=(4,))
    tried: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", tried.append)
    now = iter(range(10**9))
    # as if each thread more took longer: the clock runs once more for each
    monkeypatch.setattr(machine.time, "perf_counter", lambda: sum(next(now) for _ in range(tried[-1])))
    assert machine.fastest_threads(*networks, 16, "32-true", most=6) == 1
    assert tried[:4] == [1, 2, 4, 6]
    assert tried[-1] == torch.get_num_threads()
    large = MLPGenerator(10, 1, 8, hidden=(3000, 3000)), MLPDiscriminator(10, 1, 8, hidden=(3000, 3000))
    assert machine.fastest_threads(*large, 16, "bf16-mixed", most=6) == 6
    assert machine.fastest_threads(*networks, 16, "32-true", most=1) == 1


def test_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "Path", lambda _: quota)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for text, cores in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), (None, 8)):
        quota.unlink(missing_ok=True)
        if text:
            quota.write_text(text)
        assert machine.available_cores() == cores


def test_the_choice_is_printed_kept_and_overridden(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()
    try:
        folder = run("--trainer.max_steps", "1")
        shown = caplog.text
        caplog.clear()
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert f"Precision {kept['trainer']['precision']}, since this CPU" in shown
        assert f"CPU threads: {kept['threads']}; --threads chooses another number" in shown
        assert kept["threads"] >= 1
        folder = run("--trainer.max_steps", "1", "--trainer.precision", "32-true", "--threads", "1")
        kept = yaml.safe_load((folder / "config.yaml").read_text())
        assert (kept["trainer"]["precision"], kept["threads"], torch.get_num_threads()) == ("32-true", 1, 1)
        assert "chooses another" not in caplog.text
    finally:
        torch.set_num_threads(before)


def test_threads_must_be_positive(fails: Callable[..., str]) -> None:
    message = fails("fit", "--config", DIGITS, "--threads", "0")
    assert message.startswith("error: --threads: expected 1 or more, got 0; give a positive number")
