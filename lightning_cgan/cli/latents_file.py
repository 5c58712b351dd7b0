"""Reading `latents.npz`, which `invert` writes, for `generate --latents`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cgan.core.errors import UsageError, kind_of, no_such_file, printable, reason_of
from lightning_cgan.core.npz import load_arrays
from lightning_cgan.export.metadata import ExportMetadata

_NAMES = ("latents", "labels", "class_names")


def check_latents_path(path: str) -> None:
    """Raises `UsageError` if there is no such file, before anything is loaded."""
    if not Path(path).is_file() or kind_of(Path(path)):
        raise UsageError(no_such_file("--latents", path))


def read_latents(path: str, metadata: ExportMetadata) -> tuple[Tensor, Tensor]:
    """Reads latents, shape (N, latent_dim), float32, and labels, (N,), int64, for the generator that is described.

    Raises:
        UsageError: The file is another one, or is of a generator with other classes or latents.
    """
    latents, labels, class_names = _load(path)
    if tuple(map(str, class_names.ravel().tolist())) != metadata.class_names:
        expected = f"expected latents of a generator of the same classes ({_listed(metadata.class_names)})"
        raise _wrong(
            expected, f"{_listed(class_names.ravel().tolist())} in {path}", "name the source that they were found with"
        )
    if latents.ndim != 2 or latents.shape[1] != metadata.latent_dim or not len(latents):
        expected = f"expected latents of shape (N, {metadata.latent_dim}), N 1 or more"
        raise _wrong(expected, f"{latents.shape} in {path}", "name the source that they were found with")
    if latents.dtype.kind != "f" or not np.isfinite(latents).all():
        got = f"{latents.dtype} in {path}" + (", not all of them finite" if latents.dtype.kind == "f" else "")
        raise _wrong("expected latents to be finite floats", got, "run invert again")
    are_numbers = labels.shape == latents.shape[:1] and labels.dtype.kind in "iu"
    if not are_numbers or not bool(((labels >= 0) & (labels < len(metadata.class_names))).all()):
        expected = f"expected labels from 0 to {len(metadata.class_names) - 1}, one for each of the latents"
        raise _wrong(expected, f"{labels.dtype} of shape {labels.shape} in {path}", "run invert again")
    return torch.from_numpy(latents.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def _load(path: str) -> list[np.ndarray]:
    expected = f"expected an .npz file with {', '.join(_NAMES[:-1])} and {_NAMES[-1]}"
    try:
        arrays = load_arrays(path, _NAMES)
    except Exception as error:  # a damaged file can raise any exception
        raise _wrong(expected, f"{path} ({reason_of(error)})", "name a latents.npz that invert wrote") from error
    found = [array for name in _NAMES if (array := arrays.get(name)) is not None]
    if len(found) < len(_NAMES):
        got = ", ".join(arrays) or "nothing"
        raise _wrong(expected, f"{path} with {got}", "name a latents.npz that invert wrote")
    return found


def _listed(names: Any) -> str:
    return printable(", ".join(map(str, names)), 100)


def _wrong(expected: str, got: str, remedy: str) -> UsageError:
    return UsageError(f"--latents: {expected}, got {got}; {remedy}")
