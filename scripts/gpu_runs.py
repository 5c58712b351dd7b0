"""What `gpu_report.py` runs as a user types it: each function fills the report of one part."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from gpu_parts import EAGER, GRAPH, IN_USE, ROOT, on
from kill_test import WITHOUT_ROUNDING

if TYPE_CHECKING:
    from gpu_report import Report


def tests(report: Report) -> None:
    """Runs the tests marked `gpu`, several at a time if pytest-xdist is there."""
    if find_spec("pytest") is None:
        report.note("pytest is not installed.")
        return
    results = report.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    parallel = [f"--numprocesses={min(8, os.cpu_count() or 1)}"] if find_spec("xdist") and not report.quick else []
    code = subprocess.run([*command, *parallel, f"--junitxml={results.resolve()}"], cwd=ROOT).returncode
    (suite,) = ElementTree.parse(results).getroot()
    counts = {kind: int(suite.attrib[kind]) for kind in ("tests", "failures", "errors", "skipped")}
    report.row(**counts, seconds=suite.attrib["time"])
    for case in suite:
        if case.find("failure") is not None or case.find("error") is not None:
            report.note(f"- failed: `{case.attrib['name']}`")
    is_met = code == 0 and (report.device == "cpu" or not counts["skipped"])
    got = f"{counts['failures'] + counts['errors']} fail, {counts['skipped']} are skipped"
    report.check("tests marked `gpu`", "none fails, or is skipped on a GPU", got, is_met)
    results.unlink()


def command(*arguments: str) -> None:
    """Runs the command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "lightning_cgan", *arguments], check=True)


def train_and_score(report: Report, config: Path) -> None:
    """Trains a config to its end, tests it, and adds a row; a picture stays in the folder of the report."""
    name, folder = config.stem, report.folder / "runs"
    few = ["--trainer.max_steps=60", "--trainer.log_every_n_steps=10", "--data.image_size=8"]  # which has a judge
    steps = few if report.quick else []
    started = time.monotonic()
    command("fit", "--config", str(config), "--runs_dir", str(folder), "--name", name, *on(report), *GRAPH, *steps)
    minutes = (time.monotonic() - started) / 60
    trained = max((folder / name).iterdir())  # named after the time
    last = trained / "checkpoints" / "last.ckpt"
    graph = torch.load(last, map_location="cpu", weights_only=True)["lightning_cgan"]["numerics"]["graph"]
    count, seconds = _steps_and_seconds(trained)
    row = {"config": name, "ran as": graph, "steps": count, "training, s": f"{seconds:.2f}"}
    row["whole command, min"] = f"{minutes:.2f}"
    report.row(**row)
    if report.device == "cuda":
        report.check(f"{name}: steps ran as", IN_USE["graph"], graph, graph == IN_USE["graph"])
    command("generate", str(last), "--count", "10", "--out", str(report.folder / f"{name}.png"), "--overwrite")
    found = score(report, trained, "quick")
    shutil.copy(trained / "scores" / "report.json", report.folder / f"{name}.json")
    report.write(rows=[*report.all_parts[report.part]["rows"][:-1], {**row, **_cells(found)}])


def _steps_and_seconds(trained: Path) -> tuple[int, float]:
    """How many steps a run has logged, and how long they took, without recording graphs, validation and pictures."""
    with (trained / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["images_per_second"]]
    batch_size = yaml.safe_load((trained / "config.yaml").read_text())["data"]["init_args"]["batch_size"]
    ends = [0, *(int(row["step"]) for row in rows)]
    images = [batch_size * (end - begin) for begin, end in pairwise(ends)]
    return ends[-1], sum(n / float(row["images_per_second"]) for n, row in zip(images, rows, strict=True))


def score(report: Report, trained: Path, protocol: str) -> dict[str, Any]:
    """Tests the last checkpoint of a run; returns the report."""
    run_of = ["--config", str(trained / "config.yaml"), "--ckpt_path", str(trained / "checkpoints" / "last.ckpt")]
    how = ["--report.folder", str(trained / "scores"), "--report.protocol", protocol]
    started = time.monotonic()
    command("test", *run_of, *on(report), *how)
    found: dict[str, Any] = json.loads((trained / "scores" / "report.json").read_text())
    return {**found, "minutes": (time.monotonic() - started) / 60}


def _cells(found: dict[str, Any]) -> dict[str, str]:
    """What a row shows of a report."""
    return {
        "GAN-test, %": f"{100 * found['scores']['gan_test']:.2f}",
        "judge FID": f"{found['scores']['judge_fid']:.2f}",
        "GAN-train, %": f"{100 * found['gan_train']['mean']:.2f}",
        "of real images, %": f"{100 * found['gan_train_of_real_images']['mean']:.2f}",
        "scored in, min": f"{found['minutes']:.2f}",
    }


def training(report: Report) -> None:
    """Trains `mnist.yaml` to its end, and tests it with the quick protocol."""
    train_and_score(report, ROOT / "configs" / ("digits.yaml" if report.quick else "mnist.yaml"))


def dcgan(report: Report) -> None:
    """Trains `mnist_dcgan.yaml` to its end, hours on a CPU, and tests it with the quick protocol."""
    train_and_score(report, ROOT / "configs" / ("digits.yaml" if report.quick else "mnist_dcgan.yaml"))


def scores(report: Report) -> None:
    """Tests what `training` has trained with the full protocol."""
    trained = max((report.folder / "runs" / ("digits" if report.quick else "mnist")).iterdir())
    found = score(report, trained, "quick" if report.quick else "full")
    report.row(**_cells(found))
    if not report.quick:
        accuracy = found["gan_train"]["mean"]
        report.check("mnist: GAN-train", "98.4 % or more", f"{100 * accuracy:.2f} %", accuracy >= 0.984)


def resume(report: Report) -> None:
    """Kills runs with and without graphs, resumes them, and compares; both at a time."""
    steps, kills = ("20" if report.quick else "100"), "1"
    ways = {"eager": EAGER} if report.quick else {"eager": EAGER, "graph": GRAPH}
    common = [*on(report), "--trainer.deterministic=true"]
    tests = {}
    for way, how in ways.items():
        options = ["--kills", kills, "--steps", steps, "--out", str(report.folder / "kills" / way)]
        arguments = [
            sys.executable,
            str(ROOT / "scripts" / "kill_test.py"),
            *options,
            f"--fit={' '.join([*common, *how])}",
        ]
        tests[way] = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for way, test in tests.items():
        shown = test.communicate()[0].strip().splitlines()
        report.row(way=way, result=shown[-1][:300])
        for line in shown[:-1]:
            report.note(f"- {way}: {line[:300]}")
        report.check(f"resumed, {way}", "the same to the last bit", shown[-1][:80], test.returncode == 0)


def processes(report: Report) -> None:
    """Compares two processes that share the device with one; without batch statistics and roots, to rounding."""
    config = str(ROOT / "configs" / "digits.yaml")
    steps = ["--trainer.max_steps=40", "--scores.images=0", *EAGER, *WITHOUT_ROUNDING]
    with tempfile.TemporaryDirectory() as folder:
        common = ["fit", "--config", config, "--runs_dir", folder, *steps]
        strategy = ["--trainer.strategy=DDPStrategy", "--trainer.strategy.process_group_backend=gloo"]
        two = [*common, "--name=two", *on(report), "--trainer.num_nodes=2", *strategy]
        started = [
            subprocess.Popen([sys.executable, "-m", "lightning_cgan", *two], env=environment)
            for environment in _environments()
        ]
        command(*common, "--name=one", *on(report))
        codes = [process.wait() for process in started]
        report.check("two processes", "exit codes 0, 0", str(codes), codes == [0, 0])
        states = [
            torch.load(next(Path(folder, name).glob("*/checkpoints/last.ckpt")), map_location="cpu", weights_only=True)
            for name in ("one", "two")
        ]
    one, two_ = (torch.cat([value.double().flatten() for value in state["state_dict"].values()]) for state in states)
    gap = float((one - two_).abs().max())
    report.row(processes=2, backend="gloo", largest_difference=f"{gap:.1e}")
    report.check("two processes: weights", "those of one, within 1e-5", f"{gap:.1e}", gap < 1e-5)


def _environments() -> Iterator[dict[str, str]]:
    """What torchrun would set for two machines with one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for rank in "01":
        ranks = {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        launcher = {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "report"}
        yield {**os.environ, **ranks, **where, **launcher}
