"""Images in bulk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cgan.callbacks.shared import shared_judge, splits_of
from lightning_cgan.core.errors import UsageError, check_seed, check_truncation, writing
from lightning_cgan.core.files import remove_unfinished, write_atomic
from lightning_cgan.core.images import bytes_from_signed, is_whole_png, save_png
from lightning_cgan.core.output_paths import check_writable, folders_of_classes
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.fakes import ATTEMPTS, check_selection, replace_doubtful
from lightning_cgan.evaluation.judge import fingerprint_of
from lightning_cgan.evaluation.protocol import LabelledSplits
from lightning_cgan.networks.latents import LatentSampler

_FINGERPRINT_FILE = "predictions.json"


class PredictionWriter(Callback):
    """Writes what `predict` makes as PNG files, one folder for each class, as torchvision's `ImageFolder` reads them.

    The images are those of `generate` with the same seed, on any number of processes. A `predict` that was stopped goes
    on in its folder: `predictions.json` there says what the images are made with, and others are refused. Batches are
    labels and numbers of images, shape (N, 2), as `LabelledImages` gives them.

    For classifiers that are to learn from them, GaFi (Lampis, Lomurno & Matteucci 2023, arXiv:2305.10118) draws latents
    wider than in training, and leaves out what a judge of the training split is not sure of.

    Args:
        folder: Where the class folders go.
        seed: Chooses other images.
        truncation: Draws no latent beyond this distance from 0, before they are scaled: more typical images, and less
            varied ones.
        latent_scale: What the latents are multiplied by.
        min_confidence: Images of whose label the judge is less sure, from 0 to 1, are replaced by others; by none
            where eight in a row are doubtful.
        top_up: Whether to make only as many images of a class as its real images, those of the test split aside, lack
            of `--data.predictions_per_class`: together they are a balanced set.

    Raises:
        UsageError: A number is out of range, the folder cannot be written to or has other images in it, the data are
            not those that an option needs, or their batches have no numbers.
    """

    def __init__(
        self,
        folder: str = "predictions",
        seed: int = 0,
        truncation: float | None = None,
        latent_scale: float = 1.0,
        min_confidence: float = 0.0,
        top_up: bool = False,
    ) -> None:
        super().__init__()
        check_seed("--predictions.seed", seed)
        check_truncation("--predictions.truncation", truncation)
        check_selection("--predictions", latent_scale, min_confidence)
        self.folder = Path(folder)
        self.latent_sampler = LatentSampler(seed, truncation, latent_scale)
        self.min_confidence = min_confidence
        self.top_up = top_up
        self._judge: Judge | None = None
        self._class_names: list[str] = []
        self._folders: list[Path] = []
        self._is_claimed = False
        self._doubtful = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells module and data what to make."""
        if stage != "predict":
            return
        check_writable(self.folder, "--predictions.folder")
        data, labels = splits_of(trainer), range(pl_module.num_classes)  # type: ignore[arg-type]
        self._class_names = list(getattr(data, "class_names", None) or map(str, labels))
        self._folders = folders_of_classes(self.folder, self._class_names)
        self._is_claimed, self._doubtful = False, 0
        if self._needs_real_images():
            if data is None:
                option = "min_confidence" if self.min_confidence else "top_up"
                raise UsageError(
                    f"--predictions.{option}: expected a LabelledImages, whose real images are known, got other data; "
                    f"leave {option} out, or subclass LabelledImages"
                )
            data.setup("validate")
        self._instruct(trainer, pl_module, self.latent_sampler, self._already_made(), self.top_up)

    def _needs_real_images(self) -> bool:
        return self.top_up or self.min_confidence > 0

    def _instruct(
        self, trainer: Trainer, module: Any, latent_sampler: LatentSampler, already_made: Any, tops_up: bool
    ) -> None:
        """Says what to make, and how."""
        module.latent_sampler, data = latent_sampler, splits_of(trainer)
        if data is not None:
            data.already_made, data.tops_up = already_made, tops_up  # type: ignore[attr-defined]

    def _leave(self, trainer: Trainer, module: Any) -> None:
        """Leaves the module and the data as if nothing had been asked of them."""
        self._instruct(trainer, module, LatentSampler(), (), False)

    def _already_made(self) -> set[tuple[int, int]]:
        """The labels and numbers of the images in the folder."""
        files = [(label, file) for label, path in enumerate(self._folders) for file in path.glob("*.png")]
        return {(label, int(file.stem)) for label, file in files if file.stem.isdecimal() and is_whole_png(file)}

    @torch.inference_mode(False)  # a judge may have to be trained
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the judge, if there is something to judge, and refuses a folder with other images in it."""
        self._claim_folder(trainer, pl_module)
        data = splits_of(trainer)
        if self.min_confidence and data is not None:
            self._judge = shared_judge(trainer, data, pl_module.device).judge

    def _claim_folder(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuses a folder with other images in it, and says in it what its own are made with."""
        fingerprint = self._fingerprint(module, splits_of(trainer))
        self._check_folder(fingerprint)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            for path in self._folders:
                remove_unfinished(path)
            text = json.dumps(fingerprint, indent=1) + "\n"
            with writing("--predictions.folder", self.folder):
                write_atomic(self.folder / _FINGERPRINT_FILE, lambda file: file.write_bytes(text.encode()))
        trainer.strategy.barrier()
        self._is_claimed = True

    def _fingerprint(self, module: Any, data: LabelledSplits | None) -> dict[str, Any]:
        """What the images, and how many there are, depend on."""
        digest = hashlib.sha256(repr(module.generator).encode())
        for value in module.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        real = None  # what the judge has learnt from, or what the images are added to
        if data is not None and self._needs_real_images():
            real = fingerprint_of(data.in_order("train"))
        return {
            **dataclasses.asdict(self.latent_sampler),
            "latents": module.latents,
            "min_confidence": self.min_confidence,
            "top_up": self.top_up,
            "data": real,
            "classes": self._class_names,
            "weights": digest.hexdigest(),
        }

    def _check_folder(self, fingerprint: dict[str, Any]) -> None:
        file = self.folder / _FINGERPRINT_FILE
        if file.is_file():
            try:
                found = dict(json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                found = {}
            differing = [name for name, value in fingerprint.items() if found.get(name) != value]
            if differing:
                raise UsageError(
                    f"--predictions.folder: expected images of the same {', '.join(differing)}, got others in "
                    f"{self.folder}; name another one"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"--predictions.folder: expected a new or empty folder, got {self.folder} with files in it; "
                "name another one"
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what has come of it."""
        doubtful = int(trainer.strategy.reduce(torch.tensor(self._doubtful, device=pl_module.device), reduce_op="sum"))
        if doubtful:
            rank_zero_warn(
                f"The judge is not sure of {doubtful:,} images, nor of {ATTEMPTS - 1} others in their place: they are "
                "left out. A smaller --predictions.min_confidence takes more"
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says where the images are, and leaves the module and the data as they were."""
        if stage == "predict":
            if not self._is_claimed:  # with nothing left to make, Lightning starts nothing
                self._claim_folder(trainer, pl_module)
            trainer.strategy.barrier()
            rank_zero_info(f"{len(self._already_made()):,} images: {self.folder}")
            self._leave(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the module and the data as they were."""
        if trainer.predicting:
            self._leave(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the images of a batch."""
        given = batch[0] if isinstance(batch, (tuple, list)) else batch  # as a TensorDataset gives it
        if given.ndim != 2:
            raise UsageError(
                "PredictionWriter: expected batches of labels and numbers of images, shape (N, 2), as LabelledImages "
                f"gives them, got shape {tuple(given.shape)}; number the images of each class, from 0"
            )
        (images, labels), numbers = outputs, given[:, 1].to(torch.int64)
        pixels = bytes_from_signed(images)
        kept = self._replace_doubtful(pl_module, pixels, labels, numbers)
        rows = zip(pixels.cpu(), labels.tolist(), numbers.tolist(), kept.tolist(), strict=True)
        with writing("--predictions.folder", self.folder):
            for image, label, number, is_kept in rows:
                if is_kept:
                    path = self._folders[label] / f"{number:05d}.png"
                    write_atomic(path, lambda file, image=image: save_png(image, file), sync=False)  # type: ignore[misc]

    def _replace_doubtful(self, module: Any, pixels: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        """Replaces images that the judge is not sure of, in place; tells which images are fit, shape (N,)."""
        if self._judge is None:
            return torch.ones(len(labels), dtype=torch.bool)

        def make(indices: Tensor, attempt: int) -> Tensor:
            chosen = indices.to(labels.device)
            sizes = module.generator.latent_dim, module.latents
            latents = self.latent_sampler.latents(labels[chosen], numbers[chosen], *sizes, variant=attempt)
            return bytes_from_signed(module.generate(labels[chosen], latents))

        kept = replace_doubtful(self._judge, pixels, labels, self.min_confidence, make) >= 0
        self._doubtful += int((~kept).sum())
        return kept
