"""The trained generators that come with the package, by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lightning_cgan.core.errors import UsageError, did_you_mean, kind_of, neighbours, no_such_file

WEIGHTS = "model.safetensors"
ORIGIN = "origin.json"  # the config, the seed and the scores of a shipped generator, and the hash of its weights

_FOLDER = Path(__file__).parent / "generators"
SHIPPED = {file.parent.name: file.parent for file in sorted(_FOLDER.glob(f"*/{ORIGIN}"))}


def find_generator(name: str, option: str) -> Path:
    """The file or folder of that name, else the folder of the shipped generator of that name.

    Raises:
        UsageError: There is neither, or the weights of the shipped generator have changed since.
    """
    path = Path(name)
    if path.is_file() or path.is_dir():
        return path
    if name in SHIPPED and kind_of(path) is None:
        _check_weights(name, option)
        return SHIPPED[name]
    if not is_bare(name) or kind_of(path) is not None:
        raise UsageError(no_such_file(option, name))
    hint = did_you_mean(name, [*SHIPPED, *neighbours(path)]) or "; check the name"
    expected = f"expected a file, a folder or a shipped generator ({', '.join(SHIPPED)})"
    raise UsageError(f"{option}: {expected}, got {name}{hint}")


def is_bare(name: str) -> bool:
    """Whether a text is a name without folders and extension, as those of shipped generators are."""
    return bool(name) and Path(name).name == name and not Path(name).suffix


def _check_weights(name: str, option: str) -> None:
    file = SHIPPED[name] / WEIGHTS
    expected = json.loads((SHIPPED[name] / ORIGIN).read_text(encoding="utf-8"))["sha256"]
    got = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    if got != expected:
        found = "no file" if got is None else f"others (sha256 {got[:16]})"
        expected = f"expected the weights that {name} was shipped with (sha256 {expected[:16]})"
        raise UsageError(f"{option}: {expected}, got {found} in {file}; install lightning_cgan again")
