"""The command `export`: writes a trained generator as a folder, an ONNX file or a PyTorch program."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from lightning_cgan.core.errors import UsageError, writing
from lightning_cgan.core.files import write_atomic, write_atomic_folder
from lightning_cgan.core.output_paths import check_output_path
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.model_card import Training
from lightning_cgan.export.onnx_and_pt2 import write_onnx, write_program
from lightning_cgan.export.score_table import find_report
from lightning_cgan.export.source import load_source
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.sampler import Sampler
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO

_FILES = {".onnx": write_onnx, ".pt2": write_program}
_IN_FOLDER = ("model.safetensors", "config.json", "README.md", "samples.png", "report.png")


def export(
    source: str,
    out: str = "exported",
    ema: bool = True,
    report: str | None = None,
    overwrite: bool = False,
    imports: str | None = None,
) -> None:
    """Exports a trained generator.

    The result is loaded again and checked: a folder makes exactly the same images, a file makes them within 0.0001 (of
    a range of 2).

    Args:
        source: A checkpoint of a run, a folder written by `export`, or the name of a generator that comes with the
            package: `mnist`, `fashion_mnist` or `digits`.
        out: The path to write. A name in `.onnx` is an ONNX file and one in `.pt2` a program of `torch.export`: both
            map `labels` (N,) int64 and `latents` (N, latent_dim) float32 to `images` (N, C, H, W) in [-1, 1], for any
            N. Any other name is a folder in the layout of the Hugging Face Hub, with weights, config, model card and
            samples; `PretrainedGenerator.from_pretrained` loads it.
        ema: Whether to use the moving average of the generator's weights, if the checkpoint has one; `--no_ema` turns
            it off.
        report: The `report.json` with the scores for the model card; if not given, the one that `test` has written
            next to the checkpoint.
        overwrite: Whether to replace an existing file or folder; `--overwrite` turns it on.
        imports: Modules of custom networks in the source to import first, separated by commas. Loading a source imports
            nothing by itself, since that would run code.
    """
    path = Path(out)
    ending = path.suffix.lower()
    wants_folder = ending not in _FILES
    check_output_path(path, wants_folder, overwrite, lambda child: child.name in _IN_FOLDER, "what export writes")
    if report is not None and not wants_folder:
        raise UsageError(f"--report: expected --out to be a folder, got {path}, which has no model card; omit --report")
    opened = load_source(source, imports, ema=ema)
    if opened.sampler is None:
        raise UsageError(f"source: expected a checkpoint or a folder, got {source}; name what it was exported from")
    if report is not None and opened.path.is_dir():
        got = f"got {source}, whose model card stays as it is"
        raise UsageError(f"--report: expected a checkpoint to export, {got}; omit --report")
    with writing("--out", path):
        if not wants_folder:
            generator = _network(opened.sampler, ema)
            write_atomic(path, lambda file: _FILES[ending](generator, opened.metadata, file))
        elif opened.path.is_dir():
            write_atomic_folder(path, lambda folder: _copy(opened.path, folder))
        else:
            _write_folder(opened.path, opened.sampler, opened.metadata, ema, report, path)
    print(f"Exported a generator of {len(opened.metadata.class_names)} classes: {path}")


def _network(sampler: Sampler, ema: bool) -> Generator:
    return sampler.chosen_generator(ema).eval().requires_grad_(False)


def _copy(origin: Path, folder: Path) -> None:
    for name in _IN_FOLDER:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)


def _write_folder(
    checkpoint: Path, sampler: Sampler, metadata: ExportMetadata, ema: bool, report: str | None, path: Path
) -> None:
    from lightning_cgan.export.hub_folder import write_folder  # imports the client of the Hugging Face Hub

    training = _training_of(str(checkpoint), ema and sampler.generator_ema is not None)
    about = (metadata, training, find_report(checkpoint, report), path.resolve().name)
    write_atomic_folder(path, lambda folder: write_folder(_network(sampler, ema), *about, folder))


def _training_of(checkpoint: str, averaged: bool) -> Training:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load` has already warned of a damaged file
        read: dict[str, Any] = AtomicCheckpointIO().load_checkpoint(checkpoint)
    return Training(int(read.get("global_step") or 0), read["lightning_cgan"].get("data") or {}, averaged)
