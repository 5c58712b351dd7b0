"""Compares the speed of `fit` with that of hand-written loops, and with the most that the machine could reach.

    python scripts/benchmark                                 # all configs for MNIST, half an hour on two cores
    python scripts/benchmark configs/mnist_mlp.yaml --rounds 9 --fit="--threads 1"

For each config, in steps per second:

- `fit`: the command line as shipped, with its loggers, progress bar, samples, curves, checkpoints and validation. What
  happens every thousand steps or so is timed in the run, and its median is charged at the config's interval. A judge
  that the first validation has to train is cached, and not charged.
- `bare`: a hand-written loop over the same step, without a Trainer: same networks, precision, optimizers, shared fakes,
  penalties, moving average, and the same graph if `fit` compiles the step.
- `eager`: a plain loop in float32 over images in memory, two passes of the discriminator, new fakes for the generator.
- `naive`: the same, as tutorials write it: images through a DataLoader with ToTensor, losses read in every step.
- `uncompiled`: the bare loop without the graph, if `fit` compiles: shows when compiling pays.
- `floor`: the speed at which the step's floating-point operations would run in large matrix products on this machine.

All take turns in one process, a few dozen steps each, so that other programs on the machine slow all of them equally:
compare only within a row. Results go to a folder: `benchmark.json`, `benchmark.md`, `benchmark.png`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from timing import BASELINES, measure, measure_start

ROOT = Path(__file__).resolve().parent.parent.parent


def seconds_of(*command: str) -> float:
    """The seconds that a Python process takes, the best of three."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return min(taken)


def ratio(speeds: dict[str, list[float]], one: str, other: str) -> str:
    """The median ratio within a round, with the quartiles: a few rounds always meet a neighbour of the machine."""
    ratios = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{median:.2f} ({lower:.2f}-{upper:.2f})"


def share_rate(results: list[dict[str, Any]]) -> None:
    """Computes all floors from the best matrix rate: a neighbour of the machine may have met the measurement of one."""
    best: dict[tuple[str, int], float] = {}
    for result in results:
        how = result["precision"], result["threads"]["fit"]
        best[how] = max(result["gflop_per_second"], best.get(how, 0.0))
    for result in results:
        result["floor"] = best[result["precision"], result["threads"]["fit"]] / result["gflop"]


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| config | precision, threads | fit | bare | eager | naive | floor | fit / bare | fit / eager | fit / naive |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        speeds = result["speeds"]
        medians = [f"{statistics.median(speeds[name]):.3g}" for name in ("fit", *BASELINES)]
        ratios = [ratio(speeds, "fit", baseline) for baseline in BASELINES]
        how = f"{result['precision']}, {result['threads']['fit']}" + (", compiled" * (result["compile"] != "none"))
        cells = [f"`{result['config']}`", how, *medians, f"{result['floor']:.3g}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def remarks(results: list[dict[str, Any]]) -> str:
    """What the table has no room for, as a second one."""
    lines = [
        "| config | GFLOP in a step | first step after | peak memory | compiled in | which pays after |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        compiled = pays = ""
        if "uncompiled" in result["speeds"]:
            with_graph, without = (statistics.median(result["speeds"][name]) for name in ("bare", "uncompiled"))
            saved = 1 / without - 1 / with_graph
            compiled = f"{result['seconds_to_fuse']:.1f} s"
            pays = f"{result['seconds_to_fuse'] / saved:,.0f} steps" if saved > 0 else "never"
        first, peak = f"{result['seconds_to_first_step']:.1f} s", f"{result['peak_mib']:,.0f} MiB"
        cells = [f"`{result['config']}`", f"{result['gflop']:.2f}", first, peak, compiled, pays]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], picture: Path) -> None:
    """Bars of all speeds as shares of the floor."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    names = ("naive", "eager", "bare", "fit")
    for row, name in enumerate(names):
        shares = [statistics.median(result["speeds"][name]) / result["floor"] for result in results]
        axes.bar([index + 0.2 * row for index in range(len(results))], shares, width=0.2, label=name)
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
    configs = [str(path) for path in sorted(ROOT.glob("configs/*mnist*.yaml"))]
    parser.add_argument("configs", nargs="*", default=configs)
    parser.add_argument("--rounds", type=int, default=15, help="how often each has its turn, at least two")
    parser.add_argument("--seconds", type=float, default=0.6, help="about how long a turn is")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="the folder for the results")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fit", default="", help='more options of fit, as in --fit="--threads 1"')
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds: expected 2 or more, got {arguments.rounds}; quartiles need them")
    fit = shlex.split(arguments.fit)
    if arguments.into:  # a process for one config
        config = arguments.configs[0]
        result = measure_start(config, fit) if arguments.start else measure(config, *turns_of(arguments), fit)
        arguments.into.write_text(json.dumps(result))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for config in arguments.configs:
        result = {}
        for part in (["--start"], []):
            into = arguments.out / "one.json"
            command = [str(Path(__file__).parent), config, "--into", str(into), *part, f"--fit={arguments.fit}"]
            command += [f"--rounds={arguments.rounds}", f"--seconds={arguments.seconds}"]
            if subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL).returncode:
                sys.exit(2)  # it has told why
            result |= json.loads(into.read_text())
            into.unlink()
        results.append(result)
        share_rate(results)
        print(table(results[-1:]), remarks(results[-1:]), sep="\n\n", flush=True)
    bare_python = seconds_of("-c", "pass")
    start = {
        "import lightning_cgan": seconds_of("-c", "import lightning_cgan") - bare_python,
        "--help": seconds_of("-m", "lightning_cgan", "--help"),
        "import lightning_cgan.cli.main": seconds_of("-c", "import lightning_cgan.cli.main") - bare_python,
    }
    seconds = "\n".join(f"- `{what}`: {taken:.2f} s" for what, taken in start.items())
    (arguments.out / "benchmark.json").write_text(json.dumps({"configs": results, "start": start}, indent=1))
    (arguments.out / "benchmark.md").write_text("\n\n".join([table(results), remarks(results), seconds]) + "\n")
    draw(results, arguments.out / "benchmark.png")
    print(seconds)


def turns_of(arguments: argparse.Namespace) -> tuple[int, float]:
    """How many turns there are, and how long."""
    return arguments.rounds, arguments.seconds


if __name__ == "__main__":
    main()
