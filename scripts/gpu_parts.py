"""What `gpu_report.py` measures: each function fills the report of one part."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from benchmark.baselines import from_files, from_memory, plain_loop, to
from benchmark.machine import matrix_rate, synchronize
from kill_test import WITHOUT_ROUNDING
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from lightning_cgan.cli.main import CLI, run

if TYPE_CHECKING:
    from gpu_report import Report

ROOT = Path(__file__).resolve().parent.parent
EAGER = ["--model.compile=none", "--model.cuda_graph=false"]
GRAPH = ["--model.compile=none", "--model.cuda_graph=true"]
COMPILED = ["--model.compile=step", "--model.cuda_graph=false"]
COMPILED_GRAPH = ["--model.compile=step", "--model.cuda_graph=true"]
ONE_STEP = ["--model.steps_per_call=1"]


class WatchedCLI(CLI):
    """The command line with one more callback."""

    callback: Callback

    def before_fit(self) -> None:
        """Adds the callback."""
        super().before_fit()
        self.trainer.callbacks.append(self.callback)  # type: ignore[attr-defined]


def configs(report: Report, *names: str) -> list[str]:
    """The paths of shipped configs; for a quick report, that of the smallest."""
    return [str(ROOT / "configs" / f"{name}.yaml") for name in (("mnist_mlp",) if report.quick else names)]


def on(report: Report) -> list[str]:
    """The options that choose the device."""
    return [f"--trainer.accelerator={'gpu' if report.device == 'cuda' else 'cpu'}", "--trainer.devices=1"]


def fit(report: Report, config: str, *options: str, callback: Callback) -> Any:
    """Trains in this process, watched by a callback, in a folder that does not stay; returns the command line."""
    watched = type("OneWatchedCLI", (WatchedCLI,), {"callback": callback})
    with tempfile.TemporaryDirectory() as folder:
        return run(
            ["fit", "--config", config, "--runs_dir", folder, *on(report), "--scores.images=0", *options], watched
        )


def machine(report: Report) -> None:
    """The versions, and the rates of large matrix products."""
    for name in ("torch", "lightning", "torchmetrics", "torchvision"):
        report.row(what=name, value=__import__(name).__version__)
    report.row(what="python", value=platform.python_version())
    if report.device == "cuda":
        report.row(what="GPU", value=torch.cuda.get_device_name())
        report.row(what="CUDA, cuDNN", value=f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    report.row(what="cores of the CPU", value=os.cpu_count())
    for dtype in (torch.float32,) if report.quick else (torch.float32, torch.bfloat16):
        rate = matrix_rate(torch.device(report.device), dtype)
        report.row(what=f"matrix products in {dtype}", value=f"{rate / 1e12:.3g} TFLOP/s")


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
        if case.find("failure") is not None:
            report.note(f"- failed: `{case.attrib['name']}`")
    report.check("tests marked `gpu`", "none fails", f"{counts['failures'] + counts['errors']} fail", code == 0)
    results.unlink()


# ---- what is computed ------------------------------------------------------------------------------------------------


class FirstAndLastWeights(Callback):
    """Keeps the weights of both networks from before and after a fit, in float64 on the CPU."""

    first: Tensor
    last: Tensor

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps those from before."""
        self.first = _weights(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps those from after."""
        self.last = _weights(pl_module)

    def moved(self, difference: Tensor) -> float:
        """The size of a difference, as a share of what training has changed."""
        return float(difference.norm() / (self.last - self.first).norm())


def _weights(module: Any) -> Tensor:
    networks = (module.generator, module.discriminator)
    weights = [
        parameter.detach().double().cpu().flatten() for network in networks for parameter in network.parameters()
    ]
    return torch.cat(weights)


def capture(report: Report) -> None:
    """Compares the weights after a few steps as a graph with those after eager ones.

    In float64 they are equal to rounding. In other precisions, Adam makes much of rounding, which changes the sign of
    its first steps; so the measure is how far rounding moves eager steps from those in float64. Dropout is off, since
    its random numbers differ between precisions; a test has it on.
    """
    ways = {"graph": GRAPH, "compiled, graph": COMPILED_GRAPH} if report.device == "cuda" else {"compiled": COMPILED}
    for config in configs(report, "mnist", "mnist_mlp", "mnist_dcgan", "mnist_r3gan"):
        name = Path(config).stem
        options = ["--trainer.max_steps=10", *ONE_STEP]
        options += ["--model.discriminator.dropout=0"] if name == "mnist_dcgan" else []
        exact = FirstAndLastWeights()
        fit(report, config, *options, "--trainer.precision=64-true", *EAGER, callback=exact)
        for precision in ("64-true",) if report.quick else ("64-true", "32-true", "bf16-mixed"):
            eager = FirstAndLastWeights()
            fit(report, config, *options, f"--trainer.precision={precision}", *EAGER, callback=eager)
            rounding = exact.moved(eager.last - exact.last)
            cells = {"config": name, "precision": precision, "eager steps from float64": f"{rounding:.1e}"}
            for way, how in ways.items():
                if way.startswith("compiled") and (name not in ("mnist", "mnist_mlp") or precision == "32-true"):
                    continue  # compilers take long
                watch = FirstAndLastWeights()
                fit(report, config, *options, f"--trainer.precision={precision}", *how, callback=watch)
                gap, limit = exact.moved(watch.last - eager.last), max(rounding, 1e-6)
                cells[f"{way} from eager steps"] = f"{gap:.1e}"
                what = f"{name}, {precision}, {way}: distance from eager steps"
                report.check(what, f"at most {limit:.1e}", f"{gap:.1e}", gap <= limit)
            report.row(**cells)


# ---- how fast --------------------------------------------------------------------------------------------------------


class Clock(Callback):
    """Times the steps of a fit once it is warm, and stops it; before, plain loops if asked for.

    Args:
        seconds: How long steps are timed.
        with_loops: Whether plain loops are timed too.
    """

    warm = 200  # steps, in which all graphs have been recorded

    def __init__(self, seconds: float, with_loops: bool) -> None:
        self.seconds, self.with_loops = seconds, with_loops
        self.rates: dict[str, float] = {}
        self.first_step = self.started = self.speed = 0.0
        self.began = (0, 0.0)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the time is looked at; the other steps may share calls."""
        return trainer.global_step % 50 == 0 or trainer.global_step == 1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Times the plain loops."""
        if self.with_loops:
            data, device = trainer.datamodule, pl_module.device  # type: ignore[attr-defined]
            size, memory = data.batch_size, [tensor.to(device) for tensor in data.splits["train"]]
            loops = {
                "naive": plain_loop(pl_module, to(device, from_files(data, size)), reads_losses=True),
                "eager loop": plain_loop(pl_module, from_memory(*memory, size), reads_losses=False),
            }
            self.rates = {name: _rate(step, self.seconds, device) for name, step in loops.items()}
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Looks at the clock."""
        step = trainer.global_step
        if step == 1:
            synchronize(pl_module.device)
            self.first_step = time.perf_counter() - self.started
        if step < self.warm or step % 50:
            return
        if not self.began[0]:
            synchronize(pl_module.device)
            self.began = step, time.perf_counter()
        elif time.perf_counter() - self.began[1] > self.seconds:
            synchronize(pl_module.device)
            self.speed = (step - self.began[0]) / (time.perf_counter() - self.began[1])
            trainer.should_stop = True


def _rate(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Steps per second of a loop."""
    for _ in range(10):
        step()
    synchronize(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += 1
    synchronize(device)
    return count / (time.perf_counter() - started)


def speed(report: Report) -> None:
    """Times `fit` in each way, and plain loops."""
    ways = {"eager, one step a call": [*EAGER, *ONE_STEP], "eager": EAGER}
    if report.device == "cuda":
        ways |= {"graph, one step a call": [*GRAPH, *ONE_STEP], "graph": GRAPH, "compiled, graph": COMPILED_GRAPH}
    endless = ["--trainer.max_steps=1000000", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
    speeds: dict[tuple[str, str], float] = {}
    for way, how in ways.items():
        for config in configs(report, "mnist", "mnist_mlp", "mnist_dcgan", "mnist_r3gan"):
            name, is_first = Path(config).stem, how is next(iter(ways.values()))
            clock = Clock(0.2 if report.quick else 1.5, with_loops=is_first)
            clock.warm = 50 if report.quick else clock.warm
            module = fit(report, config, *endless, *how, callback=clock).model
            for loop, rate in clock.rates.items():
                speeds[name, loop] = rate
                report.row(config=name, way=loop, **{"steps/s": f"{rate:,.0f}", "ms": f"{1e3 / rate:.3f}"})
            speeds[name, way] = clock.speed
            peak = torch.cuda.max_memory_allocated() / 2**20 if report.device == "cuda" else float("nan")
            recorded = module.compilation.fused_step.seconds if module.compilation.fused_step else 0.0
            cells = {"steps/s": f"{clock.speed:,.0f}", "ms": f"{1e3 / clock.speed:.3f}"}
            cells |= {"first step, s": f"{clock.first_step:.2f}", "recorded in, s": f"{recorded:.2f}"}
            report.row(config=name, way=way, **cells, **{"peak, MiB": f"{peak:,.0f}"})
    for name in dict.fromkeys(name for name, _ in speeds):
        fastest = max(speeds[key] for key in speeds if key[0] == name)
        report.note(f"- `{name}`: the fastest way is {fastest / speeds[name, 'naive']:.1f} times the naive loop.")


# ---- runs as a user types them ---------------------------------------------------------------------------------------


def command(*arguments: str) -> None:
    """Runs the command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "lightning_cgan", *arguments], check=True)


def train_and_score(report: Report, config: str, protocol: str, *options: str) -> dict[str, Any]:
    """Trains a config to its end, tests it, and adds a row; the pictures stay in the folder of the report."""
    name, folder = Path(config).stem, report.folder / "runs"
    few = ["--trainer.max_steps=60", "--trainer.log_every_n_steps=10", "--data.image_size=8"]  # which has a judge
    steps = few if report.quick else []
    started = time.monotonic()
    command("fit", "--config", config, "--runs_dir", str(folder), "--name", name, *on(report), *options, *steps)
    minutes = (time.monotonic() - started) / 60
    run_folder = max((folder / name).iterdir())  # named after the time
    with (run_folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["images_per_second"]]
    last = str(run_folder / "checkpoints" / "last.ckpt")
    batch_size = yaml.safe_load((run_folder / "config.yaml").read_text())["data"]["init_args"]["batch_size"]
    ends = [0, *(int(row["step"]) for row in rows)]
    images = [batch_size * (end - begin) for begin, end in pairwise(ends)]
    seconds = sum(n / float(row["images_per_second"]) for n, row in zip(images, rows, strict=True))
    row = {"config": name, "steps": ends[-1], "training, s": f"{seconds:.2f}", "whole command, min": f"{minutes:.2f}"}
    report.row(**row)
    command("generate", last, "--count", "10", "--out", str(report.folder / f"{name}.png"), "--overwrite")
    started = time.monotonic()
    scored = ["--report.folder", str(run_folder / "scores"), "--report.protocol", protocol]
    command("test", "--config", str(run_folder / "config.yaml"), "--ckpt_path", last, *on(report), *scored)
    found = json.loads((run_folder / "scores" / "report.json").read_text())
    shutil.copy(run_folder / "scores" / "report.json", report.folder / f"{name}.json")
    scores = found["scores"]
    cells = {
        "GAN-test, %": f"{100 * scores['gan_test']:.2f}",
        "judge FID": f"{scores['judge_fid']:.2f}",
        "GAN-train, %": f"{100 * found['gan_train']['mean']:.2f}",
        "of real images, %": f"{100 * found['gan_train_of_real_images']['mean']:.2f}",
        "scored in, min": f"{(time.monotonic() - started) / 60:.2f}",
    }
    report.write(rows=[*report.all_parts[report.part]["rows"][:-1], {**row, **cells}])
    return {"seconds": seconds, "gan_train": found["gan_train"]["mean"]}


def training(report: Report) -> None:
    """Trains `mnist.yaml`, and tests it with the full protocol."""
    config = str(ROOT / "configs" / ("digits.yaml" if report.quick else "mnist.yaml"))
    found = train_and_score(report, config, "quick" if report.quick else "full", *GRAPH)
    if not report.quick:
        is_good = found["gan_train"] >= 0.984
        report.check("mnist: GAN-train", "98.4 % or more", f"{100 * found['gan_train']:.2f} %", is_good)


def dcgan(report: Report) -> None:
    """Trains `mnist_dcgan.yaml`, hours on a CPU, and tests it with the quick protocol."""
    config = str(ROOT / "configs" / ("digits.yaml" if report.quick else "mnist_dcgan.yaml"))
    train_and_score(report, config, "quick", *GRAPH)


class LossScales(Callback):
    """Keeps the loss scale of each step."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Reads it, which makes a GPU wait; on a CPU, Lightning scales nothing."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.scales.append(1.0 if scaler is None else scaler.get_scale())


def float16(report: Report) -> None:
    """Trains in float16, with losses that are scaled and updates that are skipped."""
    (config, *_) = configs(report, "mnist")
    watch = LossScales()
    steps = 10 if report.quick else 300
    module = fit(
        report, config, f"--trainer.max_steps={steps}", "--trainer.precision=16-mixed", *EAGER, callback=watch
    ).model
    skipped = {role: int(count) for role, count in module.optimization.skipped_steps.items()}
    report.row(steps=steps, first_scale=watch.scales[0], last_scale=watch.scales[-1], **skipped)
    is_finite = all(bool(weight.isfinite().all()) for weight in module.state_dict().values())
    report.check("float16: weights", "finite", "finite" if is_finite else "not finite", is_finite)
    report.check("float16: skipped updates", "below 10", str(skipped), max(skipped.values()) < 10)


def resume(report: Report) -> None:
    """Kills runs with and without graphs, resumes them, and compares; both at a time."""
    steps, kills = ("20", "1") if report.quick else ("200", "2")
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


# ---- where the time goes ---------------------------------------------------------------------------------------------


class Profiled(Callback):
    """Profiles steps that come after the first ones."""

    first, count = 60, 20

    def __init__(self, device: str) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        self.profile = torch.profiler.profile(activities=kinds)
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Starts and stops."""
        if trainer.global_step == self.first:
            synchronize(pl_module.device)
            self.profile.start()
            self.seconds = time.perf_counter()
        elif trainer.global_step == self.first + self.count:
            synchronize(pl_module.device)
            self.seconds = time.perf_counter() - self.seconds
            self.profile.stop()


def profile(report: Report) -> None:
    """Lists the kernels of a step of `mnist.yaml`, on a CPU its operations, that take the longest."""
    (config, *_) = configs(report, "mnist")
    is_gpu = report.device == "cuda"
    watch = Profiled(report.device)
    steps = f"--trainer.max_steps={watch.first + watch.count + 1}"
    fit(report, config, steps, *ONE_STEP, *(GRAPH if is_gpu else EAGER), callback=watch)
    kind, count = (DeviceType.CUDA if is_gpu else DeviceType.CPU), watch.count
    taken = partial(_microseconds, is_gpu=is_gpu)
    events = [event for event in watch.profile.key_averages() if event.device_type == kind and taken(event) > 0]
    events.sort(key=taken, reverse=True)
    for event in events[:25]:
        name = event.key.replace("|", "/")[:90]
        cells = {"a step": f"{event.count / count:.1f}", "µs a step": f"{taken(event) / count:.1f}"}
        report.row(kernel=f"`{name}`", **cells)
    launched, together = sum(event.count for event in events) / count, sum(map(taken, events)) / count
    report.note(
        f"{launched:.0f} kernels a step take {together:,.0f} µs together; under the profiler, a step takes "
        f"{1e6 * watch.seconds / count:,.0f} µs."
    )


def _microseconds(event: Any, is_gpu: bool) -> float:
    """The time of an event, without that of the events within it."""
    return float(event.self_device_time_total if is_gpu else event.self_cpu_time_total)
