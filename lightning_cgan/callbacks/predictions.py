"""Images in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_cgan.callbacks.base import appoint_once, splits_of
from lightning_cgan.errors import UsageError
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.fakes import check_selection
from lightning_cgan.evaluation.scores import look_at
from lightning_cgan.images import bytes_from_signed, save_png, signed_from_bytes


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` makes as PNG files, one folder for each class, as torchvision's `ImageFolder` reads them.

    For classifiers that are to learn from them, GaFi (Lampis, Lomurno & Matteucci 2023, arXiv:2305.10118) draws latents
    wider than in training, and leaves out what a judge of the training split is not sure of.

    Args:
        folder: Where the class folders go. It must not exist yet, or be empty.
        latent_scale: What the latents are multiplied by.
        min_confidence: Images of whose label the judge is less sure, from 0 to 1, are left out; their numbers are too.
    """

    def __init__(self, folder: str = "predictions", latent_scale: float = 1.0, min_confidence: float = 0.0) -> None:
        super().__init__(write_interval="batch")
        check_selection("--predictions", latent_scale, min_confidence)
        self.folder = Path(folder)
        self.latent_scale = latent_scale
        self.min_confidence = min_confidence
        self._judge: Judge | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a folder with anything in it, so that images of two runs do not mix."""
        if stage != "predict":
            return
        pl_module.prediction_latent_scale = self.latent_scale  # type: ignore[assignment]
        if trainer.is_global_zero and self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"--predictions.folder: expected a new or empty folder, got {self.folder} with files in it; "
                "name another one"
            )

    @torch.inference_mode(False)  # a judge may have to be trained
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the judge, if there is something to judge."""
        if self.min_confidence:
            data = splits_of(trainer)
            if data is None:
                raise UsageError(
                    "--predictions.min_confidence: expected a LabelledImages, whose training split a judge knows, got "
                    "other data; leave min_confidence out, or subclass LabelledImages"
                )
            data.setup("validate")
            self._judge = appoint_once(trainer, data, pl_module.device).judge

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the module as it was."""
        if stage == "predict":
            pl_module.prediction_latent_scale = 1.0  # type: ignore[assignment]

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the images of a batch."""
        images, labels = prediction
        pixels = bytes_from_signed(images)
        keep = torch.ones(len(labels), dtype=torch.bool)
        if self._judge is not None:
            keep = look_at(self._judge, [(signed_from_bytes(pixels), labels)]).confidence.cpu() >= self.min_confidence
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        rows = zip(batch_indices or [], pixels.cpu(), labels.tolist(), keep.tolist(), strict=True)
        for place, image, label, is_kept in rows:
            if is_kept:
                name = str(names[label] if names else label).replace("/", "-")
                save_png(image, self.folder / name / f"{place:08d}.png")
