"""Loading a trained generator from a checkpoint, an exported folder or an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_cgan.core.errors import UsageError, no_such_file
from lightning_cgan.export.load import import_all, load
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import Make, read_onnx
from lightning_cgan.networks.sampler import Sampler


@dataclass(frozen=True)
class Source:
    """A generator from any kind of file; it makes images on the CPU."""

    metadata: ExportMetadata
    make: Make
    mixes: bool  # whether labels may also be mixtures of classes, (N, num_classes)


def load_source(path: str, imports: str | None = None) -> Source:
    """Opens a checkpoint, or a folder or ONNX file written by `export`; refuses a PyTorch program (`.pt2`)."""
    source = Path(path)
    if not source.exists():
        raise UsageError(no_such_file("source", path))
    if source.suffix.lower() == ".onnx":
        return Source(*read_onnx(source), mixes=False)
    if source.suffix.lower() == ".pt2":
        expected = "expected a checkpoint, a folder or an ONNX file"
        raise UsageError(f"source: {expected}, got {source}, which could run code when loaded; export one of those")
    if source.is_dir():
        from lightning_cgan.export.pretrained import read_folder  # needs an extra

        import_all(imports)
        generator = read_folder(source)
        return _of_sampler(generator, generator.class_names)
    return _of_sampler(*load(path, imports))


def _of_sampler(sampler: Sampler, class_names: Sequence[str]) -> Source:
    sampler.eval()  # once: threads of the demo would switch the mode for each other

    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return sampler.generate(labels, latents).float().cpu()

    return Source(ExportMetadata.of(sampler, class_names), make, mixes=True)
