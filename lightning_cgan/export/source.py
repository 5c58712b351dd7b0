"""Loading a trained generator from a checkpoint, an exported folder or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.export.load import check_device, import_all, load
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import Make, read_onnx
from lightning_cgan.export.shipped_generators import find_generator
from lightning_cgan.networks.latents import LatentSampler
from lightning_cgan.networks.sampler import Sampler


@dataclass(frozen=True)
class Source:
    """A generator from any kind of file; `make` returns its images on the CPU, in float32."""

    path: Path
    metadata: ExportMetadata
    make: Make
    sampler: Sampler | None  # None for an ONNX file

    @property
    def mixes(self) -> bool:
        """Whether labels may also be mixtures of classes, (N, num_classes)."""
        return self.sampler is not None

    def first_images(self, label: int, count: int, latent_sampler: LatentSampler) -> Tensor:
        """Makes the first images of a class, shape (count, C, H, W), in [-1, 1]; other images do not change them."""
        latents = self.metadata.sample_latents(label, count, latent_sampler)
        return self.make(torch.full((count,), label), latents)


def load_source(name: str, imports: str | None = None, device: str = "cpu", ema: bool = True) -> Source:
    """Opens a checkpoint, a folder or ONNX file that `export` wrote, or a shipped generator by its name.

    Refuses a PyTorch program (`.pt2`), and weights that are not averaged (`ema`) of anything but a checkpoint.
    """
    path = find_generator(name, "source")
    ending = path.suffix.lower()
    if ending == ".pt2":
        expected = "expected a checkpoint, a folder or an ONNX file"
        raise UsageError(f"source: {expected}, got {path}, which could run code when loaded; export one of those")
    if not ema and (path.is_dir() or ending == ".onnx"):
        raise UsageError(f"--no_ema: expected a checkpoint, got {name}, which has one set of weights; omit --no_ema")
    if ending == ".onnx":
        if device not in ("auto", "cpu"):
            raise UsageError(f"--device: expected cpu for an ONNX file, got {device}; omit --device")
        return Source(path, *read_onnx(path), sampler=None)
    if path.is_dir():
        from lightning_cgan.export.pretrained import read_folder  # imports the client of the Hugging Face Hub

        import_all(imports)
        return _of_sampler(path, read_folder(path).to(check_device(device)), ema)
    return _of_sampler(path, load(str(path), imports, device), ema)


def _of_sampler(path: Path, sampler: Sampler, ema: bool) -> Source:
    sampler.eval()  # once: threads of the demo would switch the mode for each other

    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return sampler.generate_batches(labels, latents, ema)

    return Source(path, ExportMetadata.of(sampler), make, sampler)
