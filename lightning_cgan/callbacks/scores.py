"""Scores of the generator as the run goes on, and the checkpoint that has the best one."""

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
    images are those of the moving average, if there is one. Their latents stay the same for the whole run, so that one
    validation compares with the next. The first process scores for all, which makes the scores those of a run on one.

    Args:
        images: How many generated images, with labels of validation images, are scored; 0 for no scores. Where there
            are fewer validation images, they lend their labels again. Those that are compared with are all there are,
            up to twice as many. The more, the less the distance depends on `seed`.
        seed: Determines the latents.
    """

    def __init__(self, images: int = 2000, seed: int = 0) -> None:
        if images < 0:
            raise UsageError(f"--scores.images: expected 0 or more, got {images}; 0 leaves scores out")
        self.images = images
        self.seed = seed
        self._judge: Judge | None = None
        self._references: Features | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes and scores images."""
        data = splits_of(trainer)
        if not self.images or data is None or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        found = self._score(pl_module, data) if trainer.is_global_zero else {}
        scores = trainer.strategy.broadcast(found)
        is_fit = trainer.state.fn == "fit"  # then the module hands it to the loggers, at its own step
        pl_module.log_dict(scores, prog_bar=True, logger=not is_fit, rank_zero_only=False)

    @torch.inference_mode(False)  # a judge may have to be trained
    def _score(self, pl_module: LightningModule, data: LabelledSplits) -> dict[str, float]:
        validation = data.in_order("validation")
        if self._judge is None:
            self._judge = get_judge(data.in_order("train"), validation, data.num_classes, pl_module.device).judge
            self._references = extract_features(self._judge, at_most(validation, 2 * self.images))
        assert self._references is not None
        labels = at_most(validation, self.images).labels
        labels = labels.repeat(-(-self.images // len(labels)))[: self.images]
        fakes = make_fakes(cast(ImageMaker, pl_module), labels, self.seed)
        scores = quick_scores(extract_features(self._judge, fakes), self._references)
        return {f"val_{name}": value for name, value in scores.items()}


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, the state of the run with the smallest `val_judge_fid` of all validations.

    Args:
        monitor: The name of the scalar that decides.
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
        """Goes on with the best score of the run so far, whose file stays in the folder where it was written.

        Lightning's own forgets the score where a resumed run has a folder of its own.
        """
        super().load_state_dict(state_dict)
        for name in ("best_model_score", "best_k_models", "kth_best_model_path", "kth_value"):
            setattr(self, name, state_dict[name])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if there is a score and it is the best."""
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
