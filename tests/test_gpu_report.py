"""The report of a GPU, run on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import SCRIPTS

pytestmark = pytest.mark.ci


def report(out: Path, *options: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Runs the program; returns its exit code, and what it has written."""
    command = [
        sys.executable,
        str(SCRIPTS / "gpu_report.py"),
        "--device",
        "cpu",
        "--quick",
        "--out",
        str(out),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, **variables})
    assert (out / "report.json").exists(), done.stderr
    return done.returncode, json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


def test_parts_measure_and_check(tmp_path: Path, mnist_folder: str) -> None:
    parts = ("machine", "capture", "speed", "profile", "tests", "processes", "float16")
    code, found, page = report(tmp_path, "--parts", *parts, LIGHTNING_CGAN_DATA=mnist_folder)
    log = (tmp_path / "log.txt").read_text()
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(parts, "as it should"), log
    assert code == 0
    checks = [check for part in found.values() for check in part["checks"]]
    assert all(check["is_met"] for check in checks)
    whats = {check["what"] for check in checks}
    assert {"two processes: weights", "mnist_mlp, 64-true, compiled: distance from eager steps"} <= whats
    assert "**not met**" not in page
    speeds = {row["way"]: row for row in found["speed"]["rows"]}
    assert set(speeds) == {"naive", "eager loop", "eager"}
    assert all(f"| mnist_mlp | {way} | {row['steps/s']} |" in page for way, row in speeds.items())
    assert any("addmm" in row["kernel"] for row in found["profile"]["rows"])


def test_an_end_by_force_keeps_what_is_known(tmp_path: Path, mnist_folder: str) -> None:
    (tmp_path / "report.json").write_text(
        '{"machine": {"checks": [], "rows": [{"what": "GPU", "value": "X"}], "notes": []}}'
    )
    code, found, page = report(
        tmp_path, "--parts", "training", "tests", "--seconds", "6", LIGHTNING_CGAN_DATA=mnist_folder
    )
    assert code == 1
    assert found["training"]["status"] == "stopped after 6 s"
    assert found["tests"]["status"] == "not begun: no time was left"
    assert "| GPU | X |" in page
