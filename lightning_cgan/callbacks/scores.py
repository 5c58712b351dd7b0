"""Scores of the generator during training, and the checkpoint with the best score."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cgan.callbacks.shared import splits_of
from lightning_cgan.core.errors import UsageError
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.fakes import ImageMaker, at_most, make_fakes
from lightning_cgan.evaluation.judge import get_judge
from lightning_cgan.evaluation.protocol import LabelledSplits
from lightning_cgan.evaluation.scores import Features, extract_features, quick_scores


class Scores(Callback):
    """Scores generated images against the validation split in every validation.

    Logs `val_gan_test`, `val_judge_fid` and `val_diversity`; see `lightning_cgan.evaluation.scores.quick_scores`. The
    images come from the moving average of the weights, if there is one. Their latents are fixed for the whole run, so
    that scores of different steps are comparable. The first process computes the scores for all processes, so they do
    not depend on the number of processes.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> scores = Scores(images=5000)
        >>> trainer = Trainer(max_steps=1000, callbacks=[scores], logger=False)
        >>> scores in trainer.callbacks
        True

    Args:
        images: The number of generated images, which get the labels of validation images; 0 disables scores. If there
            are fewer validation images, their labels are reused. The generated images are compared with all validation
            images, up to twice `images`. With more images, `val_judge_fid` depends less on `seed`.
        seed: Determines the latents.
    """

    def __init__(self, images: int = 2000, seed: int = 0) -> None:
        if images < 0:
            raise UsageError(f"--scores.images: expected 0 or more, got {images}; 0 disables scores")
        self.images = images
        self.seed = seed
        self._judge: Judge | None = None
        self._references: Features | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generates images, scores them and logs the scores."""
        data = splits_of(trainer)
        if not self.images or data is None or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        found = self._score(pl_module, data) if trainer.is_global_zero else {}
        scores = trainer.strategy.broadcast(found)
        is_fit = trainer.state.fn == "fit"  # then the module logs them, at its own step
        pl_module.log_dict(scores, prog_bar=True, logger=not is_fit, rank_zero_only=False)

    @torch.inference_mode(False)  # the judge may need training
    def _score(self, pl_module: LightningModule, data: LabelledSplits) -> dict[str, float]:
        validation = data.in_order("validation")
        if self._judge is None:
            self._judge = get_judge(data.in_order("train"), validation, data.num_classes, pl_module.device).judge
            self._references = extract_features(self._judge, at_most(validation, 2 * self.images))
        assert self._references is not None
        labels = at_most(validation, self.images).labels
        labels = labels.repeat(-(-self.images // len(labels)))[: self.images]
        fakes = make_fakes(cast(ImageMaker, pl_module), labels, self.seed, bit_depth=validation.bit_depth)
        scores = quick_scores(extract_features(self._judge, fakes), self._references)
        return {f"val_{name}": value for name, value in scores.items()}


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, the checkpoint with the best score of all validations.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> best = BestCheckpoint(monitor="val_gan_test", mode="max")
        >>> trainer = Trainer(max_steps=1000, callbacks=[Scores(), best], logger=False)
        >>> trainer.checkpoint_callback is best
        True

    Args:
        monitor: The logged scalar that is the score.
        mode: Whether the smallest (`min`) or the largest (`max`) value is best.
    """

    def __init__(self, monitor: str = "val_judge_fid", mode: str = "min") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            every_n_epochs=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best score so far; its file stays in the folder where it was written.

        Lightning's own discards the score if the resumed run has another folder.
        """
        super().load_state_dict(state_dict)
        for name in ("best_model_score", "best_k_models", "kth_best_model_path", "kth_value"):
            setattr(self, name, state_dict[name])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves if there is a score and it is the best so far."""
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
