"""What a checkpoint holds beside weights and optimizers, and whether it may be taken up."""

from __future__ import annotations

import copy
from textwrap import shorten
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import _load
from lightning.pytorch import Callback
from lightning.pytorch.core.saving import _default_map_location
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Self

from lightning_cgan.core.building import build_module
from lightning_cgan.core.errors import UsageError
from lightning_cgan.networks.base import check_same_shapes
from lightning_cgan.objectives.inputs import Dealer
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
from lightning_cgan.training.compilation import GraphEngine
from lightning_cgan.training.configured import Part, check_configuration, check_same_classes, configuration
from lightning_cgan.training.hyperparameters import take_up
from lightning_cgan.training.numerics import Numerics, numerics_of, warn_of_differences
from lightning_cgan.training.optimization import ROLES
from lightning_cgan.training.progress import KeepsPlace, Place
from lightning_cgan.training.scalars import Reporter

# Raised where older checkpoints can no longer be read; what is only new has a default below.
_FORMAT = 3


class Resumable(GraphEngine, Reporter):
    """A module that goes on from a checkpoint as if it had never stopped.

    Attributes:
        seed: Decides all random numbers of a run; known once it begins.
        images_seen: The number of real images that the moving average has seen.
        dealer: Knows the place of this process among the others.
        configured: What optimizers and schedulers of a fit have been configured with; see `hyperparameters`.
        place: Where the run stands in its data.
        numerics: What decides the last bits of the run; known after its first step.
    """

    seed: int | None
    images_seen: int
    dealer: Dealer
    configured: dict[str, Any] | None = None
    _resumed_from: dict[str, Any] | None = None
    numerics: Numerics | None = None
    _saved_numerics: Numerics | None = None  # of the checkpoint, until they have been compared
    _is_first_step = True  # of a fit

    def __init__(self) -> None:
        super().__init__()
        self.place = Place()

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Builds the module of a checkpoint, but imports nothing for a file's sake, and calls nothing that it names.

        Args:
            checkpoint_path: A file, a URL, or a file that is open.
            map_location: Where its tensors go; see `torch.load`. If not given, where they were, if that is there.
            hparams_file: Not taken: a checkpoint says itself how its module is built.
            strict: Whether the weights must be those of the module, no more and no less.
            weights_only: Of no effect: a file that wants to run code is refused, always.
            **kwargs: Arguments of the module, in the place of those of the checkpoint.

        Raises:
            UsageError: The checkpoint names classes of modules that nobody has imported, or others than networks,
                losses, optimizers and their like: whoever wrote it would choose what code runs.
        """
        if hparams_file is not None:
            expected = "hparams_file: expected none, since the checkpoint says how its module is built"
            raise UsageError(f"{expected}, got {hparams_file}; give arguments by their names")
        where = map_location or _default_map_location
        read = _load(checkpoint_path, map_location=where, weights_only=True)  # Lightning's: of URLs, too
        return cls.from_content(read, strict, **kwargs)

    @classmethod
    def from_content(cls, checkpoint: Any, strict: bool | None = None, **kwargs: Any) -> Self:
        """Builds the module of a checkpoint that has been read already; see `load_from_checkpoint`.

        Args:
            checkpoint: What the file holds.
            strict: Whether the weights must be those of the module, no more and no less.
            **kwargs: Arguments of the module, in the place of those of the checkpoint.

        Raises:
            UsageError: It is another file's, or names what must not be built.
        """
        entry_of(checkpoint)  # before anything is built
        module = build_module(cls, checkpoint.get("hyper_parameters", {}), kwargs, "the checkpoint")
        module.configure_model()
        was_strict = module.strict_loading
        module.strict_loading = was_strict if strict is None else strict
        module.on_load_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        unlike = module.load_state_dict(weights, strict=module.strict_loading)
        module.strict_loading = was_strict
        for verb, names, owner in (
            ("left out", unlike.unexpected_keys, "which this model has not"),
            ("kept", unlike.missing_keys, "which the checkpoint has not"),
        ):
            if names:
                rank_zero_warn(f"the checkpoint: {verb} {shorten(', '.join(names), 200, placeholder=' …')}, {owner}")
        return module.to(next((value.device for value in weights.values()), torch.device("cpu")))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the seed, the counts, the data, and the means that wait to be logged."""
        checkpoint["lightning_cgan"] = {
            "format": _FORMAT,
            "seed": self.seed,
            "images_seen": self.images_seen,
            "skipped_steps": {role: int(skipped) for role, skipped in self.skipped_steps.items()},
            "running_means": self.waiting_means(),
            "data": self._about_data(),
            "configured": self.configured,
            "order": self.place.at(checkpoint.get("global_step")),
            "numerics": self.numerics,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the seed of the run, its counts and its means; Lightning loads the weights after that.

        Raises:
            UsageError: The checkpoint is of another kind of model, of other networks, of another version of the
                package, or, but for a fit, of other classes than the data.
        """
        state = entry_of(checkpoint)
        if state.get("format") != _FORMAT:
            raise UsageError(
                f"the checkpoint: expected format {_FORMAT}, got {state.get('format')}; use the version of "
                "lightning_cgan that wrote it"
            )
        check_same_shapes(self, checkpoint["state_dict"], self.strict_loading)
        if not self.strict_loading:
            self._begin_average(checkpoint["state_dict"])
        check_entry(state)
        if self._trainer is not None and checkpoint.get("loops") is not None:
            check_loops(self._trainer, checkpoint["loops"])
        if self._is_fitting():
            check_progress(checkpoint)
            self._resumed_from = checkpoint
            if checkpoint["global_step"]:  # of a search for a batch size, it has seen none
                compare_data(state.get("data") or {}, self._about_data() or {})
            self.place.load(checkpoint)
            self.numerics = self._saved_numerics = state.get("numerics")
        elif self._trainer is not None:
            data = getattr(self._trainer, "datamodule", None)
            check_classes((state.get("data") or {}).get("classes"), getattr(data, "class_names", None))
        self.seed = self.seed if state["seed"] is None else state["seed"]
        self.images_seen = state["images_seen"]
        self.skipped_steps = {role: torch.tensor(state["skipped_steps"][role]) for role in ROLES}
        self.running_means.load_state_dict(state["running_means"], self.dealer.rank, self.dealer.world_size)

    def _begin_average(self, saved: dict[str, Tensor]) -> None:
        """Lets a moving average that was not saved begin at the weights that were."""
        average, begins = "generator_ema.", "generator."
        for name in [name for name in self.state_dict() if name.startswith(average) and name not in saved]:
            if (weight := saved.get(begins + name.removeprefix(average))) is not None:
                saved[name] = weight.clone()

    def on_fit_start(self) -> None:
        """Looks at what is about to be restored of optimizers and schedulers, and takes up what is configured anew.

        Raises:
            UsageError: The optimizers or schedulers are others than those of the checkpoint.
        """
        super().on_fit_start()
        optimizers, configs = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        self.configured = configuration(optimizers, configs)
        checkpoint, self._resumed_from = self._resumed_from, None
        if checkpoint is None:
            return
        options = self.option("generator", "optimizer")
        others = f"give optimizers and schedulers ({options}, …) as its run had them, or begin another"
        before = checkpoint["lightning_cgan"].get("configured")
        if before is not None:
            check_configuration(before, "lightning_cgan.configured")
            check_same_classes(before, self.configured, self._option_of_number)
        expected = [_state_after_a_step(optimizer) for optimizer in optimizers]
        check_form(checkpoint, expected, len(configs), others)
        changes = take_up(checkpoint, before, optimizers, configs, self._option_of_number)
        check_states(checkpoint, expected, [config.scheduler.state_dict() for config in configs], others)
        for change in changes:
            rank_zero_info(f"{change} from step {checkpoint['global_step']}")

    def _option_of_number(self, number: int, part: Part) -> str:
        return self.option(ROLES[number], part)

    def configure_callbacks(self) -> list[Callback]:
        """Adds what lets a run resume at its place in the data."""
        self._is_first_step = True
        return [] if any(isinstance(one, KeepsPlace) for one in self.trainer.callbacks) else [KeepsPlace()]  # type: ignore[attr-defined]

    def finish_alternation(self) -> None:
        """Notes what a checkpoint will say of the run."""
        super().finish_alternation()
        self.place.note(self.trainer)
        if self._is_first_step:  # by now, all is chosen
            self._is_first_step = False
            self.numerics = numerics_of(self.trainer, self._compilation_in_use())
            if self._saved_numerics is not None:
                warn_of_differences(self._saved_numerics, self.numerics)
                self._saved_numerics = None

    def _compilation_in_use(self) -> str:
        if self.captured is not None:
            return "alternation, compiled" if self.captured.compiles else "alternation"
        return "networks" if any(getattr(self, role)._compiled_call_impl is not None for role in ROLES) else "none"

    def _about_data(self) -> dict[str, Any] | None:
        """The training data of a fit by one of the package's data modules, else nothing."""
        if not self._is_fitting():
            return None
        about = getattr(getattr(self.trainer, "datamodule", None), "about_training", None)
        return about() if about is not None else None


def _state_after_a_step(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimizer keeps once it has moved all parameters: a copy of it, and of parameters of zeros.

    Only the options, where it cannot be tried out.
    """
    trial = copy.deepcopy(optimizer)
    try:
        with torch.no_grad():
            for group in trial.param_groups:
                for parameter in group["params"]:
                    parameter.zero_()
                    parameter.grad = torch.zeros_like(parameter)
        trial.step()
    except Exception:  # such as one that keeps more than PyTorch copies
        return {**optimizer.state_dict(), "state": None}
    return trial.state_dict()
