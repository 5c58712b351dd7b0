"""The command `export`: the generator of a checkpoint for others."""

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
    """Writes the generator of a checkpoint for others.

    Files are read again before they are left, and make the images of the checkpoint: those of a folder to the last bit,
    those of a file within 0.0001 (of a range of 2).

    Args:
        checkpoint: A checkpoint of a run.
        out: Where it goes. A name in `.onnx` is an ONNX file and one in `.pt2` a program of `torch.export`: both take
            `labels` (N,) int64 and `latents` (N, latent_dim) float32 and return `images` (N, C, H, W) in [-1, 1], for
            any N. Any other is a folder as the Hugging Face Hub has it, with weights, config, model card and samples;
            `PretrainedGenerator.from_pretrained` reads it.
        ema: Whether it has the moving average of the generator's weights, where there is one; `--no_ema` if not.
        report: The `report.json` whose scores the model card tells; that which `test` has written beside the
            checkpoint, if not given.
        overwrite: Whether what is there already may be replaced, as by `--overwrite`.
        imports: Modules to import first, with commas between them: those with networks of your own that the checkpoint
            names. A checkpoint alone imports nothing, since that would run code.

    Raises:
        UsageError: There is no such checkpoint, report or module, the place is taken, the generator cannot be
            exported, or a package is missing that an extra brings.
    """
    path = Path(out)
    ending = path.suffix.lower()
    wants_folder = ending not in _FILES
    check_output_path(path, wants_folder, overwrite, lambda child: child.name in _IN_FOLDER, "what export writes")
    if report is not None and not wants_folder:
        raise UsageError(
            f"--report: expected a folder to write, got --out {path}, which has no card; leave --report out"
        )
    module, class_names = load(checkpoint, imports, "cpu")
    generator = module.chosen_generator(ema).eval().requires_grad_(False)
    metadata = ExportMetadata.of(module, class_names)
    if not wants_folder:
        with writing("--out", path):
            write_atomic(path, lambda file: _FILES[ending](generator, metadata, file))
    else:
        from lightning_cgan.export.hub_folder import write_folder  # which needs an extra

        about = (metadata, _training_of(checkpoint, ema and module.generator_ema is not None))
        scores = find_report(Path(checkpoint), report)
        name = path.resolve().name
        with writing("--out", path):
            write_atomic_folder(path, lambda folder: write_folder(generator, *about, scores, name, folder))
    print(f"Exported a generator of {len(class_names)} classes: {path}")


def _training_of(checkpoint: str, averaged: bool) -> Training:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load` has told of a damaged one
        read: dict[str, Any] = AtomicCheckpointIO().load_checkpoint(checkpoint)
    return Training(int(read.get("global_step") or 0), read["lightning_cgan"].get("data") or {}, averaged)
