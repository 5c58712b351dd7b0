"""Writing a generator as a folder in the layout of the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.images import grid, save_png
from lightning_cgan.core.serialization import to_config
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.model_card import Training, card_text
from lightning_cgan.export.pretrained import ON_THE_HUB, PretrainedGenerator, read_folder
from lightning_cgan.export.score_table import ScoredReport
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import LatentSampler

_COLUMNS = 10


def write_folder(
    generator: Generator,
    metadata: ExportMetadata,
    training: Training,
    report: ScoredReport | None,
    name: str,
    folder: Path,
) -> None:
    """Writes weights, config, pictures and a model card with a title to a folder, and checks it by loading it.

    The generator is on the CPU, and in evaluation mode.
    """
    try:
        pretrained = PretrainedGenerator(to_config(generator), metadata.latents, list(metadata.class_names))
    except TypeError as error:
        names = ", ".join(generator.unserializable)
        expected = "expected a generator whose arguments can be saved"
        raise UsageError(f"--out: {expected}, got one with {names}; name a file in .onnx or .pt2") from error
    pretrained.generator.load_state_dict(generator.state_dict())
    text = card_text(name, generator, metadata, training, report, ON_THE_HUB)
    (folder / "README.md").write_text(text, encoding="utf-8")  # first, else the mixin writes its own card
    pretrained.save_pretrained(folder)
    (folder / "model.safetensors").chmod((folder / "README.md").stat().st_mode)  # safetensors bars other users
    count = len(metadata.class_names)
    labels = torch.arange(count).repeat_interleave(_COLUMNS)
    latents = torch.cat([metadata.sample_latents(label, _COLUMNS, LatentSampler()) for label in range(count)])
    with torch.no_grad():
        images = generator(latents, labels)
    save_png(grid(images, _COLUMNS), folder / "samples.png")
    if report is not None and report.picture is not None:
        shutil.copyfile(report.picture, folder / "report.png")
    if not torch.equal(read_folder(folder).generate(labels, latents), images):
        expected = "expected the exported folder to make the same images as the generator"
        raise UsageError(f"--out: {expected}, got others; check whether the network uses random numbers")
