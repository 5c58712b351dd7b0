"""The position of a run in its training data and in Lightning's epoch count, saved and restored."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cgan.core.compat import pass_over_batches, set_steps_of_loggers
from lightning_cgan.core.schema import check_schema


class DataPosition:
    """The position of a run in the order of its training images, at one of its steps.

    Lightning restores the state of a loader only in the middle of an epoch. At the end of an epoch, the loader would
    restart from its beginning, as would a loader recreated by `reload_dataloaders_every_n_epochs` and that of another
    `fit` of the same Trainer. This class handles only the package's loaders; all others are left to Lightning.

    Attributes:
        order: The state of the loader.
        step: The step that it belongs to; at any other step, such as the first of another Trainer, it is ignored.
    """

    def __init__(self) -> None:
        self.order: dict[str, Any] | None = None
        self.step = 0

    def at(self, step: int | None) -> dict[str, Any] | None:
        """Returns the state of the loader if it belongs to this step."""
        return self.order if self.step == step else None

    def note(self, trainer: Trainer) -> None:
        """Records the state of the loader after a step."""
        loader = _loader_of(trainer)
        self.order, self.step = None if loader is None else loader.state_dict(), trainer.global_step

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Loads the position of the run from a checkpoint; older ones store it among the states of Lightning's loops.

        Counters of Lightning's that would resume elsewhere are corrected.
        """
        order = checkpoint["lightning_cgan"].get("order") or _order_in_loops(checkpoint)
        if order is not None:
            check_schema({"seed": 1, "images_seen": 1}, order, "lightning_cgan.order")
            _count_epochs(checkpoint)
        self.order, self.step = order, checkpoint["global_step"]

    def move_loader(self, trainer: Trainer) -> None:
        """Moves the loader to the position, before its first batch is requested."""
        loader, order = _loader_of(trainer), self.at(trainer.global_step)
        if loader is not None and order is not None:
            loader.load_state_dict(order)
        self.note(trainer)


class KeepsDataPosition(Callback):
    """Lets a run resume at the `DataPosition` held by the module.

    A callback rather than hooks of the module, because a subclass that overrides such hooks may not call `super()`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the loader to its position, and lets Lightning finish an epoch that has no batches left."""
        cast(Any, pl_module).checkpointing.position.move_loader(trainer)
        loop = trainer.fit_loop.epoch_loop
        if _loader_of(trainer) is not None and loop.restarting and loop.batch_progress.is_last_batch:
            # Otherwise Lightning would train on one more batch, unless a validation follows.
            pass_over_batches(loop)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves a loader recreated for this epoch to its position; the epoch is then not a restarted one."""
        cast(Any, pl_module).checkpointing.position.move_loader(trainer)
        _end_restart(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the restart of an epoch that had no batches left."""
        _end_restart(trainer)


def _loader_of(trainer: Trainer) -> Any:
    """Returns the training loader if it is one of the package's: only they know the size of their epochs."""
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
    """Corrects the counters of Lightning's loops so that a run resumes with the next batch of its current epoch.

    Depending on the hook in which a checkpoint was written, Lightning counts an epoch as complete that ended early, or
    trains on one extra batch. It resumes correctly from the three states that this leaves: before an epoch; within one,
    as if saved after a batch; and after its last batch, before its end-of-epoch work.
    """
    loops = (checkpoint.get("loops") or {}).get("fit_loop")
    if not loops:
        return
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    finished, done = epochs["current"]["processed"], batches["current"]["processed"]
    is_complete = batches["is_last_batch"] and done == batches["current"]["ready"]
    is_open = epochs["current"]["started"] > finished
    if epochs["current"]["ready"] > epochs["current"]["started"]:  # the batches are those of the previous epoch
        done = 0
    if done and not is_open and not is_complete:  # ended early
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
    """Sets a counter of Lightning's, with the count before this epoch and how many wait for their end hooks."""
    counts = {"ready": ready, "started": ready, "processed": processed, "completed": processed - waiting}
    progress["current"].update(counts)
    progress["total"].update({name: earlier + count for name, count in counts.items()})
