"""Choose whether a run compiles its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from lightning_cgan.training.contract import TrainedModule

# Where compiled steps are known to be faster: there is no measurement on a GPU.
DEVICES = ("cpu",)

# By docs/measurements/speed.md, compiling fully connected networks pays off after 2,064 steps of 0.15 GFLOP, and after
# 12,867 steps of 1.53 GFLOP, if PyTorch's cache holds the compiled code. Without it, compiling takes three to six times
# as long; so three times as many steps are asked for.
_FEWEST_STEPS = 6_000
_STEPS_PER_GFLOP = 25_000
# By the same page, large convolutions gain little (15 %), and their graphs take up to a minute to compile, five times
# as long. Small steps spend most of their time between operations, whatever the layers are.
_MOST_GFLOP_WITH_CONVOLUTIONS = 0.15
_TIMES_LONGER_WITH_CONVOLUTIONS = 5

_MOST_STEPS_LOOKED_AT = 10_000  # for sets of penalties

_LIBRARIES = {__name__.partition(".")[0], "lightning", "pytorch_lightning", "torch"}


def steps_to_repay(gflop: float, is_dense: bool, graphs: int = 1) -> float:
    """Returns the number of steps from which on compiling them makes a run on a CPU shorter.

    Args:
        gflop: The floating-point operations of a step, in billions.
        is_dense: Whether the networks have no convolutions.
        graphs: The number of graphs to compile.

    Returns:
        The number; infinity if compiling may never pay off.
    """
    if not is_dense and gflop > _MOST_GFLOP_WITH_CONVOLUTIONS:
        return math.inf
    steps = graphs * max(_FEWEST_STEPS, _STEPS_PER_GFLOP * gflop)
    return steps if is_dense else steps * _TIMES_LONGER_WITH_CONVOLUTIONS


def is_dense(*networks: nn.Module) -> bool:
    """Whether networks have no convolutions, whose weights have more than two dimensions."""
    return all(weight.ndim <= 2 for network in networks for weight in network.parameters())


def count_graphs(module: TrainedModule) -> int:
    """Returns how many graphs a run records: one for each set of penalties that are active together."""
    intervals = {penalty.interval for penalty in module.objectives.penalties}
    steps = range(min(math.lcm(*intervals), _MOST_STEPS_LOOKED_AT))
    return len({tuple(step % interval == 0 for interval in intervals) for step in steps})


def is_known(module: TrainedModule, others: Iterable[object]) -> bool:
    """Whether all code that takes part in a step, also that of `others`, is this package's, PyTorch's or Lightning's.

    A graph does not see what other code reads from files or the clock, and it leaves no gradients to be read after a
    step. Those who know their code can ask for graphs.
    """
    objectives = module.objectives
    parts = [module, objectives, objectives.loss, *objectives.penalties, *module.input_sampler.augmentations]
    parts += [] if objectives.auxiliary_classifier is None else [objectives.auxiliary_classifier]
    layers = [*module.generator.modules(), *module.discriminator.modules()]
    return all(is_of_libraries(type(part)) for part in (*parts, *layers, *others))


def is_of_libraries(code: Any) -> bool:
    """Whether a class or a method is defined in this package, PyTorch or Lightning."""
    return code.__module__.partition(".")[0] in _LIBRARIES
