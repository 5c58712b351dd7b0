"""What the machine has: precisions, and cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_cgan.core import hardware as machine


def test_precision_is_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_it, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_it=has_it: has_it, raising=False)
        assert machine.fastest_precision("cpu")[0] == precision
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it, **_: has_it)
        assert machine.fastest_precision("cuda")[0] == precision
    assert machine.fastest_precision("mps") == ("32-true", "this device does not multiply bfloat16 natively")


def test_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "Path", lambda _: quota)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for text, cores in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), (None, 8)):
        quota.unlink(missing_ok=True)
        if text:
            quota.write_text(text)
        assert machine.available_cores() == cores
