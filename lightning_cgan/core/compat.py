"""All private parts of PyTorch, Lightning, jsonargparse and argparse that the package uses; no other file uses any.

Any release may change them without notice: `tests/core/test_compat.py` checks each, and reports what breaks without it.
Each link points to the definition, or to a request for a public way to do the same. Libraries are imported within
functions: `core` must not import Lightning, and `__main__` imports this file before PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor, nn
    from torch.optim import Optimizer

# Ends the process at once; unlike SystemExit, no library can catch it. It is documented, despite the underscore:
# https://docs.python.org/3/library/os.html#os._exit
exit_at_once = os._exit

# ---- PyTorch: modules ------------------------------------------------------------------------------------------------

# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
# Where a module stores its parts. The public iterators build a list in each call; a graph compares these in each step.
PARTS_OF_MODULE = ("_parameters", "_buffers", "_modules")
# What `module.compile()` sets; there is no public check whether a module is compiled.
COMPILED_CALL = "_compiled_call_impl"
# Where the wrapper that `torch.compile(module)` returns stores the module, and what names of its weights begin with.
WRAPPED = "_orig_mod"
# Where modules store their hooks: there is a public way to register them, but not to list them.
HOOKS_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# The buffers of spectral normalisation: estimates of the largest singular vectors.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/utils/parametrizations.py
VECTORS_OF_SPECTRAL_NORM = ("._u", "._v")

# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_tensor.py
# Where tensors store their hooks, and how often a tensor has been modified in place, as counted by autograd.
HOOKS_OF_TENSORS = (attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks"))
version_of = attrgetter("_version")


def hooks_of_all_modules() -> tuple[dict[int, Any], ...]:
    """The global hooks that every module calls, by kind: the live dictionaries, which have no public accessor."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
    from torch.nn.modules import module

    return tuple(getattr(module, f"_global{kind}") for kind in HOOKS_OF_MODULES)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is batch normalisation of any kind: the common base class has no public name."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/batchnorm.py
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def is_compiled_in_place(module: nn.Module) -> bool:
    """Whether `module.compile()` has been called; see `COMPILED_CALL`."""
    return module._compiled_call_impl is not None


def original_of(module: nn.Module) -> nn.Module | None:
    """The module inside a wrapper that `torch.compile(module)` returned, whose class is private; None for others."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_dynamo/eval_frame.py
    is_wrapper = WRAPPED in module._modules  # it has no `get` in TorchScript modules
    return module._modules[WRAPPED] if is_wrapper else None


def is_compiled_alone(module: nn.Module) -> bool:
    """Whether a module is compiled: in place, as a wrapper, or by its own `forward`, compiled with `torch.compile`."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_dynamo/eval_frame.py
    if is_compiled_in_place(module) or original_of(module) is not None:
        return True
    return hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")


def convert_tensors(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Applies a function to each parameter and buffer; the public `to` and `float` convert all in the same way."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/nn/modules/module.py
    module._apply(convert)


# ---- PyTorch: operations ---------------------------------------------------------------------------------------------


def foreach(operation: str) -> Callable[..., Any]:
    """An operation on many tensors at once, such as `add_`; PyTorch's optimizers are built on these."""
    # The public way has been requested in https://github.com/pytorch/pytorch/pull/193607
    import torch

    function: Callable[..., Any] = getattr(torch, f"_foreach_{operation}")
    return function


def fused_adam(is_decoupled: bool) -> Callable[..., Any]:
    """The kernel of fused Adam, or of fused AdamW: the public optimizers read Python numbers, which a graph cannot."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/adam.py
    import torch

    return torch._fused_adamw_ if is_decoupled else torch._fused_adam_


def find_nonfinite(gradients: list[Tensor], found: Tensor) -> None:
    """Sets a float32 scalar to 1 if a gradient contains inf or NaN, in one kernel, which only `GradScaler` calls."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/amp/grad_scaler.py
    import torch

    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, torch.ones_like(found))  # multiplies by 1


def compile_graph(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """A compiled function from a recorded graph: `torch.compile` would check all inputs in each call of it.

    Random numbers, as for dropout, come from PyTorch's generators, so that the seed decides them.
    """
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_inductor/__init__.py
    from torch import _inductor

    compiled: Callable[..., Sequence[Tensor]] = _inductor.compile(graph, list(inputs), {"fallback_random": True})
    return compiled


def flatten(tree: Any) -> tuple[list[Any], Callable[[Iterable[Any]], Any]]:
    """The leaves of nested containers, and a function that rebuilds the containers with other leaves."""
    # The public way has been requested in https://github.com/pytorch/pytorch/issues/65761
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, structure = tree_flatten(tree)
    return leaves, lambda others: tree_unflatten(others, structure)


def watching_modes() -> list[Any]:
    """The active modes that intercept operations, except those of `torch.device`; there is no public accessor."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/overrides.py
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/utils/_python_dispatch.py
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/utils/_device.py
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    modes = (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack())
    return [mode for mode in modes if not isinstance(mode, DeviceContext)]


def mode_counters() -> tuple[Callable[[], int], Callable[[], int]]:
    """Two functions that count the modes of `watching_modes`, of each kind: cheap enough to call in every step."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/overrides.py
    import torch

    return torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack


def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively, as far as this release of PyTorch can tell."""
    # The public `torch.cpu.get_capabilities` is missing in the oldest supported release.
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/cpu/__init__.py
    import torch

    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


# ---- PyTorch: optimizers and schedules -------------------------------------------------------------------------------

# Where optimizers store their hooks: there is a public way to register them, but not to list them.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/optimizer.py
HOOKS_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

# Attributes of schedulers and keys of their states: the schedulers that one consists of, the steps at which the next
# starts, the user's function that a CyclicLR calls, and internal values, which differ between releases. The mark is on
# the `step` that a scheduler sets on its optimizer to notice its calls.
# https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/lr_scheduler.py
PARTS_OF_SCHEDULE, MILESTONES, FUNCTION_OF_SCHEDULE = "_schedulers", "_milestones", "_scale_fn_custom"
BOOKKEEPING_OF_SCHEDULES = {"_step_count", "_is_initial", "_get_lr_called_within_step", "_last_lr", "verbose"}
MARK_OF_SCHEDULE = "_wrapped_by_lr_sched"


def hooks_of_all_optimizers() -> tuple[dict[int, Any], ...]:
    """The global hooks that every optimizer's step calls: the live dictionaries, which have no public accessor."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/optim/optimizer.py
    from torch.optim import optimizer

    return optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Whether an optimizer un-scales and skips within its step, as fused ones do, so that the CPU need not wait."""
    # https://github.com/pytorch/pytorch/blob/v2.7.0/torch/amp/grad_scaler.py
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


# ---- Lightning: steps and loops --------------------------------------------------------------------------------------


def count_step(counted: Any, optimizers: Iterable[Optimizer]) -> None:
    """Advances the Trainer's step counter after a step that no `LightningOptimizer` has made."""
    # A `LightningOptimizer` advances it only in `step`, and PyTorch's optimizers then set what schedulers check. What
    # should advance the counter is discussed in https://github.com/Lightning-AI/pytorch-lightning/issues/17958
    counted._on_before_step()
    counted._on_after_step()
    for optimizer in optimizers:
        optimizer._opt_called = True  # type: ignore[attr-defined]


def pass_over_batches(epoch_loop: Any) -> None:
    """Makes a run that resumes after the last batch of an epoch end that epoch without another batch."""
    # Lightning does so only if a validation has run.
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    epoch_loop.val_loop._has_run = True


def set_steps_of_loggers(fit_loop: dict[str, Any], steps: int) -> None:
    """Sets the step count that Lightning's loggers use as their axis, in the state of a loop in a checkpoint."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = steps


def forget_loader(fit_loop: Any) -> None:
    """Makes Lightning request its training loader again: only then does it load the loader's state."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/fit_loop.py
    fit_loop._combined_loader = None


def runs_validation_next(fit_loop: Any) -> bool:
    """Whether Lightning validates after the batch that has just ended, which depends on six options and loops."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    return bool(fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher))


def has_next_batch(fit_loop: Any) -> bool:
    """Whether Lightning would go on with another batch of this epoch; no if the loader's length is unknown."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/fetchers.py
    fetcher = fit_loop._data_fetcher
    return fetcher.length is not None and not fetcher.done and not runs_validation_next(fit_loop)


def next_batch(trainer: Trainer, is_ready: Callable[[Any], bool]) -> tuple[Any, int]:
    """Ends a batch and begins the next within `training_step`, as the loop does: returns it, and its number.

    A batch that `is_ready` goes without Lightning's conversions and hooks for moving it, which do nothing for it.
    """
    # Lightning's `training_step(dataloader_iter)` cannot be switched on and off, and its batch numbers are off:
    # https://github.com/Lightning-AI/pytorch-lightning/issues/9415
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loops/training_epoch_loop.py
    loop = trainer.fit_loop.epoch_loop
    fetcher: Any = trainer.fit_loop._data_fetcher
    progress = loop.batch_progress
    progress.increment_processed()
    progress.increment_completed()
    loop._batches_that_stepped += 1
    batch = next(fetcher)[0]
    progress.is_last_batch = fetcher.done
    if not is_ready(batch):
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    progress.increment_ready()
    progress.increment_started()
    return batch, loop.batch_idx


# ---- Lightning: strategies, callbacks, loggers, checkpoints ----------------------------------------------------------


def has_comm_hook(strategy: Any) -> bool:
    """Whether a strategy was created with a custom communication hook, which reduces gradients."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/ddp.py
    return getattr(strategy, "_ddp_comm_hook", None) is not None


def leave_out_static_graph(ddp: Any) -> None:
    """Removes `static_graph` from the options that a `DDPStrategy` passes to DDP when a run begins."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/ddp.py
    ddp._ddp_kwargs.pop("static_graph", None)


def replace_layer_sync(strategy: Any, sync: Any) -> None:
    """Replaces the `LayerSync` of a strategy, if `sync_batchnorm` has set one; there is no option for it."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/parallel.py
    if getattr(strategy, "_layer_sync", None) is not None:
        strategy._layer_sync = sync


def spawns_processes(strategy: Any) -> bool:
    """Whether a strategy, such as `ddp_spawn`, runs in processes that end with the run, by its launcher's class."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/strategies/launchers/multiprocessing.py
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def cluster_environment_of(trainer: Any) -> Any:
    """The Trainer's cluster environment, which knows what started the process; single-device strategies lack it."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/trainer/connectors/accelerator_connector.py
    return trainer._accelerator_connector.cluster_environment


def rename_rates(monitor: Any, rename: Callable[[Optimizer, str, list[str]], list[str]]) -> None:
    """Makes a `LearningRateMonitor` rename what it logs: it has no option for optimizers without a scheduler.

    `rename` maps an optimizer, the monitor's name for it, and the names of its parameter groups to new names.
    """
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/lr_monitor.py

    def update_name(optimizer: Optimizer, name: str, *others: Any) -> list[str]:
        found = type(monitor)._check_duplicates_and_update_name(monitor, optimizer, name, *others)
        return rename(optimizer, name, found)

    monitor._check_duplicates_and_update_name = update_name


def saves_by_time(checkpoint: Any) -> bool:
    """Whether a `ModelCheckpoint` has a `train_time_interval`, which has no public attribute."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/model_checkpoint.py
    return checkpoint._train_time_interval is not None


def steps_between_saves(checkpoint: Any) -> int:
    """The `every_n_train_steps` of a `ModelCheckpoint`, which has no public attribute; 0 if there is none."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/model_checkpoint.py
    return int(checkpoint._every_n_train_steps)


def check_after_validation(stopping: Any) -> None:
    """Lets an `EarlyStopping` read its score after each validation, unless its user chose when; there is no setter.

    By default it reads the score at the end of the epoch if each epoch is validated. A checkpoint saved between the two
    makes the resumed run end that epoch again, without the score.
    """
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/callbacks/early_stopping.py
    if stopping._check_on_train_epoch_end is None:
        stopping._check_on_train_epoch_end = False


def forget_anonymous(logger: Any) -> None:
    """Removes `anonymous` from the arguments that a `WandbLogger` passes on: W&B warns about any value, even None."""
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/loggers/wandb.py
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)


# The hyperparameter that names the function with which Lightning builds a module, in checkpoints of its command line.
# https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/core/saving.py
INSTANTIATOR_KEY = "_instantiator"


def load_plain(path: Any, map_location: Any = None) -> Any:
    """Reads plain values and tensors from a path, a URL or an open file, as `load_from_checkpoint` does.

    Without a `map_location`, tensors are loaded to their original device if it is available.
    """
    # Lightning has no public function that reads all three without building objects.
    # https://github.com/Lightning-AI/pytorch-lightning/blob/2.6.0/src/lightning/pytorch/core/saving.py
    from lightning.fabric.utilities.cloud_io import _load
    from lightning.pytorch.core.saving import _default_map_location

    return _load(path, map_location=map_location or _default_map_location, weights_only=True)


# ---- argparse and jsonargparse ---------------------------------------------------------------------------------------


def actions_of(parser: Any) -> Sequence[Any]:
    """The arguments of a parser; a public way has been requested in https://github.com/python/cpython/issues/144932."""
    actions: Sequence[Any] = parser._actions
    return actions


def type_of(action: Any) -> Any:
    """The type hint of an argument: for jsonargparse's actions, the public `type` is something else, or None."""
    # https://github.com/mauvilsa/jsonargparse/blob/v4.53.0/jsonargparse/_typehints.py
    return getattr(action, "_typehint", None)


def linked_targets(parser: Any) -> list[str]:
    """The arguments that `link_arguments` sets from others, and that users cannot set."""
    # https://github.com/mauvilsa/jsonargparse/blob/v4.53.0/jsonargparse/_link_arguments.py
    links = getattr(getattr(parser, "_links_group", None), "_group_actions", ())
    return [str(link.target[0]) for link in links]
