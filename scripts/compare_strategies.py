"""Compares the speed of ways to average gradients over processes, in steps per second on this machine.

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 scripts/compare_strategies.py

- `module`: as ConditionalGAN under any `ddp`: one message for the network that is updated; DDP's reducer is idle.
- `reducer`: DDP's own reducer with its search for unused parameters, which sends the gradients of both networks in the
  backward pass of each.
- `unwrapped`: the same messages as `module`, from a strategy that never wraps the module in DDP.

Networks, penalties, precision and batch size, over all processes, are those of the configs. The three take turns, so
that other programs on the machine slow all of them equally: compare only within a row.
"""

from __future__ import annotations

import logging
import os
import statistics
import warnings
from typing import Any

import torch.distributed as dist
from benchmark.fit_speed import BuildingCLI, fit_speed
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

import lightning_cgan.training.optimization
from lightning_cgan import ConditionalGAN

CONFIGS, ROUNDS = {"mnist_mlp": 600, "mnist": 48}, 5  # with the number of steps of a training


class LeftToReducer(ConditionalGAN):
    """The same module, with the gradients left to DDP's reducer."""

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Calls Lightning's own, around ours."""
        LightningModule.manual_backward(self, loss, *args, **kwargs)


class Unwrapped(DDPStrategy):
    """DDP without DistributedDataParallel."""

    def _setup_model(self, model: nn.Module) -> Any:
        return model

    def _register_ddp_hooks(self) -> None:
        pass


def speed(way: str, cli: BuildingCLI, count: int) -> float:
    """Steps per second of one short training, after a few to warm up."""
    average = lightning_cgan.training.optimization.average_gradients
    if way == "reducer":
        lightning_cgan.training.optimization.average_gradients = lambda _: None
    try:
        world_size = int(os.environ["LOCAL_WORLD_SIZE"])
        strategies = {"module": DDPStrategy(), "reducer": DDPStrategy(find_unused_parameters=True)}
        module = cli.module(LeftToReducer if way == "reducer" else ConditionalGAN)
        options = {"strategy": strategies.get(way, Unwrapped()), "precision": cli.trainer.precision}
        return fit_speed(module, cli.datamodule.batch_size // world_size, count, devices=world_size, **options)
    finally:
        lightning_cgan.training.optimization.average_gradients = average


def main() -> None:
    """Prints a table."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ways = ("module", "reducer", "unwrapped")
    lines = ["| config | batch size | " + " | ".join(ways) + " |", "|---|---|---|---|---|"]
    for config, count in CONFIGS.items():
        cli = BuildingCLI(["fit", "--config", config, "--trainer.accelerator", "cpu"])
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                speeds[way].append(speed(way, cli, count))
        cells = []
        for way in ways:
            ratios = [mine / module for mine, module in zip(speeds[way], speeds["module"], strict=True)]
            middle = statistics.median(speeds[way])
            cells.append(f"{middle:.1f}/s, {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        lines.append(f"| `{config}` | {cli.datamodule.batch_size} | " + " | ".join(cells) + " |")
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} processes, {ROUNDS} rounds; median, ratio to `module`")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
