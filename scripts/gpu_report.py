"""Proves on one GPU that the package is right and fast there, and writes a report.

    python scripts/gpu_report.py                            # eight minutes at most, with MNIST in data/
    python scripts/gpu_report.py --parts capture speed      # some parts only
    python scripts/gpu_report.py --device cpu --quick       # the same program for a moment, without a GPU

Parts run one after the other, the most important first, each in a process of its own and with a time limit. What a part
has found is in `report.json` and `report.md` as soon as it is known, so an end by force loses nothing. The exit code is
1 if a part fails or a check is not met; parts for which no time is left do not count.

It needs the package and what it needs, without wandb; without pytest, the `gpu` tests are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpu_parts import capture, compiled, float16, machine, profile, speed
from gpu_runs import dcgan, processes, resume, scores, tests, training

from lightning_cgan.core.files import write_atomic

NOT_BEGUN = "not begun: no time was left"


class Part(NamedTuple):
    """What is measured, the most seconds that it may take, and what it is for."""

    measure: Callable[[Any], None]
    seconds: float
    title: str


PARTS = {
    "machine": Part(machine, 25, "The machine"),
    "capture": Part(capture, 80, "Steps as a graph, against eager steps and steps in float64"),
    "speed": Part(speed, 90, "Steps per second of `fit`, and of plain loops"),
    "training": Part(training, 80, "`mnist.yaml` from its first step to its last, and quick scores"),
    "profile": Part(profile, 30, "Kernels of a step"),
    "tests": Part(tests, 110, "Tests marked `gpu`"),
    "processes": Part(processes, 45, "Two processes on one device, over gloo"),
    "float16": Part(float16, 30, "float16, with a scaler for each network"),
    "resume": Part(resume, 60, "Runs that are killed and resumed, with deterministic algorithms"),
    "compiled": Part(compiled, 120, "Compiled steps"),
    "scores": Part(scores, 240, "The full protocol, of what was trained"),
    "dcgan": Part(dcgan, 240, "`mnist_dcgan.yaml` from its first step to its last, and quick scores"),
}


class Report:
    """The report of one part, kept with those of the others in a folder."""

    def __init__(self, options: argparse.Namespace, part: str) -> None:
        self.options, self.part = options, part
        self.folder: Path = options.out
        self.file = self.folder / "report.json"
        self.device: str = options.device
        self.quick: bool = options.quick

    @property
    def all_parts(self) -> dict[str, Any]:
        """What all parts have found."""
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}

    def write(self, **changes: Any) -> None:
        """Changes some of what is known of the part, and writes both files."""
        found = self.all_parts
        found[self.part] = {"checks": [], "rows": [], "notes": [], **found.get(self.part, {}), **changes}
        write_atomic(self.file, lambda file: file.write_text(json.dumps(found, indent=1) + "\n"))
        write_atomic(self.folder / "report.md", lambda file: file.write_text(in_markdown(found)))

    def add(self, kind: str, entry: Any) -> None:
        """Adds one of the `rows`, `checks` or `notes`."""
        self.write(**{kind: [*self.all_parts[self.part][kind], entry]})

    def row(self, **cells: Any) -> None:
        """Adds a row to the part's table."""
        print(cells, flush=True)
        self.add("rows", cells)

    def check(self, what: str, expected: str, got: str, is_met: bool) -> None:
        """Adds something that must hold."""
        print("ok" if is_met else "NOT MET", what, expected, got, flush=True)
        self.add("checks", {"what": what, "expected": expected, "got": got, "is_met": is_met})

    def note(self, line: str) -> None:
        """Adds a sentence."""
        self.add("notes", line)


def in_markdown(found: dict[str, Any]) -> str:
    """The report as a page: what was checked, then the tables."""
    lines = ["# Report of a GPU", "", "| part | seconds | ended |", "|---|---|---|"]
    lines += [f"| {name} | {part.get('seconds', '')} | {part.get('status', '')} |" for name, part in found.items()]
    checks = [check for part in found.values() for check in part["checks"]]
    lines += ["", "| check | expected | got | |", "|---|---|---|---|"]
    for check in checks:
        state = "ok" if check["is_met"] else "**not met**"
        lines.append(f"| {check['what']} | {check['expected']} | {check['got']} | {state} |")
    for name, part in found.items():
        lines += ["", f"## {PARTS[name].title}", "", *part["notes"], ""]
        columns = list(dict.fromkeys(column for row in part["rows"] for column in row))
        if columns:
            lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
            lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in part["rows"]]
    return "\n".join(lines) + "\n"


def run_part(name: str, options: argparse.Namespace, limit: float) -> None:
    """Runs a part in a process of its own, which is killed with all that it has started when its time is over."""
    report = Report(options, name)
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    started = time.monotonic()
    with (options.out / "log.txt").open("a") as log:
        print(f"\n==== {name}", file=log, flush=True)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
            status = "as it should" if code == 0 else f"with exit code {code}; see log.txt"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # also of those that a part has left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    report.write(status=status, seconds=round(time.monotonic() - started, 1))


def main() -> None:
    """Runs the parts, and prints the report."""
    parser = argparse.ArgumentParser(description="Proves on one GPU that the package is right and fast there.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="measure for a moment, on the smallest networks")
    parser.add_argument("--seconds", type=float, help="the most that all parts may take together; on a GPU, 480")
    parser.add_argument("--out", type=Path, default=Path("gpu_report"), help="the folder for the report")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # in the process of a part
    options = parser.parse_args()
    if options.only:
        del sys.argv[1:]  # Lightning would warn about them
        report = Report(options, options.only)
        PARTS[options.only].measure(report)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (options.seconds or (480 if options.device == "cuda" else 3600))
    for name in options.parts:
        report = Report(options, name)
        left = end - time.monotonic()
        if left < 5:
            report.write(status=NOT_BEGUN, seconds=0, checks=[], rows=[], notes=[])
            continue
        report.write(status="begun", checks=[], rows=[], notes=[])
        run_part(name, options, min(left, PARTS[name].seconds * (1 if options.device == "cuda" else 4)))
        print(f"{name} has ended", flush=True)
    print((options.out / "report.md").read_text())
    found = Report(options, "").all_parts
    parts = [found[name] for name in options.parts if found[name]["status"] != NOT_BEGUN]
    checks = [check for part in parts for check in part["checks"]]
    sys.exit(not all(part["status"] == "as it should" for part in parts) or not all(c["is_met"] for c in checks))


if __name__ == "__main__":
    main()
