"""The private names that the package uses exist in the installed releases, and only core/compat.py has them."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.utilities import cloud_io
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core import saving
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy, launchers
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler, optimizer
from torch.utils import _device, _python_dispatch, _pytree

import lightning_cgan
from lightning_cgan.core import compat

PACKAGE = Path(lightning_cgan.__file__).parent


class Private(NamedTuple):
    """A private name.

    Attributes:
        name: The name.
        owner: Makes an object that should have it.
        breaks: What does not work without it.
    """

    name: str
    owner: Callable[[], Any]
    breaks: str


@functools.cache
def trainer() -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]


def weight() -> nn.Parameter:
    return nn.Parameter(torch.zeros(1))


def stepped() -> SGD:
    """An optimizer with a schedule, after its first step."""
    made = SGD([weight()], lr=1.0)
    lr_scheduler.StepLR(made, 1)
    made.step()
    return made


def schedule(kind: str) -> Any:
    made = SGD([weight()], lr=1.0)
    if kind == "cyclic":
        return lr_scheduler.CyclicLR(made, 0.1, 1.0, scale_fn=abs)
    parts = [lr_scheduler.StepLR(made, 1), lr_scheduler.StepLR(made, 2)]
    return lr_scheduler.SequentialLR(made, parts, [1]) if kind == "sequential" else lr_scheduler.ChainedScheduler(parts)  # type: ignore[arg-type]


def apply_spectral_norm_to(layer: nn.Module) -> Any:
    return nn.utils.parametrizations.spectral_norm(layer).parametrizations.weight[0]  # type: ignore[index, union-attr]


class Linked:
    def __init__(self, source: int = 1, target: int = 1) -> None:
        pass


@functools.cache
def parser() -> Any:
    made = ArgumentParser()
    made.add_class_arguments(Linked, "linked")
    made.link_arguments("linked.source", "linked.target")
    return made


def of_loop(name: str, breaks: str) -> Private:
    return Private(name, lambda: trainer().fit_loop.epoch_loop, breaks)


HOOKS = "a recorded step would silently skip hooks, instead of not being used"
MODES = "modes that intercept operations would miss recorded steps, and changes of modes would go unnoticed"
COMPILED = "networks would be compiled twice, or recorded although they are compiled"
RATES = "a resumed run would report its schedules as new, or not report new ones"
DDP = "DDP would warn about unused options, or reduce gradients that the module averages itself"
OPTIONS = "switches such as --overwrite, the names that errors suggest, and the refusal of null would not work"
GRAPHS = "a step as one graph (compile: step, cuda_graph) could not be recorded or checked"

PRIVATE = [
    Private("_exit", lambda: importlib.import_module("os"), "Ctrl-C during the imports would end in a traceback"),
    # modules and tensors
    *(Private(name, lambda: vars(nn.Linear(1, 1)), GRAPHS) for name in ("_parameters", "_buffers", "_modules")),
    Private("_compiled_call_impl", lambda: nn.Linear(1, 1), COMPILED),
    Private("_orig_mod", lambda: torch.compile(nn.Linear(1, 1))._modules, COMPILED),  # type: ignore[attr-defined]
    Private("_torchdynamo_orig_callable", lambda: torch.compile(nn.Linear(1, 1).forward), COMPILED),
    *(Private(name, lambda: nn.Linear(1, 1), HOOKS) for name in compat.HOOKS_OF_MODULES),
    *(Private(f"_global{name}", lambda: nn.modules.module, HOOKS) for name in compat.HOOKS_OF_MODULES),
    Private("_backward_hooks", weight, HOOKS),
    Private("_post_accumulate_grad_hooks", weight, HOOKS),
    Private("_version", weight, "a recorded step would not notice that a tensor it read was changed in place"),
    Private(
        "_BatchNorm",
        lambda: nn.modules.batchnorm,
        "sync_batchnorm on a CPU and the check of batch statistics would fail",
    ),
    Private(
        "_apply", lambda: nn.Module, "the moving average would be kept in half precision, in which it does not change"
    ),
    *(
        Private(name.lstrip("."), lambda: apply_spectral_norm_to(nn.Linear(2, 2)), "--init_from would shrink layers")
        for name in compat.VECTORS_OF_SPECTRAL_NORM
    ),
    # operations
    *(Private(f"_foreach_{name}_", lambda: torch, "every update would fail") for name in ("add", "copy", "lerp")),
    *(Private(name, lambda: torch, GRAPHS) for name in ("_fused_adam_", "_fused_adamw_")),
    Private("_amp_foreach_non_finite_check_and_unscale_", lambda: torch, GRAPHS),
    Private("_inductor", lambda: importlib.import_module("torch"), GRAPHS),
    Private("_pytree", lambda: torch.utils, GRAPHS),
    Private("tree_flatten", lambda: _pytree, GRAPHS),
    Private("tree_unflatten", lambda: _pytree, GRAPHS),
    Private("_device", lambda: torch.utils, MODES),
    Private("DeviceContext", lambda: _device, MODES),
    Private("_get_current_function_mode_stack", lambda: torch.overrides, MODES),
    Private("_python_dispatch", lambda: torch.utils, MODES),
    Private("_get_current_dispatch_mode_stack", lambda: _python_dispatch, MODES),
    Private("_C", lambda: torch, MODES),
    Private("_len_torch_function_stack", lambda: torch._C, MODES),
    Private("_len_torch_dispatch_stack", lambda: torch._C, MODES),
    Private("_is_avx512_bf16_supported", lambda: torch.cpu, "CPUs with AVX-512 would train in float32, more slowly"),
    Private("_is_amx_tile_supported", lambda: torch.cpu, "CPUs with AMX would train in float32, more slowly"),
    # optimizers and schedules
    *(Private(name, stepped, HOOKS) for name in compat.HOOKS_OF_OPTIMIZERS),
    Private("_global_optimizer_pre_hooks", lambda: optimizer, HOOKS),
    Private("_global_optimizer_post_hooks", lambda: optimizer, HOOKS),
    Private(
        "_step_supports_amp_scaling",
        lambda: Adam([weight()], fused=True),
        "fused optimizers would wait for a GPU in each update, and float16 gradients be clipped while scaled",
    ),
    Private("_opt_called", stepped, "schedules would warn in each run with recorded steps"),
    Private("_wrapped_by_lr_sched", lambda: stepped().step, "no step with a schedule could be recorded"),
    Private("_schedulers", lambda: schedule("chained"), RATES),
    Private("_milestones", lambda: schedule("sequential"), RATES),
    Private("_scale_fn_custom", lambda: schedule("cyclic"), RATES),
    Private("_step_count", lambda: schedule("cyclic"), RATES),
    Private("_last_lr", lambda: schedule("cyclic"), RATES),
    # Lightning
    Private("_on_before_step", lambda: LightningOptimizer(stepped()), "global_step would stand still in graphs"),
    Private("_on_after_step", lambda: LightningOptimizer(stepped()), "global_step would stand still in graphs"),
    of_loop("_batches_that_stepped", "a resumed run would log at other steps"),
    of_loop("_should_check_val_fx", "a run stopped before a validation would skip it on resuming"),
    Private("_combined_loader", lambda: trainer().fit_loop, "custom loaders would lose their position on a resume"),
    Private("_data_fetcher", lambda: trainer().fit_loop, "a run stopped before a validation would skip it on resuming"),
    Private(
        "_has_run", lambda: trainer().fit_loop.epoch_loop.val_loop, "a resumed run would train on one batch too many"
    ),
    Private("_ddp_kwargs", DDPStrategy, DDP),
    Private("_ddp_comm_hook", DDPStrategy, DDP),
    Private("_layer_sync", DDPStrategy, "sync_batchnorm would fail on a CPU"),
    Private("_MultiProcessingLauncher", lambda: launchers, "the seed and the counts would be lost after ddp_spawn"),
    Private("_accelerator_connector", trainer, "a run with too few processes would hang, not fail"),
    Private(
        "_check_duplicates_and_update_name",
        LearningRateMonitor,
        "LearningRateMonitor would not say which network a rate belongs to, without a schedule",
    ),
    Private("_on_before_batch_transfer", LightningModule, "a call could not make several steps"),
    Private("_every_n_train_steps", ModelCheckpoint, "a call could go past a step at which to save"),
    Private("_train_time_interval", ModelCheckpoint, "ModelCheckpoint(train_time_interval=…) would save nothing"),
    Private(
        "_check_on_train_epoch_end",
        lambda: EarlyStopping("val_judge_fid"),
        "EarlyStopping would fail in a run that resumes at the end of an epoch",
    ),
    Private("_wandb_init", lambda: WandbLogger(offline=True), "W&B would warn in each run"),
    Private("_load", lambda: cloud_io, "load_from_checkpoint, generate and export would fail"),
    Private("_default_map_location", lambda: saving, "checkpoints of a GPU could not be read without one"),
    # jsonargparse and argparse
    Private("_actions", ArgumentParser, OPTIONS),
    Private("_typehint", lambda: next(a for a in parser()._actions if a.dest == "linked.source"), OPTIONS),
    Private("_links_group", parser, "errors would suggest options that the data determines"),
    Private("_group_actions", lambda: parser()._links_group, "errors would suggest options that the data determines"),
]

# Inherited names that classes of the package use on `self`.
INHERITED = [
    Private("_trainer", LightningModule, "attached_trainer: a module without a Trainer could not be saved or loaded"),
    Private("_apply", lambda: nn.Module, "Sampler: the moving average would become half precision with bf16-true"),
    Private("_modules", lambda: vars(nn.Module()), "Sampler._apply could not skip the moving average"),
    Private(
        "_get_closed_form_lr",
        lambda: lr_scheduler.PolynomialLR,
        "LinearDecay of no length would end in a division by zero in a SequentialLR",
    ),
    Private("_last_global_step_saved", ModelCheckpoint, "Checkpoints would save the end of a run twice, or not at all"),
    Private("_save_last_checkpoint", lambda: ModelCheckpoint, "Checkpoints would not save the end of a run"),
    Private("_monitor_candidates", lambda: ModelCheckpoint, "Checkpoints would not save the end of a run"),
    Private("_get_train_description", lambda: RichProgressBar, "ProgressBar would name epochs as Lightning does"),
    Private("_update", lambda: RichProgressBar, "ProgressBar would not show where an epoch ended"),
    Private("_instantiate_trainer", lambda: LightningCLI, "the command line could not omit callbacks"),
    Private("_run_subcommand", lambda: LightningCLI, "errors of a run would be tracebacks, and leave empty folders"),
    Private("_parse_ckpt_path", lambda: LightningCLI, "a checkpoint would override the config given with it"),
    Private("_parser", lambda: LightningCLI, "null would be accepted for options that must have a value"),
    Private("_from_pretrained", lambda: huggingface_hub.PyTorchModelHubMixin, "broken folders would be tracebacks"),
]

# Names that only some releases have; nothing breaks without them.
OF_SOME_RELEASES = {"_is_initial", "_get_lr_called_within_step"}


@pytest.mark.parametrize("private", [*PRIVATE, *INHERITED], ids=lambda private: private.name)
def test_a_private_name_is_there(private: Private) -> None:
    owner = private.owner()
    is_there = private.name in owner if isinstance(owner, dict) else hasattr(owner, private.name)
    assert is_there, (
        f"{private.name} is missing: {private.breaks}; change core/compat.py, or the class that inherits it"
    )


def test_states_of_schedules_have_no_other_private_keys() -> None:
    known = {*compat.BOOKKEEPING_OF_SCHEDULES, compat.PARTS_OF_SCHEDULE, compat.MILESTONES}
    for kind in ("chained", "sequential"):
        state = schedule(kind).state_dict()
        for entry in (state, *state[compat.PARTS_OF_SCHEDULE]):
            new = {key for key in entry if key.startswith("_")} - known
            assert not new, f"{new}: {RATES}; if it is an internal value, add it to BOOKKEEPING_OF_SCHEDULES"


# ---- no other file ---------------------------------------------------------------------------------------------------


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_own(value: ast.expr) -> bool:
    """Whether an expression is `self`, `cls` or `super()`."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_names(file: Path) -> Iterator[tuple[int, str]]:
    """The private names of others that a file reads or imports, and their lines."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        yield from ((node.lineno, name) for name in names if is_private(name))  # type: ignore[attr-defined]


def private_strings(file: Path) -> set[str]:
    """The private names that a file has as texts, for `getattr` and its like; parts of formatted texts are skipped."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in parts]
    return {text for text in texts if isinstance(text, str) and text.isidentifier() and is_private(text)}


COMPAT = Path(compat.__file__)
OTHERS = sorted(set(PACKAGE.rglob("*.py")) - {COMPAT})


def test_no_other_file_touches_private_names() -> None:
    assert len(OTHERS) > 100
    found = [f"{file.relative_to(PACKAGE)}:{line}: {name}" for file in OTHERS for line, name in private_names(file)]
    assert not found, "use these through core/compat.py"


def test_no_other_file_names_them_in_texts() -> None:
    listed = {private.name for private in PRIVATE} | OF_SOME_RELEASES | {compat.INSTANTIATOR_KEY}
    found = {str(file.relative_to(PACKAGE)): private_strings(file) & listed for file in OTHERS}
    assert not {file: names for file, names in found.items() if names}


def test_each_name_is_asked_for() -> None:
    used = {name for _, name in private_names(COMPAT)} | private_strings(COMPAT)
    # The key is one of a dictionary: a release that ignores it loads all the same.
    assert used - {private.name for private in PRIVATE} == OF_SOME_RELEASES | {compat.INSTANTIATOR_KEY}


def classes_of(file: Path) -> Iterator[tuple[type, ast.ClassDef]]:
    module = importlib.import_module(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts))
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield getattr(module, node.name), node


def test_each_inherited_name_is_asked_for() -> None:
    """A name of one's own may be that of a parent class in another library, by accident."""
    listed = {private.name for private in INHERITED}
    for file in OTHERS:
        for cls, node in classes_of(file):
            own = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and is_own(part.value)}
            own |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            others = [parent for parent in cls.__mro__ if not parent.__module__.startswith("lightning_cgan")]
            taken = {name for name in filter(is_private, own) if any(name in vars(parent) for parent in others)}
            assert taken <= listed, f"{cls.__name__}: {taken - listed}"


def test_each_function_says_where_its_name_comes_from() -> None:
    source = COMPAT.read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            text = ast.get_source_segment(source, node) or ""
            assert "https://" in text or "; see `" in text, node.name


def test_nothing_is_imported_with_it() -> None:
    code = (
        "import sys, lightning_cgan.core.compat; "
        "assert not {'torch', 'lightning', 'jsonargparse', 'argparse'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
