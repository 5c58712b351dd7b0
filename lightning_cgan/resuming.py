"""What a checkpoint holds beside weights and optimizers, and whether it may be taken up."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.engine import ROLES
from lightning_cgan.errors import UsageError
from lightning_cgan.graphs import GraphEngine
from lightning_cgan.networks.base import check_same_shapes
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
            UsageError: The checkpoint is of another kind of model, of other networks, or of another version of the
                package.
        """
        state = checkpoint.get("lightning_cgan")
        if not isinstance(state, dict):
            raise UsageError("the checkpoint: expected one that a ConditionalGAN wrote, got another; name such a file")
        if state.get("format") != _FORMAT:
            raise UsageError(
                f"the checkpoint: expected format {_FORMAT}, got {state.get('format')}; use the version of "
                "lightning_cgan that wrote it"
            )
        check_same_shapes(self, checkpoint["state_dict"])
        _compare_data(state.get("data") or {}, self._about_data() or {})
        self.seed = state["seed"]
        self.images_seen = state["images_seen"]
        self.skipped_steps = {role: torch.tensor(state["skipped_steps"][role]) for role in ROLES}
        self.running_means.load_state_dict(state["running_means"], self.dealer.rank, self.dealer.world_size)

    def _about_data(self) -> dict[str, Any] | None:
        """The training data of a fit by one of the package's data modules, else nothing."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return None
        about = getattr(getattr(trainer, "datamodule", None), "about_training", None)
        return about() if about is not None else None


def _compare_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of a run that goes on with other data: no mistake where somebody wants that, and hard to see elsewhere."""
    differing = [f"{name} {saved[name]}, got {now[name]}" for name in saved if name in now and saved[name] != now[name]]
    if differing:
        found = "; ".join(differing)
        rank_zero_warn(f"--data: expected what the checkpoint was trained with, {found}; going on anyway")
