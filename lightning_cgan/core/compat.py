"""The private parts of PyTorch, Lightning, jsonargparse and argparse that the package needs; no other file touches any.

Any release may change them without a word: `tests/core/test_compat.py` asks for each, and says what breaks without it.
A link leads to where one is defined, or to where a public way to the same has been asked for.

At the top nothing but Python's own is imported, since `core` knows no Lightning, and `__main__` comes here before it
imports PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

# Ends the process at once, which no library can catch as it can SystemExit. Python documents it, underscore and all:
# https://docs.python.org/3/library/os.html#os._exit
exit_at_once = os._exit

# ---- PyTorch: modules ------------------------------------------------------------------------------------------------

# Under which attributes a module keeps what it is made of. The public iterators make a list of it in each call; a graph
# compares the attributes themselves in each step.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
PARTS_OF_MODULE = ("_parameters", "_buffers", "_modules")

# The attribute that `module.compile()` sets; PyTorch has no function that says whether a module is compiled.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
COMPILED_CALL = "_compiled_call_impl"

# Where modules and tensors keep their hooks: these can be registered in a public way, but not asked for.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_tensor.py
HOOKS_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOKS_OF_TENSORS = (attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks"))

# How often a tensor has been written to, which PyTorch's autograd counts for itself.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_tensor.py
version_of = attrgetter("_version")


def hooks_of_all_modules() -> tuple[dict[int, Any], ...]:
    """The hooks that every module calls, by kind: the live dictionaries, for which there is no public function.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
    """
    from torch.nn.modules import module

    return tuple(getattr(module, f"_global{kind}") for kind in HOOKS_OF_MODULES)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is batch normalisation of any kind: the class that all kinds are made of has no public name.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/batchnorm.py
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def is_compiled_in_place(module: nn.Module) -> bool:
    """Whether `module.compile()` has been called; see `COMPILED_CALL`."""
    return module._compiled_call_impl is not None


def original_of(module: nn.Module) -> nn.Module | None:
    """What `torch.compile(module)` is wrapped around, if a module is such a wrapper, whose class is private, too.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_dynamo/eval_frame.py
    """
    is_wrapper = "_orig_mod" in module._modules  # which has no `get` in modules of TorchScript
    return module._modules["_orig_mod"] if is_wrapper else None


def is_compiled_alone(module: nn.Module) -> bool:
    """Whether a module is compiled, in place, as a wrapper, or by a `forward` of its own that `torch.compile` made.

    Nothing public tells such a function from any other.
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_dynamo/eval_frame.py
    """
    if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
        return True
    return hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")


def convert_tensors(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Puts each parameter and buffer through a function: `to` and `float` are made of it, but convert all alike.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
    """
    module._apply(convert)


# ---- PyTorch: operations ---------------------------------------------------------------------------------------------


def foreach(operation: str) -> Callable[..., Any]:
    """An operation on many tensors at once, such as `add_`: PyTorch's optimizers are made of them.

    To be asked for once, when a module is imported: steps call what is returned, with nothing in between.
    The public way has been asked for in https://github.com/pytorch/pytorch/pull/193607
    """
    import torch

    function: Callable[..., Any] = getattr(torch, f"_foreach_{operation}")
    return function


def flatten(tree: Any) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    """The leaves of nested containers, and what puts others in their places.

    The public way has been asked for in https://github.com/pytorch/pytorch/issues/65761
    """
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, structure = tree_flatten(tree)
    return leaves, lambda others: tree_unflatten(others, structure)


def watching_modes() -> list[Any]:
    """The modes that see each operation, but for those of `torch.device`; PyTorch lets one enter them, but not ask.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/overrides.py
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/utils/_python_dispatch.py
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/utils/_device.py
    """
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    modes = (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack())
    return [mode for mode in modes if not isinstance(mode, DeviceContext)]


def mode_counters() -> tuple[Callable[[], int], Callable[[], int]]:
    """What counts the modes of `watching_modes`, of both kinds: cheap enough for each step, as lists of them are not.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/overrides.py
    """
    import torch

    return torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack


def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself, as far as this release of PyTorch can tell.

    `torch.cpu.get_capabilities`, which is public, is not in the oldest release that the package runs with.
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/cpu/__init__.py
    """
    import torch

    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


# ---- PyTorch: optimizers and schedules -------------------------------------------------------------------------------

# Where optimizers keep their hooks: these can be registered in a public way, but not asked for.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/optimizer.py
HOOKS_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

# Attributes of schedules, which are the keys of their states, too: those that one is made of, the steps at which one
# follows another, the user's function that a CyclicLR calls, and what they keep for themselves, which differs between
# releases. The mark is that of the `step` which a schedule gives its optimizer, to see it called.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/lr_scheduler.py
PARTS_OF_SCHEDULE, MILESTONES, FUNCTION_OF_SCHEDULE = "_schedulers", "_milestones", "_scale_fn_custom"
BOOKKEEPING_OF_SCHEDULES = {"_step_count", "_is_initial", "_get_lr_called_within_step", "_last_lr", "verbose"}
MARK_OF_SCHEDULE = "_wrapped_by_lr_sched"


def hooks_of_all_optimizers() -> tuple[dict[int, Any], ...]:
    """The hooks that the steps of every optimizer call: the live dictionaries, for which there is no public function.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/optimizer.py
    """
    from torch.optim import optimizer

    return optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Whether an optimizer un-scales and skips within its step, as fused ones do, so that no CPU need wait for a GPU.

    PyTorch's `GradScaler` asks like this, too.
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/amp/grad_scaler.py
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


# ---- Lightning: steps and loops --------------------------------------------------------------------------------------


def count_step(counted: Any, optimizers: Iterable[Optimizer]) -> None:
    """Moves the Trainer's clock after a step that no optimizer of Lightning's has made.

    A `LightningOptimizer` does that in `step` alone, and PyTorch's optimizers leave the mark there that schedules look
    for. What should move the clock is discussed in https://github.com/Lightning-AI/pytorch-lightning/issues/17958
    """
    counted._on_before_step()
    counted._on_after_step()
    for optimizer in optimizers:
        optimizer._opt_called = True  # type: ignore[attr-defined]


def pass_over_batches(epoch_loop: Any) -> None:
    """Lets a run that resumes behind the last batch of an epoch finish that, and train on no further batch before.

    Lightning does so where a validation has run, and asks nothing else.
    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    """
    epoch_loop.val_loop._has_run = True


def set_steps_of_loggers(fit_loop: dict[str, Any], steps: int) -> None:
    """Sets the count that is the axis of Lightning's loggers, in the state of a loop as checkpoints have it.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    """
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = steps


def forget_loader(fit_loop: Any) -> None:
    """Lets Lightning ask for its training loader again: it gives one the state of a checkpoint then, and only then.

    Lightning's search for a batch size does the same.
    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/fit_loop.py
    """
    fit_loop._combined_loader = None


def runs_validation_next(fit_loop: Any) -> bool:
    """Whether a batch that has just ended is one that Lightning validates behind: six options and loops decide that.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    """
    return bool(fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher))


# ---- Lightning: strategies, callbacks, loggers, checkpoints ----------------------------------------------------------


def has_comm_hook(strategy: Any) -> bool:
    """Whether a strategy reduces gradients in a way of the user's, which it is given when it is made, and keeps.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/ddp.py
    """
    return getattr(strategy, "_ddp_comm_hook", None) is not None


def leave_out_static_graph(ddp: Any) -> None:
    """Takes `static_graph` from the options that a `DDPStrategy` hands on to DDP when a run begins.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/ddp.py
    """
    ddp._ddp_kwargs.pop("static_graph", None)


def replace_layer_sync(strategy: Any, sync: Any) -> None:
    """Gives a strategy another `LayerSync`, if it has one, that of `sync_batchnorm`; there is no option for it.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/parallel.py
    """
    if getattr(strategy, "_layer_sync", None) is not None:
        strategy._layer_sync = sync


def spawns_processes(strategy: Any) -> bool:
    """Whether a strategy runs in processes that end with the run, such as `ddp_spawn`: its launcher's class says so.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/launchers/multiprocessing.py
    """
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def cluster_environment_of(trainer: Any) -> Any:
    """What a Trainer knows of who has started its process; strategies of a single device do not have it.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/connectors/accelerator_connector.py
    """
    return trainer._accelerator_connector.cluster_environment


def rename_rates(monitor: Any, rename: Callable[[Optimizer, str, list[str]], list[str]]) -> None:
    """Lets a `LearningRateMonitor` rename what it logs: it has no option for optimizers without a schedule.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/lr_monitor.py

    Args:
        monitor: The callback.
        rename: From an optimizer, the monitor's name for it, and its names for the groups of it, to other names.
    """

    def update_name(optimizer: Optimizer, name: str, *others: Any) -> list[str]:
        found = type(monitor)._check_duplicates_and_update_name(monitor, optimizer, name, *others)
        return rename(optimizer, name, found)

    monitor._check_duplicates_and_update_name = update_name


def saves_by_time(checkpoint: Any) -> bool:
    """Whether a `ModelCheckpoint` has a `train_time_interval`, which it keeps for itself.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/model_checkpoint.py
    """
    return checkpoint._train_time_interval is not None


def forget_anonymous(logger: Any) -> None:
    """Takes `anonymous` from what a `WandbLogger` hands on: it does so with a None, too, and W&B warns of any value.

    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loggers/wandb.py
    """
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)


# The hyperparameter that names what Lightning builds a module with, where its command line has made the checkpoint.
# https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/core/saving.py
INSTANTIATOR_KEY = "_instantiator"


def load_plain(path: Any, map_location: Any = None) -> Any:
    """Reads plain values and tensors from a file, a URL, or a file that is open, as `load_from_checkpoint` does.

    Lightning has no public function that reads all three, and builds nothing from them. Without a `map_location`,
    tensors go where they were, if that is there.
    https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/core/saving.py
    """
    from lightning.fabric.utilities.cloud_io import _load
    from lightning.pytorch.core.saving import _default_map_location

    return _load(path, map_location=map_location or _default_map_location, weights_only=True)


# ---- argparse and jsonargparse ---------------------------------------------------------------------------------------


def actions_of(parser: Any) -> Sequence[Any]:
    """What a parser takes; to be had in a public way: https://github.com/python/cpython/issues/144932."""
    actions: Sequence[Any] = parser._actions
    return actions


def type_of(action: Any) -> Any:
    """The type hint of an argument: to jsonargparse's actions, the public `type` is something else, or nothing.

    https://github.com/mauvilsa/jsonargparse/blob/v4.53.0/jsonargparse/_typehints.py
    """
    return getattr(action, "_typehint", None)


def linked_targets(parser: Any) -> list[str]:
    """The arguments that `link_arguments` has given a source, and nobody may type.

    https://github.com/mauvilsa/jsonargparse/blob/v4.53.0/jsonargparse/_link_arguments.py
    """
    links = getattr(getattr(parser, "_links_group", None), "_group_actions", ())
    return [str(link.target[0]) for link in links]
