"""Measures how the time of a step scales with sizes and processes, and computes it for many GPUs.

    python scripts/scale.py                                              # on one process, a few minutes on two cores
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 scripts/scale.py       # on two: strong and weak scaling
    python scripts/scale.py --model                                      # the model of many GPUs, without measuring

The networks are those of `configs/mnist.yaml`. All points of a table take turns: compare only within a table.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from benchmark.baselines import bare_loop
from benchmark.fit_speed import fit_speed
from torch.optim import Adam

from lightning_cgan import ConditionalGAN, DCGANDiscriminator, DCGANGenerator, NonSaturating
from lightning_cgan.data import ShufflingLoader
from lightning_cgan.training.threads import flops_of_step

ROUNDS = 5
# Assumed for the model of many GPUs, not measured: what small convolutions reach of a large GPU in bfloat16, the time
# of a hop between two GPUs, and the bandwidth of each inside a machine of 8 and between machines.
FLOPS_PER_SECOND, HOP, INSIDE, BETWEEN, GPUS_OF_A_MACHINE = 5e13, 1e-5, 2e11, 4e10, 8
LAUNCHES = 5e-4  # a step as one CUDA graph, however small


def pair(num_classes: int = 10, image_size: int = 28, fused: bool = True) -> ConditionalGAN:
    """The networks of mnist.yaml, for other data."""
    sizes = {"num_classes": num_classes, "image_channels": 1, "image_size": image_size}
    adam = partial(Adam, lr=5e-4, betas=(0.5, 0.99), fused=fused)
    return ConditionalGAN(
        DCGANGenerator(**sizes, latent_dim=64, channels=(64, 32), conditional_batch_norm=True),
        DCGANDiscriminator(**sizes, channels=(32, 64), hidden=256),
        NonSaturating(),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def milliseconds(steps: dict[Any, Callable[[], None]]) -> dict[Any, float]:
    """The median time of a step of each, which take turns."""
    taken: dict[Any, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS + 1):
        for name, step in steps.items():
            started, count = time.perf_counter(), 0
            while count < 2 or time.perf_counter() - started < 0.3:
                step()
                count += 1
            if round_:
                taken[name].append(1e3 * (time.perf_counter() - started) / count)
    return {name: statistics.median(times) for name, times in taken.items()}


def step_of(module: ConditionalGAN, batch_size: int) -> Callable[[], None]:
    """The bare step on random images."""
    size, classes = module.generator.image_size, module.num_classes
    pixels = torch.randint(0, 256, (4 * batch_size, 1, size, size), dtype=torch.uint8)
    labels = torch.arange(4 * batch_size) % classes
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    return bare_loop(module, pixels, labels, batch_size, autocast, as_graph=False)


def show(title: str, rows: dict[Any, float], per: Callable[[Any], float], unit: str) -> None:
    """Prints a table: what was varied, the time, and the time for a unit of it."""
    print(f"\n| {title} | ms | {unit} |\n|---|---|---|")
    for name, time_ in rows.items():
        print(f"| {name:,} | {time_:.2f} | {per(name) * time_:.3g} |", flush=True)


def measure_growth() -> None:
    """Batch size, image size, number of classes, number of images."""
    sizes = (16, 32, 64, 128, 256, 512, 1024)
    show("batch size", milliseconds({n: step_of(pair(), n) for n in sizes}), lambda n: 1e3 / n, "µs an image")
    pixels = (12, 20, 28, 56, 112)
    rows = milliseconds({size: step_of(pair(image_size=size), 64) for size in pixels})
    show("image size (batch 64)", rows, lambda size: 1e6 / (64 * size**2), "ns a pixel")
    classes = (2, 10, 100, 1000)
    rows = milliseconds({n: step_of(pair(num_classes=n), 64) for n in classes})
    show("classes (batch 64)", rows, lambda _: 1e3 / 64, "µs an image")
    print("\n| images in memory | µs a batch of 64 | ms to shuffle them | MB of order |\n|---|---|---|---|")
    for count in (10**3, 10**4, 10**5, 10**6, 10**7):
        # All images share their memory beyond what fits: their index is what is looked at.
        images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8).expand(count, 1, 28, 28)
        if count <= 10**6:
            images = images.contiguous()
        loader = ShufflingLoader(images, torch.zeros(count, dtype=torch.int64), 64)
        started = time.perf_counter()
        batches = iter(loader)
        next(batches)
        shuffled = time.perf_counter() - started
        laps = []
        for _ in range(min(500, len(loader) - 1)):
            started = time.perf_counter()
            next(batches)
            laps.append(time.perf_counter() - started)
        print(f"| {count:,} | {1e6 * statistics.median(laps):.0f} | {1e3 * shuffled:.1f} | {8 * count / 1e6:,.2f} |")


# ---- two processes ---------------------------------------------------------------------------------------------------


def measure_processes() -> None:
    """Strong scaling (64 images in all) and weak scaling (64 in each), against one process alone, in turn."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    found: dict[str, list[float]] = {"strong": [], "weak": []}
    alone: list[float] = []
    options = {"devices": world, "strategy": "ddp", "precision": "bf16-mixed"}
    for _ in range(ROUNDS):
        for name, share in (("strong", 64 // world), ("weak", 64)):
            found[name].append(fit_speed(pair(), share, 60, **options))
        # One process works while the others wait: a loop without processes to talk to.
        if rank == 0:
            step = step_of(pair(), 64)
            alone.append(1e3 / milliseconds({0: step})[0])
        dist.barrier()
    if rank == 0:
        one = statistics.median(alone)
        print(f"one process alone, bare loop: {one:.1f} steps/s of 64 images")
        for name, factor in (("strong", 1), ("weak", world)):
            speed = statistics.median(found[name])
            images = 64 * factor
            print(f"{name}: {speed:.1f} steps/s of {images}, {speed * factor / one:.2f} times one process")


# ---- many GPUs -------------------------------------------------------------------------------------------------------


def model_of_many() -> None:
    """Arithmetic against messages: a step sends the gradients of each network once."""
    module = pair()
    sent = 4 * sum(p.numel() for network in (module.generator, module.discriminator) for p in network.parameters())
    flops = flops_of_step(module.generator, module.discriminator, 1)
    print(f"{sent / 1e6:.1f} MB of gradients in two messages, {flops / 1e6:.0f} MFLOP an image\n")
    print("| GPUs | images each | arithmetic, µs | messages, µs | efficiency |\n|---|---|---|---|---|")
    for share in (64, 1024, 16384):
        for gpus in (8, 64, 512):
            arithmetic = max(LAUNCHES, share * flops / FLOPS_PER_SECOND)
            bandwidth = INSIDE if gpus <= GPUS_OF_A_MACHINE else BETWEEN
            # Each of two all-reduces: there and back along a tree, and every byte in and out once.
            messages = 2 * 2 * math.log2(gpus) * HOP + 2 * (gpus - 1) / gpus * sent / bandwidth
            efficiency = arithmetic / (arithmetic + messages)
            print(f"| {gpus} | {share:,} | {1e6 * arithmetic:,.0f} | {1e6 * messages:,.0f} | {efficiency:.2f} |")


def main() -> None:
    """Measures, or computes."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if "--model" in sys.argv:
        model_of_many()
    elif "WORLD_SIZE" in os.environ:
        measure_processes()
    else:
        measure_growth()


if __name__ == "__main__":
    main()
