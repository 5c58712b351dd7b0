r"""Trains systems with several seeds, tests them with one protocol, and makes a table; resumes where it stopped.

    python scripts/compare_systems.py configs/mnist.yaml configs/fashion_mnist.yaml --seeds 0 1 2
    python scripts/compare_systems.py configs/mnist.yaml --protocol quick --vary model.loss=NonSaturating,Hinge \
        --vary model.discriminator.conditioning=projection,concatenation --fit="--trainer.max_steps 3000"

`configs/mnist.yaml+configs/with/longer.yaml` is the first config with the second as an overlay.

Every run has a folder in `--out`, with its report. A run that has a report is skipped, and one that was killed resumes
from its last checkpoint. `systems.md` contains the means over the seeds, with standard deviations.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cgan.core.files import write_atomic
from lightning_cgan.evaluation.protocol import differences

_COLUMNS = {
    "GAN-test, %": lambda report: 100 * report["scores"]["gan_test"],
    "judge FID": lambda report: report["scores"]["judge_fid"],
    "÷ floor": lambda report: report["scores"]["judge_fid"] / report["scores_of_real_images"]["judge_fid"],
    "diversity": lambda report: report["scores"]["diversity"],
    "coverage": lambda report: report["scores"]["coverage"],
    "memorisation": lambda report: report["memorisation"]["ratio"],
    "GAN-train, %": lambda report: 100 * report["gan_train"]["mean"],
    "GaFi, %": lambda report: 100 * report["gan_train_gafi"]["mean"] if "gan_train_gafi" in report else float("nan"),
    "of real images, %": lambda report: 100 * report["gan_train_of_real_images"]["mean"],
    "minutes": lambda report: report["minutes"],
}


class System(NamedTuple):
    """Configs, each laid over those before it, and what is changed in them."""

    configs: tuple[Path, ...]
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the system, also that of its folder."""
        changes = (change.partition("=") for change in self.changes)
        stems = (config.stem for config in self.configs)
        return "-".join([*stems, *(f"{name.rpartition('.')[2]}-{value}" for name, _, value in changes)])


def main() -> None:
    """Makes what is missing, and writes the table anew after each run."""
    options = _options()
    varied = [[f"{name}={value}" for value in values.split(",")] for name, _, values in options.vary]
    systems = [System(configs, changes) for configs in options.configs for changes in itertools.product(*varied)]
    if len({system.name for system in systems}) < len(systems):
        sys.exit("error: systems: expected different names, got two alike; rename a config, or vary with other values")
    for seed, system in itertools.product(options.seeds, systems):
        report = options.out / system.name / f"seed-{seed}" / "report.json"
        if report.exists():
            _check(report, system, options)
        else:
            _make(system, seed, report, options)
        table = _table(systems, options)
        write_atomic(options.out / "systems.md", lambda file, text=table: file.write_text(text + "\n"))  # type: ignore[misc]
        print(table, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares systems over seeds under one protocol.")
    parser.add_argument("configs", nargs="+", type=lambda text: tuple(map(Path, text.split("+"))))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--protocol", choices=("full", "quick"), default="full")
    parser.add_argument("--vary", action="append", default=[], type=lambda text: text.partition("="))
    parser.add_argument("--fit", default="", help="more options of fit; test goes by the config of the run")
    parser.add_argument("--test", default="", help="more options of test, such as --report.gafi")
    parser.add_argument("--out", type=Path, default=Path("systems"))
    return parser.parse_args()


def _make(system: System, seed: int, report: Path, options: argparse.Namespace) -> None:
    folder = report.parent
    trained = folder / "trained.json"
    if not trained.exists():
        _train(system, seed, folder, shlex.split(options.fit))
    last = _last_checkpoint(folder)
    assert last is not None, "a run that has ended has a last checkpoint"
    common = ["--config", str(last.parent.parent / "config.yaml"), "--ckpt_path", str(last)]
    more = ["--report.folder", str(folder / "unfinished"), "--report.protocol", options.protocol]
    _run("test", *common, *more, *shlex.split(options.test))
    found = json.loads((folder / "unfinished" / "report.json").read_text())
    (folder / "unfinished" / "report.png").replace(folder / "report.png")
    text = json.dumps({**found, **json.loads(trained.read_text()), "made_with": _made_with(system, options)}, indent=1)
    write_atomic(report, lambda file: file.write_text(text + "\n"))


def _made_with(system: System, options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for a report to stand in the table."""
    hashed = hashlib.sha256(b"".join(config.read_bytes() for config in system.configs)).hexdigest()
    given = {name: getattr(options, name) for name in ("fit", "test", "protocol")}
    return {"config": hashed, "changes": list(system.changes), **given}


def _check(report: Path, system: System, options: argparse.Namespace) -> None:
    expected, got = _made_with(system, options), json.loads(report.read_text())["made_with"]
    differing = [
        f"{name} {value!r}, got {got.get(name)!r}" for name, value in expected.items() if got.get(name) != value
    ]
    if differing:
        sys.exit(f"error: {report}: expected {'; '.join(differing)}; choose another --out, or delete the report")


def _train(system: System, seed: int, folder: Path, more: Sequence[str]) -> None:
    seconds = folder / "seconds.txt"  # of earlier attempts
    before = float(seconds.read_text()) if seconds.exists() else 0.0
    last = _last_checkpoint(folder)
    resume = ["--ckpt_path", str(last)] if last else []
    changes = [f"--{change}" for change in system.changes]
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        where = ["--seed_everything", str(seed), "--runs_dir", str(folder), "--name", "run"]
        configs = [f"--config={config}" for config in system.configs]
        _run("fit", *configs, *changes, *where, *more, *resume)
    finally:
        taken = before + time.monotonic() - started
        write_atomic(seconds, lambda file: file.write_text(str(taken)))
    write_atomic(folder / "trained.json", lambda file: file.write_text(json.dumps({"minutes": taken / 60})))


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest one of the attempts of a run."""
    return max(folder.glob("run/*/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime, default=None)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lightning_cgan", *arguments], check=True)


def _table(systems: Sequence[System], options: argparse.Namespace) -> str:
    lines = [["system", "seeds", *_COLUMNS]]
    for system in systems:
        reports = list(_reports(system, options))
        if reports:
            values = [[column(report) for report in reports] for column in _COLUMNS.values()]
            lines.append([system.name, str(len(reports)), *map(_mean, values)])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reports(system: System, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    first = None
    for seed in options.seeds:
        file = options.out / system.name / f"seed-{seed}" / "report.json"
        if file.exists():
            report = json.loads(file.read_text())
            first = first or report
            reasons = differences(first, report)
            if reasons:
                sys.exit(f"error: {file}: expected what the other seeds have, got {'; '.join(reasons)}; delete it")
            yield report


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if mean != mean:
        return ""
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"


if __name__ == "__main__":
    main()
