"""Scalars on their way to the log: summed up between two lines, averaged over processes, handed to the loggers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class RunningMeans:
    """Sums of scalars that stay on their device until they are logged: nothing waits for the GPU in between."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images = 0
        self.started = time.monotonic()
        self.stopped: float | None = None

    def start_clock(self) -> None:
        """Begins to measure `images_per_second`."""
        self.started, self.images, self.stopped = time.monotonic(), 0, None

    def stop_clock(self) -> None:
        """Leaves out what comes now, which is not training."""
        self.stopped = time.monotonic()

    def go_on_with_clock(self) -> None:
        """Ends what `stop_clock` began."""
        if self.stopped is not None:
            self.leave_out(time.monotonic() - self.stopped)
        self.stopped = None

    def leave_out(self, seconds: float) -> None:
        """Leaves out time that was not spent on training, such as that of making graphs."""
        self.started += seconds

    def count_images(self, images: int) -> None:
        """Adds to the images that `images_per_second` counts."""
        self.images += images

    @torch.no_grad()
    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Adds one value of each scalar."""
        for name, scalar in scalars.items():
            total = self.sums.get(name)
            if total is None or total.device != scalar.device:  # as one from a checkpoint may be
                before = 0.0 if total is None else total.to(scalar.device)
                self.sums[name] = torch.zeros_like(scalar, dtype=torch.float32) + before
            self.counts[name] = self.counts.get(name, 0) + 1
        torch._foreach_add_([self.sums[name] for name in scalars], [scalar.detach() for scalar in scalars.values()])

    def pop(self) -> dict[str, Tensor]:
        """The mean of each scalar since the last call, and `images_per_second`."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        elapsed = time.monotonic() - self.started  # 0 within a tick of a coarse clock, such as that of Windows
        means["images_per_second"] = torch.tensor(self.images / max(elapsed, 1e-6))
        self.sums, self.counts = {}, {}
        self.start_clock()
        return means

    def state_dict(self) -> dict[str, Any]:
        """What waits to be logged, in plain values and tensors."""
        return {"sums": {name: total.clone() for name, total in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any], rank: int = 0, world_size: int = 1) -> None:
        """Takes up what waited to be logged: a process its own sums, or the mean where their number has changed.

        Args:
            state: From `state_dict`, or from `Reporter.waiting_means`.
            rank: The number of this process.
            world_size: How many there are.
        """
        shares = {name: total.reshape(-1) for name, total in state["sums"].items()}
        self.sums = {name: share[rank] if len(share) == world_size else share.mean() for name, share in shares.items()}
        self.counts = dict(state["counts"])


class Reporter(LightningModule):
    """A module that hands its scalars to the loggers itself, at the number of alternations.

    Lightning's own axis is one behind, and further off after a resume; logging a scalar called `step`, Lightning's way
    to set the axis, would end up in the names of checkpoints.

    Attributes:
        reported: The scalars that were last handed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running_means = RunningMeans()
        self.reported: dict[str, float] = {}

    def on_train_start(self) -> None:
        """Starts the clock of `images_per_second`."""
        self.running_means.start_clock()

    def on_validation_start(self) -> None:
        """Stops the clock: scores, pictures and checkpoints of a validation are not training."""
        self.running_means.stop_clock()

    def on_validation_end(self) -> None:
        """Goes on with the clock; Lightning calls this behind the callbacks."""
        self.running_means.go_on_with_clock()

    def report_running_means(self, **others: Tensor) -> None:
        """Logs the means since the last time, over all processes, and other scalars that are the same in each."""
        means = self._over_processes(self.running_means.pop())
        shown = ("discriminator_loss", "generator_loss", "images_per_second")
        self.log_dict({name: means[name] for name in shown}, prog_bar=True, logger=False)
        self._hand_to_loggers({**means, **others})

    def _over_processes(self, scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of each scalar over the processes, in one message."""
        if not scalars or self.trainer.world_size == 1:
            return dict(scalars)
        stacked = torch.stack([scalar.to(self.device) for scalar in scalars.values()])
        return dict(zip(scalars, cast(Tensor, self.trainer.strategy.reduce(stacked)), strict=True))

    def _hand_to_loggers(self, scalars: Mapping[str, Tensor]) -> None:
        self.reported = {name: scalar.item() for name, scalar in scalars.items()}
        for logger in self.loggers:
            logger.log_metrics(self.reported, step=self.global_step)
            logger.save()

    def report_losses(self, prefix: str, images: int, **losses: Tensor) -> None:
        """Logs losses on images that are not trained on, averaged over all images of all processes."""
        named = {f"{prefix}_{name}": loss for name, loss in losses.items()}
        self.log_dict(named, batch_size=images, sync_dist=True, logger=not self._is_fitting())

    def on_validation_epoch_end(self) -> None:
        """Hands losses and scores on held-out images to the loggers, before a checkpoint counts their rows."""
        if self._is_fitting() and not self.trainer.sanity_checking:
            losses = self.trainer.callback_metrics
            self._hand_to_loggers({name: losses[name] for name in losses if name.startswith("val_")})

    def _is_fitting(self) -> bool:
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    def waiting_means(self) -> dict[str, Any]:
        """What waits to be logged, with the sums (world_size,) of all processes, for a checkpoint; all must ask."""
        state = self.running_means.state_dict()
        if not state["sums"] or self._trainer is None:  # as behind processes that were spawned
            return state
        own = torch.stack([total.to(self.device) for total in state["sums"].values()])
        shares = self.trainer.strategy.all_gather(own).reshape(-1, len(own))
        return {**state, "sums": dict(zip(state["sums"], shares.T.clone(), strict=True))}
