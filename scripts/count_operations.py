"""Counts the operations of a training step that is recorded as one graph.

    python scripts/count_operations.py                                  # all configs, some minutes on two cores
    python scripts/count_operations.py configs/mnist.yaml --fit="--model.discriminator_steps 2"

A GPU launches one kernel, or a few, for each operation of a graph that is not compiled, apart from views. A config has
one graph for each set of penalties that are active together: the table shows the smallest and the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.fx import GraphModule, Node

from lightning_cgan import ConditionalGAN
from lightning_cgan.cli.main import CLI
from lightning_cgan.training.fused_step import FusedStep

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [path for path in sorted(ROOT.glob("configs/*.yaml")) if path.stem != "images"]  # which needs a folder
STEPS = 17  # in which every shipped penalty is active, and inactive
# They only make another view of a tensor, or take one from a list.
VIEWS = {"alias", "detach", "expand", "getitem", "permute", "select", "slice", "split", "squeeze", "t", "transpose"}
VIEWS |= {"unsqueeze", "view", "_unsafe_view"}


class RecordsSteps(Callback):
    """Records steps as graphs, without compiling them, as on a GPU."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Replaces what the module runs, before the first step."""
        if not trainer.global_step:
            module = cast(ConditionalGAN, pl_module)
            module.compilation.fused_step = FusedStep(module.optimization.skipped_steps, compiles=False)


class RecordingCLI(CLI):
    """The command line, with steps that are recorded."""

    def before_fit(self) -> None:
        """Adds the callback."""
        super().before_fit()
        self.trainer.callbacks.append(RecordsSteps())  # type: ignore[attr-defined]


def name_of(node: Node) -> str:
    """The name of an operation, without its namespace and overload."""
    return getattr(node.target, "__name__", str(node.target)).partition(".")[0]


def counts(graph: GraphModule) -> tuple[int, int]:
    """The number of all operations, and of those that are no views."""
    names = [name_of(node) for node in graph.graph.nodes if node.op == "call_function"]
    return len(names), sum(name not in VIEWS for name in names)


def recorded(config: Path, more: list[str]) -> Iterator[GraphModule]:
    """Trains for a few steps, and yields the graphs."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        options = [f"--trainer.max_steps={STEPS}", "--model.compile=none", "--scores.images=0", "--threads=1"]
        cli = RecordingCLI(["fit", "--config", str(config), "--runs_dir", folder, *options, *more])
    fused_step = cli.model.compilation.fused_step
    if fused_step is None:
        raise SystemExit(f"error: {config}: its steps cannot be recorded; see the reason above")
    for graphs in fused_step.cached:
        yield from (cast(GraphModule, graph) for graph, *_ in graphs.recorded.values())


def main() -> None:
    """Prints a row for each config."""
    parser = argparse.ArgumentParser(description="Counts the operations of a training step.")
    parser.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    parser.add_argument("--fit", default="", help="more options of fit")
    arguments = parser.parse_args()
    del sys.argv[1:]  # Lightning would warn about them
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print("| config | operations | without views |\n|---|---|---|")
    for config in arguments.configs:
        found = sorted({counts(graph) for graph in recorded(config, shlex.split(arguments.fit))})
        columns = [" to ".join(map(str, dict.fromkeys((column[0], column[-1])))) for column in zip(*found, strict=True)]
        print(f"| `{config.stem}` | {columns[0]} | {columns[1]} |", flush=True)


if __name__ == "__main__":
    main()
