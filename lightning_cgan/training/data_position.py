"""Where a run stands: in the order of its training images, and in Lightning's count of epochs."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cgan.core.compat import pass_over_batches, set_steps_of_loggers
from lightning_cgan.core.schema import check_schema


class DataPosition:
    """The place of a run in the order of its training images, at one of its steps.

    Lightning gives a loader its state back in the middle of an epoch alone: at the end of one it would begin anew, and
    so would a loader that `reload_dataloaders_every_n_epochs` asks for, and that of a further `fit` of the same
    Trainer. Of loaders other than the package's nothing is known: they stay Lightning's business.

    Attributes:
        order: The state of the loader.
        step: The step that it belongs to: at others, as at the first one of another Trainer, it means nothing.
    """

    def __init__(self) -> None:
        self.order: dict[str, Any] | None = None
        self.step = 0

    def at(self, step: int | None) -> dict[str, Any] | None:
        """The state of the loader at a step, if that is the one which the place belongs to."""
        return self.order if self.step == step else None

    def note(self, trainer: Trainer) -> None:
        """Looks where the loader stands after a step."""
        loader = _loader_of(trainer)
        self.order, self.step = None if loader is None else loader.state_dict(), trainer.global_step

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Takes the place of the run from a checkpoint, which older ones have among the states of Lightning's loops.

        Counts of Lightning's that would resume elsewhere are set right.

        Raises:
            UsageError: The place is none.
        """
        order = checkpoint["lightning_cgan"].get("order") or _order_in_loops(checkpoint)
        if order is not None:
            check_schema({"seed": 1, "images_seen": 1}, order, "lightning_cgan.order")
            _count_epochs(checkpoint)
        self.order, self.step = order, checkpoint["global_step"]

    def enter(self, trainer: Trainer) -> None:
        """Brings the loader to the place, before it is asked for a batch.

        Raises:
            UsageError: The place is none.
        """
        loader, order = _loader_of(trainer), self.at(trainer.global_step)
        if loader is not None and order is not None:
            loader.load_state_dict(order)
        self.note(trainer)


class KeepsDataPosition(Callback):
    """Lets a run resume at its `DataPosition`, which the module has.

    It is a callback of the module's own, since who writes a subclass with such hooks may not call those of the module.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the loader to its place, and lets Lightning finish an epoch that has no more batches."""
        cast(Any, pl_module).checkpointing.position.enter(trainer)
        loop = trainer.fit_loop.epoch_loop
        if _loader_of(trainer) is not None and loop.restarting and loop.batch_progress.is_last_batch:
            # Else Lightning would train on a batch more, unless a validation is due.
            pass_over_batches(loop)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings a loader to its place that was made anew for this epoch; there is nothing to restart in that."""
        cast(Any, pl_module).checkpointing.position.enter(trainer)
        _end_restart(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the restart of an epoch that had no more batches."""
        _end_restart(trainer)


def _loader_of(trainer: Trainer) -> Any:
    """The training loader, if it is one of the package's: they alone know the size of their epochs."""
    loader = trainer.train_dataloader
    return loader if hasattr(loader, "epoch_size") and hasattr(loader, "load_state_dict") else None


def _end_restart(trainer: Trainer) -> None:
    if _loader_of(trainer) is not None:
        trainer.fit_loop.epoch_loop.restarting = False


def _order_in_loops(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    loops: Any = checkpoint.get("loops") or {}
    states = loops.get("fit_loop", {}).get("state_dict", {}).get("combined_loader")
    if isinstance(states, list) and len(states) == 1 and isinstance(states[0], dict) and "images_seen" in states[0]:
        return cast(dict[str, Any], states[0])
    return None


def _count_epochs(checkpoint: dict[str, Any]) -> None:
    """Sets the counts of Lightning's loops so that a run resumes with the next batch of the epoch that it is in.

    Lightning counts an epoch as complete that `max_steps` or a callback ended early, trains on one batch more in one
    that was saved at its very end, and is one off in the axis of its loggers after that, all depending on the hook in
    which a checkpoint was written. Three states are left here, which it resumes from as it should: before an epoch, in
    an epoch, as if saved behind a batch, and behind its last batch, but before what is done at its end.
    """
    loops = (checkpoint.get("loops") or {}).get("fit_loop")
    if not loops:
        return
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    finished, done = epochs["current"]["processed"], batches["current"]["processed"]
    is_complete = batches["is_last_batch"] and done == batches["current"]["ready"]
    is_open = epochs["current"]["started"] > finished
    if epochs["current"]["ready"] > epochs["current"]["started"]:  # the batches are those of the epoch before
        done = 0
    if done and not is_open and not is_complete:  # cut short
        finished, is_open = max(0, finished - 1), True
    if not is_open:
        done = 0
    earlier_fits = epochs["total"]["processed"] - epochs["current"]["processed"]
    _set(epochs, earlier_fits, ready=finished + bool(done), processed=finished)
    is_within = done > 0 and not is_complete
    _set(batches, batches["total"]["processed"] - done, ready=done, processed=done, waiting=int(is_within))
    batches["is_last_batch"] = done > 0 and is_complete
    set_steps_of_loggers(loops, checkpoint["global_step"] - int(is_within))


def _set(progress: dict[str, Any], earlier: int, ready: int, processed: int, waiting: int = 0) -> None:
    """Sets a count of Lightning's.

    Args:
        progress: The count, of all since a run began, and of those of the epoch.
        earlier: How many came before the epoch.
        ready: How many have begun.
        processed: How many have ended.
        waiting: For how many of those the hooks of their end have not been called.
    """
    counts = {"ready": ready, "started": ready, "processed": processed, "completed": processed - waiting}
    progress["current"].update(counts)
    progress["total"].update({name: earlier + count for name, count in counts.items()})
