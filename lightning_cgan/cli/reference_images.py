"""The images that `invert` compares with: held-out ones of a run's data, else images that the generator makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from lightning_cgan.core.errors import UsageError, printable, reason_of
from lightning_cgan.core.images import signed_from_pixels
from lightning_cgan.core.rng import INVERSION, rng_at
from lightning_cgan.core.serialization import class_path
from lightning_cgan.core.trusted_classes import subclasses_of
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.source import Source
from lightning_cgan.networks.latents import sample_latents

if TYPE_CHECKING:
    from lightning_cgan.data.base import LabelledImages

# Streams besides that of the samples from which a search starts
_OF_HELD_OUT, _OF_GENERATED = 1, 2


def reference_images(source: Source, count: int, seed: int) -> tuple[str, Tensor, Tensor]:
    """Returns what the images are, the images (N, C, H, W) in [-1, 1], and their labels (N,).

    These are validation images if the checkpoint lies in the folder of its run, whose config says what data it had, and
    they can be read. Nothing is downloaded, and the test split is not read.
    """
    try:
        images, labels = _held_out(source.path, source.metadata, count, seed)
        return f"{len(labels)} images of the validation split", images, labels
    except Exception as error:  # the classes of a config and its files raise many kinds of errors
        reason = str(error).partition(";")[0] if isinstance(error, UsageError) else reason_of(error)
        metadata = source.metadata
        rng = rng_at(seed, INVERSION, _OF_GENERATED)
        latents = sample_latents((count, metadata.latent_dim), metadata.latents, rng, torch.float32)
        labels = torch.arange(count) % len(metadata.class_names)
        what = f"{count} images that the generator makes, since no held-out ones can be read ({printable(reason)})"
        return what, source.make(labels, latents), labels


def _held_out(checkpoint: Path, metadata: ExportMetadata, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Some validation images of the run that wrote a checkpoint, the same ones for the same seed."""
    data = _data_of(checkpoint)
    if data.class_names != metadata.class_names:
        raise UsageError("its data has other classes")
    if (data.image_channels, data.image_size) != (metadata.image_channels, metadata.image_size):
        raise UsageError("its data has images of another size")
    data.memory_budget = 0  # files are decoded when they are chosen
    data.setup("fit")
    pixels, labels = data.splits["validation"]
    chosen = torch.randperm(len(labels), generator=rng_at(seed, INVERSION, _OF_HELD_OUT))[:count]
    images = torch.stack([pixels[place] for place in chosen.tolist()])
    return signed_from_pixels(images), labels[chosen]


def _data_of(checkpoint: Path) -> LabelledImages:
    """Builds the data module of a run from its config; only classes that are imported already are built."""
    if checkpoint.is_dir():
        raise UsageError("the source is no checkpoint of a run")
    config = checkpoint.resolve().parent.parent / "config.yaml"
    if not config.is_file():
        raise UsageError(f"there is no {config.name} of its run beside the folder of the checkpoint")
    from lightning_cgan.data import LabelledImages  # imports Lightning, for which no other source should wait

    described: Any = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    found = [cls for cls in subclasses_of(LabelledImages) if class_path(cls) == described["class_path"]]
    if not found:
        raise UsageError(f"{config.name} names {described['class_path']}, which --imports does not import")
    data: LabelledImages = found[0](**described.get("init_args", {}))
    return data
