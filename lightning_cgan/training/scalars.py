"""Scalars to log: averaged between two rows of the log and over processes, then passed to the loggers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lightning_cgan.core.compat import foreach
from lightning_cgan.training.contract import TrainedModule

_add_each_ = foreach("add_")


class Stopwatch:
    """Adds up the seconds between each `start` and the next `stop`."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Starts it, unless it is running."""
        if self._started is None:
            self._started = time.monotonic()

    def stop(self) -> None:
        """Stops it, if it is running."""
        if self._started is not None:
            self._seconds += time.monotonic() - self._started
        self._started = None

    def subtract(self, seconds: float) -> None:
        """Subtracts seconds from the measured time."""
        self._seconds -= seconds

    def pop(self) -> float:
        """Returns the seconds since the last call; if it is running, it continues."""
        is_running = self._started is not None
        self.stop()
        seconds, self._seconds = self._seconds, 0.0
        if is_running:
            self.start()
        return seconds


class Scalars:
    """Passes the scalars of a module to the loggers, at the number of steps.

    Lightning's own step axis is one behind, and further off after a resume; logging a scalar called `step`, Lightning's
    way to set the axis, would end up in the names of checkpoints.

    Sums stay on their device until they are logged, so that nothing waits for the GPU in between.

    Attributes:
        stopwatch: Measures only training, for `images_per_second`: it is stopped during callbacks, validation and the
            start of an epoch.
        reported: The scalars most recently passed to the loggers.
    """

    def __init__(self, module: TrainedModule) -> None:
        self.module = module
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images = 0
        self.stopwatch = Stopwatch()
        self.reported: dict[str, float] = {}

    def begin(self) -> None:
        """Resets the measurement; the stopwatch must be started next."""
        self.stopwatch, self.images = Stopwatch(), 0

    def count_images(self, images: int) -> None:
        """Adds to the images counted by `images_per_second`."""
        self.images += images

    @torch.no_grad()
    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Adds one value of each scalar."""
        for name, scalar in scalars.items():
            total = self.sums.get(name)
            if total is None or total.device != scalar.device:  # possible after loading a checkpoint
                before = 0.0 if total is None else total.to(scalar.device)
                self.sums[name] = torch.zeros_like(scalar, dtype=torch.float32) + before
            self.counts[name] = self.counts.get(name, 0) + 1
        _add_each_([self.sums[name] for name in scalars], [scalar.detach() for scalar in scalars.values()])

    def pop(self) -> dict[str, Tensor]:
        """Returns the mean of each scalar since the last call, and `images_per_second`."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        elapsed = self.stopwatch.pop()  # 0 within one tick of a coarse clock, such as that of Windows
        means["images_per_second"] = torch.tensor(self.images / max(elapsed, 1e-6))
        self.sums, self.counts, self.images = {}, {}, 0
        return means

    # ---- to the loggers ----------------------------------------------------------------------------------------------

    def report(self, **others: Tensor) -> None:
        """Logs the means since the last call, over all processes, and other scalars that are the same in each."""
        means = self._over_processes(self.pop())
        shown = ("discriminator_loss", "generator_loss", "images_per_second")
        self.module.log_dict({name: means[name] for name in shown}, prog_bar=True, logger=False)
        self._hand_to_loggers({**means, **others})

    def report_losses(self, prefix: str, images: int, **losses: Tensor) -> None:
        """Logs losses on held-out images, averaged over all images of all processes."""
        named = {f"{prefix}_{name}": loss for name, loss in losses.items()}
        self.module.log_dict(named, batch_size=images, sync_dist=True, logger=not self.module.is_fitting)

    def report_validation(self) -> None:
        """Passes held-out losses and scores to the loggers, before a checkpoint counts the rows of the log."""
        losses = self.module.trainer.callback_metrics
        self._hand_to_loggers({name: losses[name] for name in losses if name.startswith("val_")})

    def _over_processes(self, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages each scalar over the processes, in one message."""
        if not scalars or self.module.trainer.world_size == 1:
            return dict(scalars)
        stacked = torch.stack([scalar.to(self.module.device) for scalar in scalars.values()])
        return dict(zip(scalars, cast(Tensor, self.module.trainer.strategy.reduce(stacked)), strict=True))

    def _hand_to_loggers(self, scalars: Mapping[str, Tensor]) -> None:
        self.reported = {name: scalar.item() for name, scalar in scalars.items()}
        for logger in self.module.trainer.loggers:
            logger.log_metrics(self.reported, step=self.module.global_step)
            logger.save()

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Returns what has not been logged yet, with the sums (world_size,) of all processes; all must call it."""
        state = {"sums": {name: total.clone() for name, total in self.sums.items()}, "counts": dict(self.counts)}
        trainer = self.module.attached_trainer
        if not self.sums or trainer is None:  # such as after spawned processes
            return state
        own = torch.stack([total.to(self.module.device) for total in self.sums.values()])
        shares = trainer.strategy.all_gather(own).reshape(-1, len(own))
        return {**state, "sums": dict(zip(self.sums, shares.T.clone(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Any], rank: int = 0, world_size: int = 1) -> None:
        """Restores what was not logged: each process its own sums, or their mean if `world_size` has changed."""
        shares = {name: total.reshape(-1) for name, total in state["sums"].items()}
        self.sums = {name: share[rank] if len(share) == world_size else share.mean() for name, share in shares.items()}
        self.counts = dict(state["counts"])
