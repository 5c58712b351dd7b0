"""Generated images as PNG files, written by `predict`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cgan.callbacks.shared import shared_judge, splits_of
from lightning_cgan.core.errors import UsageError, check_seed, check_truncation, writing
from lightning_cgan.core.files import remove_unfinished, write_atomic
from lightning_cgan.core.images import (
    BitDepth,
    check_bit_depth,
    image_suffix,
    is_whole_image,
    pixels_from_signed,
    save_image,
)
from lightning_cgan.core.output_paths import check_writable, folders_of_classes
from lightning_cgan.evaluation.classifiers import Judge
from lightning_cgan.evaluation.fakes import ATTEMPTS, check_selection, replace_doubtful
from lightning_cgan.evaluation.judge import fingerprint_of
from lightning_cgan.evaluation.protocol import LabelledSplits
from lightning_cgan.networks.latents import LatentSampler

_FINGERPRINT_FILE = "predictions.json"


class PredictionWriter(Callback):
    """Writes the images of `predict` as files, one folder per class, as torchvision's `ImageFolder` reads them.

    They are PNG files, or TIFF files with a page per channel for images that are neither gray nor coloured.

    The images are those of `generate` with the same seed, for any number of processes. An interrupted `predict` resumes
    in its folder: `predictions.json` there records how the images are made, and a run that makes others is refused.
    If the module has `others`, generators that take turns with it, image number i of a class is from generator i mod G.
    Batches contain labels and image numbers, shape (N, 2), as `LabelledImages` provides them.

    GaFi (Lampis, Lomurno & Matteucci 2023, arXiv:2305.10118) makes better images to train classifiers on: it samples
    latents more widely than in training (`latent_scale`), and omits images that a judge, a classifier trained on the
    training split, is unsure of (`min_confidence`).

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> writer = PredictionWriter("fakes", truncation=2.0, latent_scale=1.1)
        >>> trainer = Trainer(callbacks=[writer], logger=False)
        >>> writer.latent_sampler
        LatentSampler(seed=0, truncation=2.0, scale=1.1)

    Args:
        folder: The folder that contains the class folders.
        seed: Different seeds give different images.
        truncation: The largest distance of a latent from 0, before scaling. Smaller values give more typical and less
            varied images.
        latent_scale: The factor that latents are multiplied by.
        min_confidence: The smallest confidence, from 0 to 1, of the judge in an image's label. Less certain images are
            replaced; after eight attempts the image is omitted.
        top_up: Whether to make only the images that each class lacks: `--data.predictions_per_class` less its number of
            real images, not counting the test split. Real and generated images together are then a balanced set.
        bit_depth: How many bits each pixel has. Files of 16 bits hold no colours.

    Raises:
        UsageError: A number is out of range, the folder is not writable or contains other images, the data module lacks
            what an option needs, or its batches contain no image numbers.
    """

    def __init__(
        self,
        folder: str = "predictions",
        seed: int = 0,
        truncation: float | None = None,
        latent_scale: float = 1.0,
        min_confidence: float = 0.0,
        top_up: bool = False,
        bit_depth: BitDepth = 8,
    ) -> None:
        super().__init__()
        check_seed("--predictions.seed", seed)
        check_truncation("--predictions.truncation", truncation)
        check_selection("--predictions", latent_scale, min_confidence)
        self.folder = Path(folder)
        self.latent_sampler = LatentSampler(seed, truncation, latent_scale)
        self.min_confidence = min_confidence
        self.top_up = top_up
        self.bit_depth: BitDepth = bit_depth
        self._judge: Judge | None = None
        self._class_names: list[str] = []
        self._folders: list[Path] = []
        self._is_claimed = False
        self._num_omitted = 0
        self._channels = 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Configures the module and the data to make the images that the folder lacks."""
        if stage != "predict":
            return
        check_writable(self.folder, "--predictions.folder")
        self._channels = cast(Any, pl_module).generator.image_channels
        check_bit_depth("--predictions.bit_depth", self.bit_depth, self._channels)
        data, labels = splits_of(trainer), range(pl_module.num_classes)  # type: ignore[arg-type]
        self._class_names = list(getattr(data, "class_names", None) or map(str, labels))
        self._folders = folders_of_classes(self.folder, self._class_names)
        self._is_claimed, self._num_omitted = False, 0
        if self._needs_real_images():
            if data is None:
                option = "min_confidence" if self.min_confidence else "top_up"
                raise UsageError(
                    f"--predictions.{option}: expected a data module with real images, got one without; omit {option}, "
                    "or use a subclass of LabelledImages"
                )
            data.setup("validate")
        self._configure(trainer, pl_module, self.latent_sampler, self._already_made(), self.top_up)

    def _needs_real_images(self) -> bool:
        return self.top_up or self.min_confidence > 0

    def _configure(
        self, trainer: Trainer, module: Any, latent_sampler: LatentSampler, already_made: Any, tops_up: bool
    ) -> None:
        """Sets which images the data ask for, and how the module samples their latents."""
        module.latent_sampler, data = latent_sampler, splits_of(trainer)
        if data is not None:
            data.already_made, data.tops_up = already_made, tops_up  # type: ignore[attr-defined]

    def _reset(self, trainer: Trainer, module: Any) -> None:
        """Resets what `_configure` has set."""
        self._configure(trainer, module, LatentSampler(), (), False)

    def _already_made(self) -> set[tuple[int, int]]:
        """The labels and numbers of the complete images in the folder."""
        names = f"*{image_suffix(self._channels)}"
        files = [(label, file) for label, path in enumerate(self._folders) for file in path.glob(names)]
        files = [(label, file) for label, file in files if file.stem.isdecimal()]
        return {(label, int(file.stem)) for label, file in files if is_whole_image(file, self._channels)}

    @torch.inference_mode(False)  # the judge may need training
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a folder that contains other images, and gets the judge if `min_confidence` needs it."""
        self._claim_folder(trainer, pl_module)
        data = splits_of(trainer)
        if self.min_confidence and data is not None:
            self._judge = shared_judge(trainer, data, pl_module.device).judge

    def _claim_folder(self, trainer: Trainer, module: Any) -> None:
        """Refuses a folder that contains other images, and records in it how its images are made."""
        fingerprint = self._fingerprint(module, splits_of(trainer))
        self._check_folder(fingerprint)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            for path in self._folders:
                remove_unfinished(path)
            if module.others:  # not compared: files may be renamed
                fingerprint["checkpoints"] = [dict(one.origin or {}) for one in module.generators]
            text = json.dumps(fingerprint, indent=1) + "\n"
            with writing("--predictions.folder", self.folder):
                write_atomic(self.folder / _FINGERPRINT_FILE, lambda file: file.write_bytes(text.encode()))
        trainer.strategy.barrier()
        self._is_claimed = True

    def _fingerprint(self, module: Any, data: LabelledSplits | None) -> dict[str, Any]:
        """Everything that the images and their number depend on."""
        real = None  # the judge's training images, or the images to top up
        if data is not None and self._needs_real_images():
            real = fingerprint_of(data.in_order("train"))
        return {
            **dataclasses.asdict(self.latent_sampler),
            "latents": module.latents,
            "min_confidence": self.min_confidence,
            "top_up": self.top_up,
            "bit_depth": self.bit_depth,
            "data": real,
            "classes": self._class_names,
            "weights": _digest(module),
            "generators": [_digest(other) for other in module.others] or None,
        }

    def _check_folder(self, fingerprint: dict[str, Any]) -> None:
        file = self.folder / _FINGERPRINT_FILE
        if file.is_file():
            found: dict[str, Any] = {"bit_depth": 8}  # of folders of earlier versions
            with suppress(ValueError, TypeError):
                found |= json.loads(file.read_text(encoding="utf-8"))
            differing = [name for name, value in fingerprint.items() if found.get(name) != value]
            if differing:
                raise UsageError(
                    f"--predictions.folder: expected images made with the same {', '.join(differing)}, got others in "
                    f"{self.folder}; name another folder"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"--predictions.folder: expected a new or empty folder, got {self.folder} with files in it; "
                "name another folder"
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if images were omitted."""
        count = torch.tensor(self._num_omitted, device=pl_module.device)
        omitted = int(trainer.strategy.reduce(count, reduce_op="sum"))
        if omitted:
            rank_zero_warn(
                f"{omitted:,} images were omitted: after {ATTEMPTS} attempts, the judge was not confident of their "
                "labels. A smaller --predictions.min_confidence omits fewer"
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reports where the images are, and resets the module and the data."""
        if stage == "predict":
            if not self._is_claimed:  # without batches, Lightning skips `on_predict_start`
                self._claim_folder(trainer, pl_module)
            trainer.strategy.barrier()
            rank_zero_info(f"{len(self._already_made()):,} images: {self.folder}")
            self._reset(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Resets the module and the data."""
        if trainer.predicting:
            self._reset(trainer, pl_module)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Writes the images of a batch."""
        given = batch[0] if isinstance(batch, (tuple, list)) else batch  # a TensorDataset gives tuples
        if given.ndim != 2:
            raise UsageError(
                "PredictionWriter: expected batches of labels and image numbers, shape (N, 2), as LabelledImages "
                f"provides, got shape {tuple(given.shape)}; number the images of each class from 0"
            )
        (images, labels), numbers = outputs, given[:, 1].to(torch.int64)
        pixels = pixels_from_signed(images, self.bit_depth)
        kept = self._replace_doubtful(pl_module, pixels, labels, numbers)
        rows = zip(pixels.cpu(), labels.tolist(), numbers.tolist(), kept.tolist(), strict=True)
        with writing("--predictions.folder", self.folder):
            for image, label, number, is_kept in rows:
                if is_kept:
                    path = self._folders[label] / f"{number:05d}{image_suffix(self._channels)}"
                    write_atomic(path, lambda file, image=image: save_image(image, file), sync=False)  # type: ignore[misc]

    def _replace_doubtful(self, module: Any, pixels: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        """Replaces images that the judge is unsure of, in place; returns which images to keep, shape (N,)."""
        if self._judge is None:
            return torch.ones(len(labels), dtype=torch.bool)

        def make(indices: Tensor, attempt: int) -> Tensor:
            chosen = indices.to(labels.device)
            images = module.generate_numbered(labels[chosen], numbers[chosen], self.latent_sampler, attempt)
            return pixels_from_signed(images, self.bit_depth)

        kept = replace_doubtful(self._judge, pixels, labels, self.min_confidence, make) >= 0
        self._num_omitted += int((~kept).sum())
        return kept


def _digest(sampler: Any) -> str:
    """A hash of a generator, and of all weights of its module."""
    digest = hashlib.sha256(repr(sampler.generator).encode())
    for value in sampler.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
