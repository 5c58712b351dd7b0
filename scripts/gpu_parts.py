"""What `gpu_report.py` measures in its own process: each function fills the report of one part."""

from __future__ import annotations

import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from benchmark.baselines import from_files, from_memory, plain_loop, to
from benchmark.machine import matrix_rate, synchronize
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
