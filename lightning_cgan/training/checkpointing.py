"""Save, validate and restore what a checkpoint holds in addition to weights and optimizers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_cgan.core.building import build_module
from lightning_cgan.core.class_names import usable_names
from lightning_cgan.core.compat import spawns_processes
from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import check_same_shapes
from lightning_cgan.training.checkpoint_checks import (
    check_classes,
    check_entry,
    check_form,
    check_loops,
    check_progress,
    check_states,
    compare_data,
    entry_of,
)
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.contract import ROLES, TrainedModule
from lightning_cgan.training.data_position import DataPosition
from lightning_cgan.training.ema import MovingAverage
from lightning_cgan.training.numerics import Numerics, numerics_of, warn_of_differences
from lightning_cgan.training.optimization import Optimization
from lightning_cgan.training.optimizer_config import Part, check_configuration, check_same_classes, configuration
from lightning_cgan.training.option_changes import apply_changed_options
from lightning_cgan.training.scalars import Scalars

ModuleT = TypeVar("ModuleT", bound=LightningModule)

# Incremented when older checkpoints can no longer be read; new entries have a default below.
_FORMAT = 3
_RENAMED = {
    ("compile", "alternation"): "step",
    ("graph", "alternation"): "step",
    ("graph", "alternation, compiled"): "step, compiled",
}
_RETURNED = "lightning_cgan"  # the key of what spawned processes return along with the weights


class Checkpointing:
    """Lets a module resume from a checkpoint as if it had never stopped.

    Attributes:
        configured: The configuration of the optimizers and schedulers of a fit; see `option_changes`.
        position: The run's position in its data.
        numerics: What determines the last bits of the run; known after its first step.
    """

    def __init__(
        self,
        module: TrainedModule,
        optimization: Optimization,
        compilation: Compilation,
        ema: MovingAverage,
        scalars: Scalars,
    ) -> None:
        self.module, self.optimization, self.compilation = module, optimization, compilation
        self.ema, self.scalars = ema, scalars
        self.position = DataPosition()
        self.configured: dict[str, Any] | None = None
        self.numerics: Numerics | None = None
        self._saved_numerics: Numerics | None = None  # those of the checkpoint, until compared
        self._resumed_from: dict[str, Any] | None = None
        self._is_first_step = True  # of a fit
        self._to_return: dict[str, Any] | None = None

    # ---- writing -----------------------------------------------------------------------------------------------------

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Adds the seed, the counters, the data, and the means not logged yet."""
        checkpoint["state_dict"].pop(_RETURNED, None)
        checkpoint["lightning_cgan"] = {
            "format": _FORMAT,
            **self._own_state(),
            "data": self._describe_data(),
            "configured": self.configured,
            "order": self.position.at(checkpoint.get("global_step")),
            "numerics": self.numerics,
        }

    def _own_state(self) -> dict[str, Any]:
        return {
            "seed": self.module.seed,
            "images_seen": self.ema.images_seen,
            "skipped_steps": {role: int(skipped) for role, skipped in self.optimization.skipped_steps.items()},
            "running_means": self.scalars.state_dict(),
        }

    def _describe_data(self) -> dict[str, Any] | None:
        """Describes the training data if one of the package's data modules provides it."""
        if not self.module.is_fitting:
            return None
        about = getattr(getattr(self.module.trainer, "datamodule", None), "about_training", None)
        return about() if about is not None else None

    # ---- reading -----------------------------------------------------------------------------------------------------

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Restores the seed, counters and means of the run; Lightning loads the weights afterwards.

        Raises:
            UsageError: The checkpoint has another kind of model, other networks, another version of the package's
                format or, except for a fit, other classes than the data.
        """
        state = entry_of(checkpoint)
        if state.get("format") != _FORMAT:
            raise UsageError(
                f"the checkpoint: expected format {_FORMAT}, got {state.get('format')}; use the version of "
                "lightning_cgan that wrote it"
            )
        module = cast(LightningModule, self.module)
        check_same_shapes(module, checkpoint["state_dict"], module.strict_loading)
        if not module.strict_loading:
            _begin_average(module, checkpoint["state_dict"])
        check_entry(state)
        trainer = self.module.attached_trainer
        data = getattr(trainer, "datamodule", None)
        if not hasattr(data, "class_names"):  # else `setup` has taken its names
            saved = (state.get("data") or {}).get("classes")
            count = self.module.generator.num_classes
            self.module.class_names = usable_names("the checkpoint", saved, count) or self.module.class_names
        if trainer is not None and checkpoint.get("loops") is not None:
            check_loops(trainer, checkpoint["loops"])
        if self.module.is_fitting:
            check_progress(checkpoint)
            self._resumed_from = checkpoint
            if checkpoint["global_step"]:  # 0 after a search for a batch size
                compare_data(state.get("data") or {}, self._describe_data() or {})
            self.position.load(checkpoint)
            self.numerics = self._saved_numerics = renamed(state.get("numerics"))
        elif trainer is not None:
            check_classes((state.get("data") or {}).get("classes"), getattr(data, "class_names", None))
        self._load_own_state(state, self.module.input_sampler.rank, self.module.input_sampler.world_size)

    def _load_own_state(self, state: Mapping[str, Any], rank: int = 0, world_size: int = 1) -> None:
        self.module.seed = self.module.seed if state["seed"] is None else state["seed"]
        self.ema.images_seen = state["images_seen"]
        self.optimization.skipped_steps = {role: torch.tensor(state["skipped_steps"][role]) for role in ROLES}
        self.scalars.load_state_dict(state["running_means"], rank, world_size)

    def begin(self) -> None:
        """Validates the states of optimizers and schedulers before they are restored, and applies changed options."""
        trainer = self.module.trainer
        optimizers, configs = trainer.optimizers, trainer.lr_scheduler_configs
        self._is_first_step = True
        self.configured = configuration(optimizers, configs)
        checkpoint, self._resumed_from = self._resumed_from, None
        if checkpoint is None:
            return
        before = checkpoint["lightning_cgan"].get("configured")
        if before is not None:
            check_configuration(before, "lightning_cgan.configured")
            check_same_classes(before, self.configured, self._option_name)
        option = self.optimization.option("generator", "optimizer")
        remedy = f"give the optimizers and schedulers of its run ({option}, …), or start a new run"
        expected = [_state_after_a_step(optimizer) for optimizer in optimizers]
        check_form(checkpoint, expected, len(configs), remedy)
        if before is None:  # written by an earlier version
            changes = ["The checkpoint does not record options of optimizers and schedulers: those of its run are kept"]
        else:
            changes = apply_changed_options(checkpoint, before, optimizers, configs, self._option_name)
        check_states(checkpoint, expected, [config.scheduler.state_dict() for config in configs], remedy)
        for change in changes if checkpoint["global_step"] else ():  # 0 after a search for a batch size
            rank_zero_info(f"{change} from step {checkpoint['global_step']}")

    def _option_name(self, number: int, part: Part) -> str:
        return self.optimization.option(ROLES[number], part)

    def note_step(self) -> None:
        """Records the data position after a step and, after the first one, the numerics."""
        self.position.note(self.module.trainer)
        if self._is_first_step:  # everything is configured now
            self._is_first_step = False
            self.numerics = numerics_of(self.module.trainer, self.compilation.in_use())
            if self._saved_numerics is not None:
                warn_of_differences(self._saved_numerics, self.numerics)
                self._saved_numerics = None

    # ---- results of spawned processes --------------------------------------------------------------------------------

    def end(self) -> None:
        """Prepares what the run's process returns if it ends with the run, as in notebooks.

        After `ddp_spawn`, `ddp_fork` and `ddp_notebook` Lightning returns only the weights, through `state_dict` and
        `load_state_dict`. So the seed, the counters and the names of classes travel with them, in that case alone:
        neither a checkpoint nor any other `state_dict` contains them.
        """
        if spawns_processes(self.module.trainer.strategy):
            self._to_return = {**self._own_state(), "class_names": self.module.class_names}

    def pack(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Adds what a spawned process returns to the weights, if there is anything."""
        return weights if self._to_return is None else {**weights, _RETURNED: self._to_return}

    def unpack(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Loads what a spawned process returned with the weights, and returns the weights alone."""
        if _RETURNED not in weights:
            return weights
        self._load_own_state(weights[_RETURNED])
        self.module.class_names = weights[_RETURNED]["class_names"]
        return {name: value for name, value in weights.items() if name != _RETURNED}


def build_from(
    cls: type[ModuleT], checkpoint: Any, strict: bool | None = None, given: Mapping[str, Any] | None = None
) -> ModuleT:
    """Builds the module of a checkpoint that has been read; see `ConditionalGAN.load_from_checkpoint`."""
    entry_of(checkpoint)  # before anything is built
    module = build_module(cls, renamed(checkpoint.get("hyper_parameters", {})), given or {}, "the checkpoint")
    module.configure_model()
    was_strict = module.strict_loading
    module.strict_loading = was_strict if strict is None else strict
    module.on_load_checkpoint(checkpoint)
    weights = checkpoint["state_dict"]
    unlike = module.load_state_dict(weights, strict=module.strict_loading)
    module.strict_loading = was_strict
    for verb, names, owner in (
        ("skipped", unlike.unexpected_keys, "which this model does not have"),
        ("has no", unlike.missing_keys, "which keep their initial values"),
    ):
        if names:
            rank_zero_warn(f"the checkpoint: {verb} {shorten(', '.join(names), 200, placeholder=' …')}, {owner}")
    return module.to(next((value.device for value in weights.values()), torch.device("cpu")))


def renamed(entries: Any) -> Any:
    """Replaces values written by an earlier version of the package by their current names."""
    if not isinstance(entries, Mapping):
        return entries
    renamed = {name: _RENAMED[name, value] for name, value in entries.items() if (name, str(value)) in _RENAMED}
    return {**entries, **renamed}


def _begin_average(module: LightningModule, saved: dict[str, Tensor]) -> None:
    """Starts a moving average that was not saved from the saved weights."""
    average, begins = "generator_ema.", "generator."
    for name in [name for name in module.state_dict() if name.startswith(average) and name not in saved]:
        if (weight := saved.get(begins + name.removeprefix(average))) is not None:
            saved[name] = weight.clone()


def _state_after_a_step(optimizer: Optimizer) -> dict[str, Any]:
    """Returns the state of an optimizer after its first step, made on a copy whose parameters are zeros.

    If that step fails, only the options are returned.
    """
    trial = copy.deepcopy(optimizer)
    try:
        with torch.no_grad():
            for group in trial.param_groups:
                for parameter in group["params"]:
                    parameter.zero_()
                    parameter.grad = torch.zeros_like(parameter)
        trial.step()
    except Exception:  # such as an optimizer whose state cannot be copied
        return {**optimizer.state_dict(), "state": None}
    return trial.state_dict()
