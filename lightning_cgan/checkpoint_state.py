"""What a checkpoint of a `ConditionalGAN` holds beside weights and optimizers, and whether it may be taken up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.engine import ROLES
from lightning_cgan.errors import UsageError
from lightning_cgan.networks.base import check_same_shapes

if TYPE_CHECKING:
    from lightning_cgan.module import ConditionalGAN

# Raised where older checkpoints can no longer be read; what is only new has a default below.
FORMAT_VERSION = 3


def state_of(module: ConditionalGAN) -> dict[str, Any]:
    """The seed, the counts, the data, and the means that wait to be logged; every process must ask."""
    return {
        "format": FORMAT_VERSION,
        "seed": module.seed,
        "images_seen": module.images_seen,
        "skipped_steps": {role: int(skipped) for role, skipped in module.skipped_steps.items()},
        "running_means": module.waiting_means(),
        "data": _about_data(module),
    }


def take_up(module: ConditionalGAN, checkpoint: dict[str, Any]) -> None:
    """Sets a module to the state of a checkpoint; Lightning loads the weights after that.

    Raises:
        UsageError: The checkpoint is of another kind of model, of other networks, or of another version of the package.
    """
    state = checkpoint.get("lightning_cgan")
    if not isinstance(state, dict):
        raise UsageError("the checkpoint: expected one that a ConditionalGAN wrote, got another; name such a file")
    if state.get("format") != FORMAT_VERSION:
        raise UsageError(
            f"the checkpoint: expected format {FORMAT_VERSION}, got {state.get('format')}; use the version of "
            "lightning_cgan that wrote it"
        )
    check_same_shapes(module, checkpoint["state_dict"])
    _compare_data(state.get("data") or {}, _about_data(module) or {})
    module.seed = state["seed"]
    module.images_seen = state["images_seen"]
    module.skipped_steps = {role: torch.tensor(state["skipped_steps"][role]) for role in ROLES}
    module.running_means.load_state_dict(state["running_means"], module.dealer.rank, module.dealer.world_size)


def _about_data(module: ConditionalGAN) -> dict[str, Any] | None:
    """The training data of a fit by one of the package's data modules, else nothing."""
    trainer = module._trainer
    if trainer is None or trainer.state.fn != TrainerFn.FITTING:
        return None
    about = getattr(getattr(trainer, "datamodule", None), "about_training", None)
    return about() if about is not None else None


def _compare_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns of a run that goes on with other data: no mistake where somebody wants that, and hard to see elsewhere."""
    differing = [f"{name} {saved[name]}, got {now[name]}" for name in saved if name in now and saved[name] != now[name]]
    if differing:
        rank_zero_warn(
            f"--data: expected what the checkpoint was trained with, {'; '.join(differing)}; going on anyway"
        )
