"""The number of CPU threads that suits two networks."""

from __future__ import annotations

import copy
import math
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_cgan.networks.base import Discriminator, Generator, discriminate
from lightning_cgan.networks.modes import in_evaluation_mode

# From here on, all cores together are faster than one by more than any noise.
_FLOPS_FOR_ALL_CORES = 1e9


def flops_of_step(generator: Generator, discriminator: Discriminator, batch_size: int) -> float:
    """Counts the floating-point operations of a step with shared fakes and without penalties.

    A backward pass costs two forward passes, one where only the image's gradient is wanted: the discriminator sees real
    and generated images forwards and backwards, 2 · 3, and carries the gradient to the generator, 2; the generator is
    passed once forwards and backwards, 3.
    """
    forward = {}
    weights = next(generator.parameters())
    labels = torch.zeros(1, dtype=torch.int64, device=weights.device)
    latents = weights.new_zeros(1, generator.latent_dim)
    images = weights.new_zeros(1, generator.image_channels, generator.image_size, generator.image_size)
    for network, inputs in ((generator, latents), (discriminator, images)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            in_evaluation_mode(network)(inputs, labels)
        forward[network] = counter.get_total_flops()
    return float(batch_size * (8 * forward[discriminator] + 3 * forward[generator]))


def fastest_threads(
    generator: Generator, discriminator: Discriminator, batch_size: int, precision: str, most: int
) -> int:
    """Chooses the number of CPU threads for a run.

    Networks with much to do take all cores. For small ones, of which a second thread may be the ruin when another
    program wants its core, forward and backward passes of copies are timed with 1, 2, 4 … threads: a fraction of a
    second.

    Args:
        generator: Makes the images.
        discriminator: Judges them.
        batch_size: The number of images in an update, in this process.
        precision: As Lightning names it.
        most: The cores that this process may use.
    """
    if most == 1 or flops_of_step(generator, discriminator, batch_size) >= _FLOPS_FOR_ALL_CORES:
        return most
    candidates = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    latents = torch.zeros(batch_size, generator.latent_dim)
    labels = torch.zeros(batch_size, dtype=torch.int64)

    def exercise() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16")):
            logits = discriminate(discriminator, generator(latents, labels), labels).logits
        logits.sum().backward()
        return time.perf_counter() - started

    before = torch.get_num_threads()
    seconds: dict[int, float] = {}
    for _ in range(2):  # in turn, in case that another program comes or goes
        for threads in candidates:
            torch.set_num_threads(threads)
            exercise()
            seconds[threads] = min(seconds.get(threads, math.inf), statistics.median(exercise() for _ in range(25)))
    torch.set_num_threads(before)
    return min(seconds, key=lambda threads: seconds[threads])
