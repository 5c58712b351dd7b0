"""Warnings about failing runs, and an error for runs that no longer train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cgan.callbacks.shared import run_folder, warn_on_write_error
from lightning_cgan.core.errors import TrainingError, check_positive
from lightning_cgan.runs.alarms_file import Alarm, read_alarms, write_alarms

_REMEDIES = {
    "loss": (
        "Updates with such gradients are skipped. If this lasts, resume from an earlier checkpoint with a smaller "
        "learning rate, a clip_norm for each network, or --trainer.precision 32-true"
    ),
    "gap": (
        "The generator learns little from it: try a gradient penalty (--model.penalties+ R1 "
        "--model.penalties.gamma 1), a smaller learning rate for the discriminator, or --model.augmentations if the "
        "data set is small"
    ),
    "skipped": "Try --trainer.precision bf16-mixed, or a clip_norm for each network",
    "collapse": (
        "Early in a run this is temporary; later, try a gradient penalty, a smaller learning rate, a larger "
        "--data.batch_size, or --model.loss RelativisticPairing"
    ),
}


class TrainingAlarms(Callback):
    """Warns of failing runs, in the log and in Weights & Biases, once for each problem until it is over.

    `alarms.csv` in the run folder keeps the warnings; without any, there is no such file. The scalars are checked
    whenever they are logged; other steps cost nothing. The run ends if a network is no longer updated because its
    gradients are never finite.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> alarms = TrainingAlarms(largest_logit_gap=8.0, patience=3)
        >>> trainer = Trainer(max_steps=1000, callbacks=[alarms], logger=False)
        >>> alarms in trainer.callbacks
        True

    Args:
        smallest_diversity: The smallest `val_diversity` without a warning: the distance between generated images of a
            class, as a share of that between real ones.
        largest_logit_gap: The largest difference without a warning between the mean logits of real and of generated
            images.
        patience: How many checks in a row must find the gap, or skipped updates, before a warning.

    Raises:
        TrainingError: In `patience` checks in a row, a network had not been updated since the previous check.
    """

    def __init__(self, smallest_diversity: float = 0.5, largest_logit_gap: float = 12.0, patience: int = 5) -> None:
        check_positive("--alarms.patience", patience)
        self.smallest_diversity = smallest_diversity
        self.largest_logit_gap = largest_logit_gap
        self.patience = patience
        self._in_a_row: dict[str, int] = {}
        self._skipped: dict[str, float] = {}
        self._last_step = 0  # of the last check
        self._active: set[str] = set()
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets the run folder."""
        self._folder = run_folder(trainer) if stage == "fit" else None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Removes alarms after the checkpoint, which the run raises again."""
        step = int(checkpoint.get("global_step", 0))
        if self._folder is not None and trainer.is_global_zero:
            with warn_on_write_error("alarms.csv"):
                alarms = read_alarms(self._folder)
                earlier = [alarm for alarm in alarms if alarm.step <= step]
                if len(earlier) < len(alarms):
                    write_alarms(self._folder, earlier)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether scalars have just been logged, where a call of `training_step` ends anyway."""
        return False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Checks the scalars that have just been logged."""
        reported = getattr(pl_module, "reported", None)
        every_n_steps = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if reported and every_n_steps and trainer.global_step % every_n_steps == 0:
            self._end_if_stuck(trainer, reported)
            self._warn(trainer, self._faults(reported), ("loss", "gap", "skipped"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to count at the current step."""
        self._last_step = trainer.global_step

    def _end_if_stuck(self, trainer: Trainer, scalars: Mapping[str, float]) -> None:
        since, self._last_step = self._last_step, trainer.global_step
        for name in ("discriminator", "generator"):
            grown = scalars.get(f"{name}_skipped_steps", 0.0) - self._skipped.get(f"{name}_skipped_steps", 0.0)
            if self._lasts(f"{name} is stuck", grown >= trainer.global_step - since > 0):
                begun = trainer.global_step - self.patience * (trainer.global_step - since)
                text = (
                    f"Step {trainer.global_step:,}: no update of the {name} was made since step "
                    f"{begun:,}: its gradients are not finite. Resume from an earlier checkpoint with a smaller "
                    "learning rate, a clip_norm for each network, or --trainer.precision 32-true"
                    + _last_checkpoint(trainer)
                )
                self._record(trainer, "stuck", text)
                raise TrainingError(text)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the scores."""
        diversity, faults = float(trainer.callback_metrics.get("val_diversity", math.inf)), {}
        if diversity < self.smallest_diversity:
            faults["collapse"] = (
                f"Images of a class are too similar: their distance is {diversity:.2f} times that of real ones"
            )
        self._warn(trainer, faults, ("collapse",))

    def _faults(self, scalars: Mapping[str, float]) -> dict[str, str]:
        """The faults in the scalars of training, as messages by kind."""
        faults = {}
        broken = [name for name, value in scalars.items() if not math.isfinite(value)]
        if broken:
            faults["loss"] = f"{', '.join(broken)}: not a finite number"
        gap = scalars.get("real_logits", 0.0) - scalars.get("fake_logits", 0.0)
        if self._lasts("gap", gap > self.largest_logit_gap):
            faults["gap"] = (
                f"The discriminator is too strong: its mean logits of real and generated images are {gap:.1f} apart"
            )
        counts = {name: value for name, value in scalars.items() if name.endswith("_skipped_steps")}
        grown = [f"{name} {value:.0f}" for name, value in counts.items() if value > self._skipped.get(name, 0.0)]
        self._skipped = counts
        if self._lasts("skipped", bool(grown)):
            faults["skipped"] = f"Updates are still being skipped, since gradients are not finite: {', '.join(grown)}"
        return faults

    def _lasts(self, kind: str, is_there: bool) -> bool:
        self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1 if is_there else 0
        return self._in_a_row[kind] >= self.patience

    def _warn(self, trainer: Trainer, faults: Mapping[str, str], checked: tuple[str, ...]) -> None:
        """Warns of new faults, and forgets those that are over."""
        for kind, message in faults.items():
            if kind not in self._active:
                text = f"Step {trainer.global_step:,}: {message}. {_REMEDIES[kind]}."
                rank_zero_warn(text)
                self._record(trainer, kind, text)
                for logger in trainer.loggers:
                    if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                        logger.experiment.alert(title=f"lightning_cgan: {kind}", text=text)
        self._active = (self._active - set(checked)) | set(faults)

    def _record(self, trainer: Trainer, kind: str, text: str) -> None:
        """Adds a row to `alarms.csv`."""
        if self._folder is not None and trainer.is_global_zero:
            with warn_on_write_error("alarms.csv"):
                write_alarms(self._folder, [*read_alarms(self._folder), Alarm(trainer.global_step, kind, text)])


def _last_checkpoint(trainer: Trainer) -> str:
    saved = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    return next((f"; the last good checkpoint is {path}" for path in saved if path), "")
