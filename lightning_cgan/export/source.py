"""Loading a trained generator from a checkpoint, an exported folder or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError, reason_of
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import Make, read_onnx
from lightning_cgan.export.shipped_generators import find_generator
from lightning_cgan.networks.latents import LatentSampler
from lightning_cgan.networks.sampler import Sampler

if TYPE_CHECKING:
    from lightning_cgan.module import ConditionalGAN


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
    _import_all(imports)
    chosen = _check_device(device)
    if path.is_dir():
        from lightning_cgan.export.pretrained import read_folder  # imports the client of the Hugging Face Hub

        return _of_sampler(path, read_folder(path).to(chosen), ema)
    return _of_sampler(path, load_checkpoint(str(path)).to(chosen), ema)


def load_checkpoint(path: str) -> ConditionalGAN:
    """Loads the module of a checkpoint, on the CPU."""
    # Imports Lightning, for which no other kind of source should wait.
    from lightning_cgan.module import ConditionalGAN
    from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO
    from lightning_cgan.training.checkpointing import build_from

    try:
        checkpoint = AtomicCheckpointIO().load_checkpoint(path)
        module = build_from(ConditionalGAN, checkpoint)
        module.origin = {
            "name": Path(path).name,
            "step": int(checkpoint.get("global_step") or 0),
            "seed": module.seed,
        }
        return module
    except UsageError as error:
        message = str(error).removeprefix("--ckpt_path: ").removeprefix("the checkpoint: ")
        raise UsageError(f"source: {message}") from error
    except Exception as error:  # the classes in a config raise many kinds of errors
        expected = "expected the checkpoint of a ConditionalGAN that this version can load"
        raise UsageError(f"source: {expected}, got {path} ({reason_of(error)}); name another") from error


def _of_sampler(path: Path, sampler: Sampler, ema: bool) -> Source:
    sampler.eval()  # once: threads of the demo would switch the mode for each other

    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return sampler.generate_batches(labels, latents, ema)

    return Source(path, ExportMetadata.of(sampler), make, sampler)


def _import_all(imports: str | None) -> None:
    """Imports the modules of `--imports`, which are separated by commas."""
    for name in imports.split(",") if imports else ():
        try:
            import_module(name)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--imports: cannot import {name}: {error}; check that it is installed") from error


def _check_device(name: str) -> str:
    """The device of that name, or for `auto` the GPU if there is one; refuses one that this machine does not have."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        reason = str(error).partition("\n")[0]
        expected = "expected a device of this machine"
        raise UsageError(f"--device: {expected}, got {name} ({reason}); cpu is always available") from error
    return chosen
