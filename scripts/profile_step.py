"""Shows how the time of a step is divided among kinds of operations.

    python scripts/profile_step.py configs/mnist.yaml [more options of fit]

PyTorch's profiler makes each operation a little slower, so compare the shares, not the times.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.profiler import ProfilerActivity, profile

from lightning_cgan.cli.main import CLI

FIRST, LAST = 24, 64  # steps; the ones before warm up
KINDS = {
    "convolutions": r"conv",
    "matrix products": r"^aten::(addmm|mm|bmm|linear|matmul)$",
    "copies and changes of precision or order": r"copy_|_to_copy|contiguous|clone|aten::to$|aten::cat|empty|index",
    "normalisation": r"norm",
    "the optimizers": r"Optimizer|adam|foreach",
    "compiled": r"Torch-Compiled|inductor|CompiledF|kernel",
    "other operations": r"^aten::",
    "the engine that walks the graph": r"autograd|Backward|AccumulateGrad",
}


class Watch(Callback):
    """Profiles some steps."""

    def __init__(self) -> None:
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Starts and stops."""
        if trainer.global_step == FIRST:
            self.profile.start()
            self.seconds = time.perf_counter()
        elif trainer.global_step == LAST:
            self.seconds = time.perf_counter() - self.seconds
            self.profile.stop()


class WatchedCLI(CLI):
    """The command line, watched."""

    watch: Watch

    def before_fit(self) -> None:
        """Adds the watch, and shortens the run once what is compiled has been chosen for the length of the config."""
        super().before_fit()
        self.choose_compile()
        self.trainer.fit_loop.epoch_loop.max_steps = LAST + 1
        self.watch = Watch()
        self.trainer.callbacks.append(self.watch)


def main() -> None:
    """Profiles a config, and prints the shares."""
    config, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        cli = WatchedCLI(["fit", "--config", config, "--runs_dir", folder, *options])
    spent = dict.fromkeys(KINDS, 0.0)
    for event in cli.watch.profile.key_averages():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, event.key)), None)
        if kind is not None:
            spent[kind] += event.self_cpu_time_total / 1e6
    spent["Python and Lightning between operations"] = cli.watch.seconds - sum(spent.values())
    print(f"\n| {config} | ms a step | share |\n|---|---|---|")
    for kind, seconds in spent.items():
        print(f"| {kind} | {1e3 * seconds / (LAST - FIRST):.2f} | {seconds / cli.watch.seconds:.0%} |")
    print(f"| together | {1e3 * cli.watch.seconds / (LAST - FIRST):.2f} | |")


if __name__ == "__main__":
    main()
