"""The command `export`: writes the generator of a checkpoint as a folder, an ONNX file or a PyTorch program."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning_cgan.core.errors import UsageError, writing
from lightning_cgan.core.files import write_atomic, write_atomic_folder
from lightning_cgan.core.output_paths import check_output_path
from lightning_cgan.export.load import load
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.model_card import Training
from lightning_cgan.export.onnx_and_pt2 import write_onnx, write_program
from lightning_cgan.export.score_table import find_report
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO

_FILES = {".onnx": write_onnx, ".pt2": write_program}
_IN_FOLDER = ("model.safetensors", "config.json", "README.md", "samples.png", "report.png")


def export(
    checkpoint: str,
    out: str = "exported",
    ema: bool = True,
    report: str | None = None,
    overwrite: bool = False,
    imports: str | None = None,
) -> None:
    """Exports the generator of a checkpoint.

    The result is loaded again and checked: a folder makes exactly the images of the checkpoint, a file makes them
    within 0.0001 (of a range of 2).

    Args:
        checkpoint: A checkpoint of a run.
        out: The path to write. A name in `.onnx` is an ONNX file and one in `.pt2` a program of `torch.export`: both
            map `labels` (N,) int64 and `latents` (N, latent_dim) float32 to `images` (N, C, H, W) in [-1, 1], for any
            N. Any other name is a folder in the layout of the Hugging Face Hub, with weights, config, model card and
            samples; `PretrainedGenerator.from_pretrained` loads it.
        ema: Whether to use the moving average of the generator's weights, if there is one; `--no_ema` turns it off.
        report: The `report.json` with the scores for the model card; if not given, the one that `test` has written
            next to the checkpoint.
        overwrite: Whether to replace an existing file or folder; `--overwrite` turns it on.
        imports: Modules of custom networks in the checkpoint to import first, separated by commas. Loading a checkpoint
            imports nothing by itself, since that would run code.
    """
    path = Path(out)
    ending = path.suffix.lower()
    wants_folder = ending not in _FILES
    check_output_path(path, wants_folder, overwrite, lambda child: child.name in _IN_FOLDER, "what export writes")
    if report is not None and not wants_folder:
        raise UsageError(f"--report: expected --out to be a folder, got {path}, which has no model card; omit --report")
    module, class_names = load(checkpoint, imports, "cpu")
    generator = module.chosen_generator(ema).eval().requires_grad_(False)
    metadata = ExportMetadata.of(module, class_names)
    if not wants_folder:
        with writing("--out", path):
            write_atomic(path, lambda file: _FILES[ending](generator, metadata, file))
    else:
        from lightning_cgan.export.hub_folder import write_folder  # needs an extra

        training = _training_of(checkpoint, ema and module.generator_ema is not None)
        about = (metadata, training, find_report(Path(checkpoint), report), path.resolve().name)
        with writing("--out", path):
            write_atomic_folder(path, lambda folder: write_folder(generator, *about, folder))
    print(f"Exported a generator of {len(class_names)} classes: {path}")


def _training_of(checkpoint: str, averaged: bool) -> Training:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load` has already warned of a damaged file
        read: dict[str, Any] = AtomicCheckpointIO().load_checkpoint(checkpoint)
    return Training(int(read.get("global_step") or 0), read["lightning_cgan"].get("data") or {}, averaged)
