"""What a module brings back from processes that a run has spawned or forked, as in notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lightning_cgan.training.checkpointing import Resumable
from lightning_cgan.training.optimization import ROLES

_KEY = "lightning_cgan"


class Spawnable(Resumable):
    """A module that knows after `ddp_spawn`, `ddp_fork` or `ddp_notebook` what it has been through.

    Lightning hands back the weights alone, by `state_dict` and `load_state_dict`. So the seed and the counts travel
    with them, on that way only: neither a checkpoint nor anybody else's `state_dict` has them.
    """

    _to_bring_back: dict[str, Any] | None = None

    def on_train_end(self) -> None:
        """Packs what belongs to the weights, where the process ends with the run."""
        super().on_train_end()
        if isinstance(self.trainer.strategy.launcher, _MultiProcessingLauncher):
            self._to_bring_back = {
                "seed": self.seed,
                "images_seen": self.images_seen,
                "skipped_steps": {role: int(skipped) for role, skipped in self.skipped_steps.items()},
                "running_means": self.waiting_means(),
            }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what belongs to the run; see `Resumable`."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"].pop(_KEY, None)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The weights, as of any module."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        if self._to_bring_back is not None and not args and not kwargs:
            state[_KEY] = self._to_bring_back
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Takes up weights, as any module does."""
        brought = state_dict.get(_KEY)
        if brought is not None:
            state_dict = {name: value for name, value in state_dict.items() if name != _KEY}
            self.seed, self.images_seen = brought["seed"], brought["images_seen"]
            self.skipped_steps = {role: torch.tensor(brought["skipped_steps"][role]) for role in ROLES}
            self.running_means.load_state_dict(brought["running_means"])
        return super().load_state_dict(state_dict, *args, **kwargs)
