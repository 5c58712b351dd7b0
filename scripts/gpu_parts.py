"""What `gpu_report.py` measures: each function fills the report of one part."""

from __future__ import annotations

import csv
import gc
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
# What a checkpoint says then.
IN_USE = {"graph": "step", "compiled": "step, compiled"}


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
        if case.find("failure") is not None or case.find("error") is not None:
            report.note(f"- failed: `{case.attrib['name']}`")
    is_met = code == 0 and (report.device == "cpu" or not counts["skipped"])
    got = f"{counts['failures'] + counts['errors']} fail, {counts['skipped']} are skipped"
    report.check("tests marked `gpu`", "none fails, or is skipped on a GPU", got, is_met)
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
    """Compares steps as a graph with eager ones: in float64 for all configs, in bfloat16 for two."""
    way, how = ("graph", GRAPH) if report.device == "cuda" else ("compiled", COMPILED)
    for config in configs(report, "mnist", "mnist_mlp", "mnist_dcgan", "mnist_r3gan"):
        compare(report, config, ("64-true",), way, how)
    for config in [] if report.quick else configs(report, "mnist", "mnist_mlp"):
        compare(report, config, ("64-true", "bf16-mixed"), way, how)


def compare(report: Report, config: str, precisions: tuple[str, ...], way: str, how: list[str]) -> None:
    """Compares the weights after a few steps in some way with those after eager ones, in the last of the precisions.

    In float64 they are equal to rounding. In other precisions, Adam makes much of rounding, which changes the sign of
    its first steps; so the measure is how far rounding moves eager steps from those in float64, the first precision.
    Dropout is off, since its random numbers differ between precisions; a test has it on.
    """
    name = Path(config).stem
    options = ["--trainer.max_steps=10", *ONE_STEP]
    options += ["--model.discriminator.dropout=0"] if name == "mnist_dcgan" else []
    eager = {}
    for precision in precisions:
        eager[precision] = watch = FirstAndLastWeights()
        fit(report, config, *options, f"--trainer.precision={precision}", *EAGER, callback=watch)
    exact, rounded, watch = eager[precisions[0]], eager[precision], FirstAndLastWeights()
    module = fit(report, config, *options, f"--trainer.precision={precision}", *how, callback=watch).model
    rounding = exact.moved(rounded.last - exact.last)
    gap, limit, in_use = exact.moved(watch.last - rounded.last), max(2 * rounding, 1e-6), module.compilation.in_use()
    report.row(config=name, precision=precision, way=way, **{"from eager": f"{gap:.1e}", "rounding": f"{rounding:.1e}"})
    is_met = gap <= limit and in_use == IN_USE[way]
    what = f"{name}, {precision}, {way}: distance from eager steps"
    report.check(what, f"at most {limit:.1e}, {IN_USE[way]}", f"{gap:.1e}, {in_use}", is_met)


# ---- how fast --------------------------------------------------------------------------------------------------------


class Clock(Callback):
    """Times the steps of a fit once it is warm, and stops it; before, plain loops if asked for.

    Args:
        seconds: How long steps are timed.
        with_loops: Whether plain loops are timed too.
    """

    warm = 50  # steps, in which all graphs have been recorded

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
            del loops, memory
        gc.collect()
        if pl_module.device.type == "cuda":
            torch.cuda.empty_cache()
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
    ways = {"eager": EAGER}
    if report.device == "cuda":
        ways = {"graph": GRAPH, **ways, "graph, one step a call": [*GRAPH, *ONE_STEP]}
    for way, how in ways.items():
        for config in configs(report, "mnist", "mnist_mlp", "mnist_dcgan", "mnist_r3gan"):
            if "one step" not in way or "mlp" in config:
                time_fit(report, config, way, how, with_loops=way == "eager")


def time_fit(report: Report, config: str, way: str, how: list[str], with_loops: bool = False) -> None:
    """Times `fit` for a moment, and adds a row; plain loops have rows of their own."""
    endless = ["--trainer.max_steps=1000000", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
    clock = Clock(0.2 if report.quick else 1.5, with_loops)
    compilation = fit(report, config, *endless, *how, callback=clock).model.compilation
    for loop, rate in clock.rates.items():
        report.row(config=Path(config).stem, way=loop, **{"steps/s": f"{rate:,.0f}", "ms": f"{1e3 / rate:.3f}"})
    peak = torch.cuda.max_memory_allocated() / 2**20 if report.device == "cuda" else float("nan")
    recorded = compilation.fused_step.seconds if compilation.fused_step is not None else 0.0
    cells = {"steps/s": f"{clock.speed:,.0f}", "ms": f"{1e3 / clock.speed:.3f}", "ran as": compilation.in_use()}
    cells |= {"first step, s": f"{clock.first_step:.2f}", "recorded in, s": f"{recorded:.2f}"}
    report.row(config=Path(config).stem, way=way, **cells, **{"peak, MiB": f"{peak:,.0f}"})


def compiled(report: Report) -> None:
    """Compares and times steps that are compiled and, on a GPU, one CUDA graph."""
    for config in configs(report, "mnist_mlp", "mnist"):
        compare(report, config, ("64-true",), "compiled", COMPILED_GRAPH)
        time_fit(report, config, "compiled", COMPILED_GRAPH)


# ---- runs as a user types them ---------------------------------------------------------------------------------------


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


# ---- where the time goes ---------------------------------------------------------------------------------------------


class Profiled(Callback):
    """Profiles steps that come after the first ones."""

    first, count = 64, 24  # whole cycles of penalties

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
    module = fit(report, config, steps, *ONE_STEP, *(GRAPH if is_gpu else EAGER), callback=watch).model
    report.note(f"Steps ran as: {module.compilation.in_use()}.")
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
