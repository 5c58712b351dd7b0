"""Measures `fit` against the loops that it could be replaced by, and against what the machine could do at best.

    python scripts/benchmark.py                              # all configs for MNIST, a quarter of an hour on two cores
    python scripts/benchmark.py configs/mnist_mlp.yaml --rounds 9

For each config, in alternations per second:

- `fit`: the command line as shipped, with its loggers, progress bar, samples, curves, checkpoints and validation. What
  happens every thousand alternations or so is timed in the run and charged at the interval that the config gives.
- `bare`: a loop by hand over the same step, without a Trainer: same networks, precision, optimizers, shared fakes,
  penalties, moving average, and the same graph where the config compiles the alternation.
- `eager`: a plain loop in float32 over images in memory, two passes of the discriminator, new fakes for the generator.
- `naive`: the same as tutorials write it: images through a DataLoader with ToTensor, losses read in every step.
- `floor`: as fast as the step's floating-point operations would run in the machine's large matrix products.

All take turns in one process, a few dozen alternations each, so that a machine that is busy with other things disturbs
all alike: compare within a row only. Results go to a folder: `benchmark.json`, `benchmark.md`, `benchmark.png`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from lightning_cgan.averaging import decay_of, update_average
from lightning_cgan.callbacks import Checkpoints, Curves, SampleGrid
from lightning_cgan.capture import CapturedAlternation
from lightning_cgan.chance import draw_latents, generator_at
from lightning_cgan.cli import CLI
from lightning_cgan.images import signed_from_bytes
from lightning_cgan.machine import flops_of_alternation
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.networks.base import frozen, judge

ROOT = Path(__file__).resolve().parent.parent
RIVALS = ("bare", "eager", "naive")
Step = Callable[[], None]
# Only decides how many alternations a turn has.
_GUESSED_FLOPS_PER_SECOND = 6e10


# ---- the rivals ------------------------------------------------------------------------------------------------------


def bare_loop(module: ConditionalGAN, pixels: Tensor, labels: Tensor, batch_size: int, autocast: Any) -> Step:
    """The step of `module` by hand."""
    generator, discriminator = copies(module)
    average = copy.deepcopy(generator).requires_grad_(False) if module.ema_half_life else None
    optimizers = [module.optimizer_factories[role](net.parameters()) for role, net in roles(generator, discriminator)]
    generator_optimizer, discriminator_optimizer = optimizers
    dealer, objectives = module.dealer, module.objectives
    captured = None
    if module.captured is not None:
        compiles = module.captured.compiles
        captured = CapturedAlternation(generator, discriminator, objectives, dealer, *optimizers, compiles)
    count = 0

    def step() -> None:
        nonlocal count
        chosen = torch.randint(len(labels), (batch_size,))
        dealt = dealer.deal(generator_at(0, count), signed_from_bytes(pixels[chosen]), labels[chosen])
        due = objectives.due(count)
        with autocast():
            if captured is not None:
                captured.run([dealt], None, due)
            else:
                fake = generator(dealt.latents, dealt.fake_labels)
                discriminator_optimizer.zero_grad()
                objectives.of_discriminator(discriminator, dealt, fake.detach(), due)[0].backward()
                discriminator_optimizer.step()
                generator_optimizer.zero_grad()
                with frozen(discriminator):
                    objectives.of_generator(discriminator, dealt, fake)[0].backward()
                generator_optimizer.step()
        if average is not None:
            decay = decay_of(batch_size, count * batch_size, module.ema_half_life, module.ema_ramp_up)
            update_average(average, generator, decay)
        count += 1

    return step


def plain_loop(module: ConditionalGAN, batches: Iterator[tuple[Tensor, Tensor]], reads_losses: bool) -> Step:
    """The step as one writes it without a thought for speed; weights lie in memory as PyTorch makes them."""
    generator, discriminator = copies(module)
    for parameter in (*generator.parameters(), *discriminator.parameters()):
        parameter.data = torch.empty(parameter.shape, device=parameter.device).copy_(parameter)
    generator_optimizer, discriminator_optimizer = (
        type(module.optimizer_factories[role](nn.Linear(1, 1).parameters()))(net.parameters(), lr=1e-4)
        for role, net in roles(generator, discriminator)
    )
    count = 0

    def latents_for(images: Tensor) -> Tensor:
        return draw_latents((len(images), generator.latent_dim), module.latents, None).to(images.device)

    def step() -> None:
        nonlocal count
        real, labels = next(batches)
        ones, zeros = torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
        discriminator_optimizer.zero_grad()
        fake = generator(latents_for(real), labels).detach()
        real_loss = binary_cross_entropy_with_logits(judge(discriminator, real, labels).logits, ones)
        fake_loss = binary_cross_entropy_with_logits(judge(discriminator, fake, labels).logits, zeros)
        loss = real_loss + fake_loss
        for penalty in module.penalties:
            if count % penalty.interval == 0:
                loss = loss + penalty.interval * penalty(discriminator, real, fake, labels, labels)
        loss.backward()
        discriminator_optimizer.step()
        generator_optimizer.zero_grad()
        fake = generator(latents_for(real), labels)
        generator_loss = binary_cross_entropy_with_logits(judge(discriminator, fake, labels).logits, ones)
        generator_loss.backward()
        generator_optimizer.step()
        count += 1
        if reads_losses:
            loss.item(), generator_loss.item()

    return step


def roles(generator: nn.Module, discriminator: nn.Module) -> tuple[tuple[Any, nn.Module], ...]:
    """The networks by their names in a module."""
    return ("generator", generator), ("discriminator", discriminator)


def copies(module: ConditionalGAN) -> tuple[Any, Any]:
    """The networks once more, as they are now."""
    return copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)


def from_memory(pixels: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches cut out of memory at random."""
    while True:
        chosen = torch.randint(len(labels), (batch_size,))
        yield signed_from_bytes(pixels[chosen]), labels[chosen]


def from_files(folder: Path, classes: list[int], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as tutorials load them; of the kept classes, which a tutorial would filter in some such way."""
    dataset = MNIST(str(folder), transform=Compose([ToTensor(), Normalize(0.5, 0.5)]))
    kept = torch.isin(dataset.targets, torch.tensor(classes))
    dataset.data, dataset.targets = dataset.data[kept], torch.searchsorted(torch.tensor(classes), dataset.targets[kept])
    while True:
        yield from DataLoader(dataset, batch_size, shuffle=True, drop_last=True)


def to(device: torch.device, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Takes batches to a device."""
    for images, labels in batches:
        yield images.to(device), labels.to(device)


# ---- the turns -------------------------------------------------------------------------------------------------------


class Turns(Callback):
    """Lets the rivals run between the alternations of a fit, and times all.

    Args:
        turn: The alternations of a turn. Each of the fit has one of every event.
        charged: How often an event happens in an alternation of the config as shipped, by its name.
        default_threads: What PyTorch would use, for the loops that do not choose.
    """

    def __init__(self, turn: int, charged: dict[str, float], default_threads: int) -> None:
        self.turn, self.charged = turn, charged
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *RIVALS)}
        self.events: dict[str, list[float]] = {name: [] for name in (*charged, "Curves")}
        self.drawing_every = 60.0  # seconds
        self.steps: dict[str, Step] = {}
        self.threads = dict.fromkeys(RIVALS, default_threads)
        self.started = self.spent = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds the rivals, and puts a clock on what happens now and then."""
        assert isinstance(pl_module, ConditionalGAN)
        data = trainer.datamodule  # type: ignore[attr-defined]
        device, size = pl_module.device, data.batch_size
        pixels, labels = (tensor.to(device) for tensor in data.splits["train"])
        self.steps = {
            "bare": bare_loop(pl_module, pixels, labels, size, trainer.precision_plugin.forward_context),
            "eager": plain_loop(pl_module, from_memory(pixels, labels, size), reads_losses=False),
            "naive": plain_loop(pl_module, to(device, from_files(data.data_dir, data.kept, size)), reads_losses=True),
        }
        self.threads["fit"] = self.threads["bare"] = torch.get_num_threads()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Curves):
                self.drawing_every, callback.every_n_seconds = callback.every_n_seconds, math.inf
            if isinstance(callback, (SampleGrid, Curves)):
                self.put_clock_on(callback, "_draw", type(callback).__name__)
            elif isinstance(callback, Checkpoints):
                self.put_clock_on(callback, "_save_topk_checkpoint", "Checkpoints")
        self.put_clock_on(pl_module, "report_running_means", "report")
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

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends a turn of the fit, and gives each rival one."""
        if trainer.global_step % self.turn:
            return
        if trainer.global_step:
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
        """Alternations per second in each round but the first, which warms up."""
        charge = sum(statistics.mean(self.events[event]) * often for event, often in self.charged.items())
        drawing = statistics.mean(self.events["Curves"]) / self.drawing_every
        steady = {name: [seconds / self.turn for seconds in taken[1:]] for name, taken in self.seconds.items()}
        steady["fit"] = [(seconds + charge) / (1 - drawing) for seconds in steady["fit"]]
        return {name: [1 / seconds for seconds in taken] for name, taken in steady.items()}


def synchronize(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class BenchmarkCLI(CLI):
    """The command line, with `Turns` among the callbacks."""

    rounds, seconds = 7, 1.0
    default_threads = 1
    turns: Turns

    def before_fit(self) -> None:
        """Chooses the length of a turn, and lets everything happen once in each."""
        trainer, data = self.trainer, self.datamodule
        self.flops = flops_of_alternation(self.model.generator, self.model.discriminator, data.batch_size)
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
                charged["Checkpoints"] = 1 / callback._every_n_train_steps
                callback._every_n_train_steps = turn
        trainer.log_every_n_steps = trainer.val_check_interval = turn
        trainer.check_val_every_n_epoch = None
        trainer.fit_loop.epoch_loop.max_steps = turn * (self.rounds + 2)
        trainer.fit_loop.max_epochs = -1
        self.turns = Turns(turn, charged, self.default_threads)
        trainer.callbacks.append(self.turns)


# ---- one config ------------------------------------------------------------------------------------------------------


def measure(config: str, rounds: int, seconds: float, options: list[str]) -> dict[str, Any]:
    """Runs the turns of one config in this process, in a folder that does not stay."""
    BenchmarkCLI.rounds, BenchmarkCLI.seconds, BenchmarkCLI.default_threads = rounds, seconds, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        cli = BenchmarkCLI(["fit", "--config", config, "--runs_dir", folder, *options])
    turns, module, device = cli.turns, cli.model, cli.trainer.strategy.root_device
    torch.set_num_threads(turns.threads["fit"])
    rate = matrix_rate(device, torch.bfloat16 if "bf16" in cli.trainer.precision else torch.float32)
    return {
        "config": Path(config).stem,
        "precision": cli.trainer.precision,
        "compile": module.compiled,
        "threads": turns.threads,
        "gflop": cli.flops / 1e9,
        "gflop_per_second": rate / 1e9,
        "floor": rate / cli.flops,
        "batch_size": cli.datamodule.batch_size,
        "speeds": turns.speeds(),
        "events_ms": {name: 1e3 * statistics.mean(taken) for name, taken in turns.events.items() if taken},
        "seconds_to_capture": module.captured.seconds if module.captured is not None else None,
    }


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The floating-point operations per second of a large matrix product, the best of seven."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(5):
            a @ b
        synchronize(device)
        best = max(best, 5 * 2 * size**3 / (time.perf_counter() - started))
    return best


# ---- all configs -----------------------------------------------------------------------------------------------------


def ratio(speeds: dict[str, list[float]], one: str, other: str) -> str:
    """The median ratio within a round, with the range of all."""
    ratios = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| config | precision, threads | fit | bare | eager | naive | floor | fit / bare | fit / eager | fit / naive |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        speeds = result["speeds"]
        medians = [f"{statistics.median(speeds[name]):.3g}" for name in ("fit", *RIVALS)]
        ratios = [ratio(speeds, "fit", rival) for rival in RIVALS]
        how = f"{result['precision']}, {result['threads']['fit']}" + (", compiled" * (result["compile"] != "none"))
        cells = [f"`{result['config']}`", how, *medians, f"{result['floor']:.3g}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], picture: Path) -> None:
    """Bars of all speeds as shares of the floor."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    names = ("naive", "eager", "bare", "fit")
    for place, name in enumerate(names):
        shares = [statistics.median(result["speeds"][name]) / result["floor"] for result in results]
        axes.bar([index + 0.2 * place for index in range(len(results))], shares, width=0.2, label=name)
    axes.set_xticks(
        [index + 0.3 for index in range(len(results))], [result["config"] for result in results], rotation=20
    )
    axes.set_ylabel("share of the machine's matrix rate")
    axes.legend()
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Measures each config in a process of its own, and writes what came out."""
    parser = argparse.ArgumentParser(description="Measures fit against other loops.")
    parser.add_argument("configs", nargs="*", default=[str(path) for path in sorted(ROOT.glob("configs/*mnist*.yaml"))])
    parser.add_argument("--rounds", type=int, default=7, help="how often each has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a turn is")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="the folder for the results")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fit", default="", help='more options of fit, as in --fit="--threads 1"')
    arguments = parser.parse_args()
    if arguments.into:
        result = measure(arguments.configs[0], arguments.rounds, arguments.seconds, shlex.split(arguments.fit))
        arguments.into.write_text(json.dumps(result))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for config in arguments.configs:
        into = arguments.out / "one.json"
        turns = [f"--rounds={arguments.rounds}", f"--seconds={arguments.seconds}", f"--fit={arguments.fit}"]
        subprocess.run([sys.executable, __file__, config, "--into", str(into), *turns], check=True)
        results.append(json.loads(into.read_text()))
        into.unlink()
        print(table(results[-1:]), flush=True)
    (arguments.out / "benchmark.json").write_text(json.dumps(results, indent=1))
    (arguments.out / "benchmark.md").write_text(table(results) + "\n")
    draw(results, arguments.out / "benchmark.png")


if __name__ == "__main__":
    main()
