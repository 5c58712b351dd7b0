"""Times `fit` and the other loops in turn for one config, and the start of a run; see __main__.py."""

from __future__ import annotations

import math
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from baselines import Step, bare_loop, from_files, from_memory, plain_loop, to
from lightning.pytorch import Callback, LightningModule, Trainer
from machine import matrix_rate, synchronize

from lightning_cgan.callbacks import Checkpoints, Curves, SampleGrid
from lightning_cgan.callbacks.shared import LARGEST_SHARE
from lightning_cgan.cli.main import CLI, run
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.training.threads import flops_of_step

BASELINES = ("bare", "eager", "naive")
# Only decides how many steps a turn has.
_GUESSED_FLOPS_PER_SECOND = 6e10


class TimedLoops(Callback):
    """Lets the baselines run between the steps of a fit, and times all.

    Args:
        turn: The steps of a turn. Each of the fit has one of every event.
        charged: How often an event happens in a step of the config as shipped, by its name.
        default_threads: What PyTorch would use, for the loops that do not choose.
    """

    def __init__(self, turn: int, charged: dict[str, float], default_threads: int) -> None:
        self.turn, self.charged = turn, charged
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *BASELINES)}
        self.events: dict[str, list[float]] = {name: [] for name in (*charged, "Curves")}
        self.drawing_every = 60.0  # seconds
        self.steps: dict[str, Step] = {}
        self.threads = dict.fromkeys(BASELINES, default_threads)
        self.started = self.spent = 0.0

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds the baselines, and puts a clock on what happens now and then."""
        assert isinstance(pl_module, ConditionalGAN)
        data = trainer.datamodule  # type: ignore[attr-defined]
        device, size = pl_module.device, data.batch_size
        pixels, labels = (tensor.to(device) for tensor in data.splits["train"])
        bare = partial(bare_loop, pl_module, pixels, labels, size, trainer.precision_plugin.forward_context)
        self.steps = {
            "bare": bare(as_graph=True),
            "eager": plain_loop(pl_module, from_memory(pixels, labels, size), reads_losses=False),
            "naive": plain_loop(pl_module, to(device, from_files(data, size)), reads_losses=True),
        }
        if pl_module.compilation.fused_step is not None:
            self.steps["uncompiled"] = bare(as_graph=False)
        self.seconds |= {name: [] for name in self.steps}
        self.threads |= {name: torch.get_num_threads() for name in ("fit", "bare", "uncompiled")}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Curves):
                self.drawing_every, callback.every_n_seconds = callback.every_n_seconds, math.inf
                self.put_clock_on(callback, "_plot", "Curves")
            elif isinstance(callback, SampleGrid):
                self.put_clock_on(callback, "_write_grid", "SampleGrid")
            elif isinstance(callback, Checkpoints):
                self.put_clock_on(callback, "_save_topk_checkpoint", "Checkpoints")
                self.put_clock_on(callback, "_save_last_checkpoint", "last.ckpt")
        self.put_clock_on(pl_module.scalars, "report", "report")
        self.put_clock_on(trainer.fit_loop.epoch_loop.val_loop, "run", "validation")

    def put_clock_on(self, owner: Any, name: str, event: str) -> None:
        """Times the calls of a method."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = method(*args, **kwargs)
            taken = time.perf_counter() - started
            self.events[event].append(taken)
            self.spent += taken
            return result

        object.__setattr__(owner, name, timed)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether a turn has ended; within it, the fit makes as many steps in a call as it may."""
        return trainer.global_step % self.turn == 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends a turn of the fit, and gives each baseline one."""
        if trainer.global_step % self.turn:
            return
        if trainer.global_step == 0:
            self.prepare(trainer, pl_module)
        else:
            synchronize(pl_module.device)
            self.seconds["fit"].append(time.perf_counter() - self.started - self.spent)
            for name, step in self.steps.items():
                torch.set_num_threads(self.threads[name])
                started = time.perf_counter()
                for _ in range(self.turn):
                    step()
                synchronize(pl_module.device)
                self.seconds[name].append(time.perf_counter() - started)
            torch.set_num_threads(self.threads["fit"])
        self.spent, self.started = 0.0, time.perf_counter()

    def speeds(self) -> dict[str, list[float]]:
        """Steps per second in each round but the first, which warms up."""
        charge = sum(statistics.median(self.events[event]) * often for event, often in self.charged.items())
        drawing = min(LARGEST_SHARE, statistics.median(self.events["Curves"]) / self.drawing_every)
        steady = {name: [seconds / self.turn for seconds in taken[1:]] for name, taken in self.seconds.items()}
        steady["fit"] = [(seconds + charge) / (1 - drawing) for seconds in steady["fit"]]
        return {name: [1 / seconds for seconds in taken] for name, taken in steady.items()}


class BenchmarkCLI(CLI):
    """The command line, with `TimedLoops` among the callbacks."""

    rounds, seconds = 7, 1.0
    default_threads = 1
    timed: TimedLoops

    def before_fit(self) -> None:
        """Chooses the length of a turn, and lets everything happen once in each."""
        super().before_fit()
        self.choose_compile()  # for the length of the config
        trainer, data = self.trainer, self.datamodule
        self.flops = flops_of_step(self.model.generator, self.model.discriminator, data.batch_size)
        interval = math.lcm(*(penalty.interval for penalty in self.model.penalties))
        turn = max(2, round(self.seconds * _GUESSED_FLOPS_PER_SECOND / self.flops / interval)) * interval
        data.prepare_data()
        data.setup("fit")
        epoch = len(data.splits["train"][1]) // (data.batch_size * self.model.discriminator_steps)
        charged = {"report": 1 / trainer.log_every_n_steps, "validation": 1 / epoch / trainer.check_val_every_n_epoch}
        for callback in trainer.callbacks:
            if isinstance(callback, SampleGrid):
                charged["SampleGrid"] = 1 / callback.every_n_steps
                callback.every_n_steps = turn
            elif isinstance(callback, Checkpoints):
                charged["Checkpoints"] = charged["last.ckpt"] = 1 / callback._every_n_train_steps
                callback._every_n_train_steps = turn
        trainer.log_every_n_steps = trainer.val_check_interval = turn
        trainer.check_val_every_n_epoch = None
        trainer.fit_loop.epoch_loop.max_steps = turn * (self.rounds + 2)
        trainer.fit_loop.max_epochs = -1
        self.timed = TimedLoops(turn, charged, self.default_threads)
        trainer.callbacks.append(self.timed)


def measure(config: str, rounds: int, seconds: float, options: list[str]) -> dict[str, Any]:
    """Runs the turns of one config in this process, in a folder that does not stay."""
    BenchmarkCLI.rounds, BenchmarkCLI.seconds, BenchmarkCLI.default_threads = rounds, seconds, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        cli = run(["fit", "--config", config, "--runs_dir", folder, *options], BenchmarkCLI)
    assert isinstance(cli, BenchmarkCLI)
    timed, module, device = cli.timed, cli.model, cli.trainer.strategy.root_device
    torch.set_num_threads(timed.threads["fit"])
    rate = matrix_rate(device, torch.bfloat16 if "bf16" in cli.trainer.precision else torch.float32)
    return {
        "config": Path(config).stem,
        "precision": cli.trainer.precision,
        "compile": module.compilation.mode,
        "threads": timed.threads,
        "gflop": cli.flops / 1e9,
        "gflop_per_second": rate / 1e9,
        "batch_size": cli.datamodule.batch_size,
        "speeds": timed.speeds(),
        "events_ms": {name: 1e3 * statistics.median(taken) for name, taken in timed.events.items() if taken},
        "seconds_to_fuse": module.compilation.fused_step.seconds if module.compilation.fused_step is not None else None,
    }


def measure_start(config: str, options: list[str]) -> dict[str, Any]:
    """The seconds from the end of imports to the first step, and the peak memory of this process."""
    stamps: list[float] = []

    class Stamp(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            stamps.append(time.perf_counter())

    class StampedCLI(CLI):
        def before_fit(self) -> None:
            super().before_fit()
            self.choose_compile()  # for the length of the config
            self.trainer.fit_loop.epoch_loop.max_steps = 50
            self.trainer.callbacks.append(Stamp())

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run(["fit", "--config", config, "--runs_dir", folder, *options], StampedCLI)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds_to_first_step": stamps[0] - started, "peak_mib": peak}
