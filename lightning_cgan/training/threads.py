"""Choose the number of CPU threads for training two networks."""

from __future__ import annotations

import copy
import math
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_cgan.networks.base import Discriminator, Generator, discriminate
from lightning_cgan.networks.modes import in_evaluation_mode

# From this count on, using all cores is clearly faster than using one.
_FLOPS_FOR_ALL_CORES = 1e9


def flops_of_step(generator: Generator, discriminator: Discriminator, batch_size: int) -> float:
    """Counts the floating-point operations of a step with shared fakes and without penalties.

    A backward pass costs as much as two forward passes, or one if only the gradient of the image is needed. The
    discriminator processes real and generated images forward and backward (2 · 3), and passes the gradient to the
    generator (2); the generator runs once forward and backward (3).
    """
    forward = {}
    weights = next(generator.parameters())
    labels = torch.zeros(1, dtype=torch.int64, device=weights.device)
    latents = weights.new_zeros(1, generator.latent_dim)
    images = weights.new_zeros(1, *generator.image_shape)
    for network, inputs in ((generator, latents), (discriminator, images)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            in_evaluation_mode(network)(inputs, labels)
        forward[network] = counter.get_total_flops()
    return float(batch_size * (8 * forward[discriminator] + 3 * forward[generator]))


def fastest_threads(
    generator: Generator, discriminator: Discriminator, batch_size: int, precision: str, most: int
) -> int:
    """Chooses the number of CPU threads for a run, with `batch_size` images per update in this process.

    Networks with enough work use all cores. For small ones, a second thread can slow a run down badly when another
    program needs its core; so forward and backward passes of copies are timed with 1, 2, 4 … threads, which takes a
    fraction of a second.
    """
    if most == 1 or flops_of_step(generator, discriminator, batch_size) >= _FLOPS_FOR_ALL_CORES:
        return most
    candidates = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    latents = torch.zeros(batch_size, generator.latent_dim)
    labels = torch.zeros(batch_size, dtype=torch.int64)

    def timed_pass() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16")):
            logits = discriminate(discriminator, generator(latents, labels), labels).logits
        logits.sum().backward()
        return time.perf_counter() - started

    before = torch.get_num_threads()
    seconds: dict[int, float] = {}
    for _ in range(2):  # twice, in case another program starts or ends meanwhile
        for threads in candidates:
            torch.set_num_threads(threads)
            timed_pass()
            seconds[threads] = min(seconds.get(threads, math.inf), statistics.median(timed_pass() for _ in range(25)))
    torch.set_num_threads(before)
    return min(seconds, key=lambda threads: seconds[threads])
