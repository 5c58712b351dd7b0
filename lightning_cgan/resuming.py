"""What a checkpoint holds beside weights and optimizers, and whether it may be taken up."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import _load
from lightning.pytorch import Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import Self

from lightning_cgan.engine import ROLES
from lightning_cgan.errors import UsageError
from lightning_cgan.graphs import GraphEngine
from lightning_cgan.kinds import check_kinds
from lightning_cgan.networks.base import check_same_shapes
from lightning_cgan.rebuildable import INSTANTIATOR, objection_to
from lightning_cgan.reporting import Reporter
from lightning_cgan.rounds import Dealer

# Raised where older checkpoints can no longer be read; what is only new has a default below.
_FORMAT = 3


class Resumable(GraphEngine, Reporter):
    """A module that goes on from a checkpoint as if it had never stopped.

    Attributes:
        seed: Decides all random numbers of a run; known once it begins.
        images_seen: The number of real images that the moving average has seen.
        dealer: Knows the place of this process among the others.
    """

    seed: int | None
    images_seen: int
    dealer: Dealer

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Builds the module of a checkpoint, as Lightning does, but imports nothing for a file's sake.

        Raises:
            UsageError: The checkpoint names classes of modules that nobody has imported: whoever wrote it would choose
                what code runs.
        """
        described = _load(checkpoint_path, map_location="meta", weights_only=True)  # Lightning's: of URLs, too
        _check_description(described.get("hyper_parameters") if isinstance(described, dict) else None)
        if hasattr(checkpoint_path, "seek"):
            checkpoint_path.seek(0)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the seed, the counts, the data, and the means that wait to be logged."""
        checkpoint["lightning_cgan"] = {
            "format": _FORMAT,
            "seed": self.seed,
            "images_seen": self.images_seen,
            "skipped_steps": {role: int(skipped) for role, skipped in self.skipped_steps.items()},
            "running_means": self.waiting_means(),
            "data": self._about_data(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the seed of the run, its counts and its means; Lightning loads the weights after that.

        Raises:
            UsageError: The checkpoint is of another kind of model, of other networks, of another version of the
                package, or, but for a fit, of other classes than the data.
        """
        state = checkpoint.get("lightning_cgan")
        if not isinstance(state, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise UsageError("the checkpoint: expected one that a ConditionalGAN wrote, got another; name such a file")
        if state.get("format") != _FORMAT:
            raise UsageError(
                f"the checkpoint: expected format {_FORMAT}, got {state.get('format')}; use the version of "
                "lightning_cgan that wrote it"
            )
        check_same_shapes(self, checkpoint["state_dict"])
        _check_state(state)
        if self._trainer is not None and checkpoint.get("loops") is not None:
            _check_loops(self._trainer, checkpoint["loops"])
        if self._is_fitting():
            self._check_progress(checkpoint)
            _compare_data(state.get("data") or {}, self._about_data() or {})
        elif self._trainer is not None:
            data = getattr(self._trainer, "datamodule", None)
            _check_classes((state.get("data") or {}).get("classes"), getattr(data, "class_names", None))
        self.seed = self.seed if state["seed"] is None else state["seed"]
        self.images_seen = state["images_seen"]
        self.skipped_steps = {role: torch.tensor(state["skipped_steps"][role]) for role in ROLES}
        self.running_means.load_state_dict(state["running_means"], self.dealer.rank, self.dealer.world_size)

    def _check_progress(self, checkpoint: dict[str, Any]) -> None:
        """Looks at what Lightning, PyTorch and callbacks take up without a look."""
        configured: Any = self.configure_optimizers()
        schedulers = [one["lr_scheduler"]["scheduler"].state_dict() for one in configured if "lr_scheduler" in one]
        check_kinds({"epoch": 1, "global_step": 1}, checkpoint, "its content")
        others = "give optimizers and schedulers (--model.generator_optimizer, …) as its run had them, or begin another"
        check_kinds(schedulers, checkpoint.get("lr_schedulers"), "lr_schedulers", exact=False, remedy=others)
        states = [_state_after_a_step(self.optimizer_factories[role], getattr(self, role)) for role in ROLES]
        check_kinds([{"param_groups": []}] * 2, checkpoint.get("optimizer_states"), "optimizer_states")
        for number, expected in enumerate(states):
            saved, name = checkpoint["optimizer_states"][number], f"optimizer_states.{number}"
            check_kinds({}, saved.get("state"), f"{name}.state")
            if expected is None:
                continue
            check_kinds(expected["param_groups"], saved["param_groups"], f"{name}.param_groups", False, others)
            for place, values in saved["state"].items():  # a parameter that never had a gradient has none
                check_kinds(expected["state"].get(place, "nothing"), values, f"{name}.state.{place}", False, others)

    def _about_data(self) -> dict[str, Any] | None:
        """The training data of a fit by one of the package's data modules, else nothing."""
        if not self._is_fitting():
            return None
        about = getattr(getattr(self.trainer, "datamodule", None), "about_training", None)
        return about() if about is not None else None


def _state_after_a_step(factory: OptimizerCallable, network: nn.Module) -> dict[str, Any] | None:
    """What an optimizer keeps once it has moved all parameters: those of a network of zeros, which stays there.

    Nothing, where it cannot be tried out on a CPU.
    """
    parameters = [torch.zeros(parameter.shape, requires_grad=True) for parameter in network.parameters()]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer = factory(parameters)
        optimizer.step()
    except Exception:  # such as one that wants a GPU
        return None
    return optimizer.state_dict()


def _check_description(description: Any) -> None:
    described = dict(description) if isinstance(description, dict) else {}
    instantiator = described.pop("_instantiator", INSTANTIATOR)
    if instantiator != INSTANTIATOR:  # not every release of Lightning looks at this one
        raise UsageError(f"the checkpoint: expected to be built by {INSTANTIATOR}, got {instantiator}; take another")
    if objection := objection_to(described):
        raise UsageError(f"the checkpoint: {objection}")


def _check_loops(trainer: Trainer, saved: Any) -> None:
    """Looks at the counts that Lightning takes up for whatever it does next."""
    check_kinds({"fit_loop": {}}, saved, "loops")
    for name in saved.keys() & {"fit_loop", "validate_loop", "test_loop", "predict_loop"}:
        check_kinds(getattr(trainer, name).state_dict(), saved[name], f"loops.{name}")


def _check_state(state: dict[str, Any]) -> None:
    counts = dict.fromkeys(ROLES, 1)
    has_no_seed = "seed" in state and state["seed"] is None  # of a module that was never in a run
    expected: dict[str, Any] = {
        "seed": None if has_no_seed else 1,
        "images_seen": 1,
        "skipped_steps": counts,
        "running_means": {"sums": {}, "counts": {}},
    }
    check_kinds(expected, state, "lightning_cgan")
    check_kinds({}, state.get("data") or {}, "lightning_cgan.data")
    means = state["running_means"]
    check_kinds(dict.fromkeys(means["sums"], 1), means["counts"], "lightning_cgan.running_means.counts")
    for name, sums in means["sums"].items():
        shape = sums.shape if isinstance(sums, Tensor) and sums.ndim < 2 else (1,)
        check_kinds(torch.zeros(shape), sums, f"lightning_cgan.running_means.sums.{name}")


def _check_classes(saved: Any, now: Sequence[str] | None) -> None:
    """Refuses data whose labels mean other classes than the model's; older checkpoints do not name theirs."""
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved) or now is None:
        return
    if saved != list(now):
        expected, got = (shorten(", ".join(names), 200, placeholder=" …") for names in (saved, now))
        raise UsageError(
            f"--data.classes: expected those of the checkpoint, {expected}, got {got}; name the former, in that order"
        )


def _compare_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of a run that goes on with other data: no mistake where somebody wants that, and hard to see elsewhere."""
    differing = [f"{name} {saved[name]}, got {now[name]}" for name in saved if name in now and saved[name] != now[name]]
    if differing:
        found = "; ".join(differing)
        rank_zero_warn(f"--data: expected what the checkpoint was trained with, {found}; going on anyway")
