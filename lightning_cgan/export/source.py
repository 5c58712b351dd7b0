"""A trained generator, however it was kept."""

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
    """Makes images, whatever stands behind.

    Attributes:
        metadata: What is known of the generator.
        make: Takes labels (N,) int64 and latents (N, latent_dim); returns images (N, C, H, W), in [-1, 1], on the CPU.
        mixes: Whether labels may be mixtures of classes too, (N, num_classes).
    """

    metadata: ExportMetadata
    make: Make
    mixes: bool


def load_source(path: str, imports: str | None = None) -> Source:
    """Opens a checkpoint, or what `export` wrote: a folder or an ONNX file. A program of PyTorch's is refused.

    Args:
        path: The file or folder.
        imports: Modules to import first, with the networks of your own that it names.

    Raises:
        UsageError: There is no such thing, it is broken, or it names a module that nobody has imported.
    """
    source = Path(path)
    if not source.exists():
        raise UsageError(no_such_file("source", path))
    if source.suffix.lower() == ".onnx":
        return Source(*read_onnx(source), mixes=False)
    if source.suffix.lower() == ".pt2":
        expected = "expected a checkpoint, a folder or an ONNX file"
        raise UsageError(f"source: {expected}, got {source}, which could run code of others'; export one of those")
    if source.is_dir():
        from lightning_cgan.export.pretrained import read_folder  # which needs an extra

        import_all(imports)
        generator = read_folder(source)
        return _of_sampler(generator, generator.class_names)
    return _of_sampler(*load(path, imports))


def _of_sampler(sampler: Sampler, class_names: Sequence[str]) -> Source:
    sampler.eval()  # now, since the threads of a page would switch it on and off for one another

    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return sampler.generate(labels, latents).float().cpu()

    return Source(ExportMetadata.of(sampler, class_names), make, mixes=True)
