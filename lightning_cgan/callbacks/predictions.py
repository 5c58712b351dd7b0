"""Images in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_cgan.errors import UsageError
from lightning_cgan.images import bytes_from_signed, save_png


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` makes as PNG files, one folder for each class, as torchvision's `ImageFolder` reads them.

    Args:
        folder: Where the class folders go. It must not exist yet, or be empty.
    """

    def __init__(self, folder: str = "predictions") -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a folder with anything in it, so that images of two runs do not mix."""
        if stage == "predict" and trainer.is_global_zero and self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"--predictions.folder: expected a new or empty folder, got {self.folder} with files in it; "
                "name another one"
            )

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
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        for place, image, label in zip(
            batch_indices or [], bytes_from_signed(images).cpu(), labels.tolist(), strict=True
        ):
            name = str(names[label] if names else label).replace("/", "-")
            save_png(image, self.folder / name / f"{place:08d}.png")
