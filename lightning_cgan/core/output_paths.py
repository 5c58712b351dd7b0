"""Check output paths, and name output folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_cgan.core.errors import UsageError, check_name, kind_of

# A path with one of these suffixes is meant to be a file, not a folder.
_KINDS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp"),
    *(".avi", ".mov", ".mp4", ".webm", ".csv", ".json", ".yaml", ".tar", ".gz", ".zip", ".bin", ".h5"),
    *(".npy", ".npz", ".ckpt", ".onnx", ".pt", ".pt2", ".pth", ".pkl", ".safetensors"),
)
_LONGEST = 200  # bytes of a class name, without its number


def unwritable(path: Path, reason: str, option: str = "--runs_dir") -> UsageError:
    """The error for a folder that cannot be written to."""
    return UsageError(f"{option}: expected a folder to write to, got {path}, {reason}; name another")


def check_writable(folder: Path, option: str = "--runs_dir") -> None:
    """Refuses a folder that cannot be written to.

    Args:
        folder: The folder; it need not exist.
        option: The option that names it.

    Raises:
        UsageError: The folder, or its nearest existing parent, is not writable or is a file.
    """
    existing = next(path for path in (folder, *folder.resolve().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise unwritable(existing, "which is not", option)


def check_output_path(
    path: Path, wants_folder: bool, overwrite: bool, is_ours: Callable[[Path], bool], contents: str
) -> None:
    """Refuses a path for `--out` that holds something that may not be replaced.

    Args:
        path: The file or folder to write.
        wants_folder: Whether to write a folder.
        overwrite: Whether existing content may be replaced.
        is_ours: Whether an item in the folder may be removed.
        contents: What the folder may hold, as text for the error.

    Raises:
        UsageError: The path is taken, cannot be written to, or is a folder named like a file of another kind.
    """
    if path.name:
        check_name("--out", path.name)
    kind = kind_of(path)
    if not path.name or path.is_symlink() or kind not in (None, "a folder"):
        which = "" if kind in (None, "a folder") else f", which is {kind}"
        which = which or (", which is a link" if path.is_symlink() else "")
        raise UsageError(f"--out: expected the name of a file or of a folder, got {str(path)!r}{which}; name one")
    if wants_folder and path.suffix.lower() in _KINDS:
        expected = "expected a kind of file that this command writes, or a folder"
        raise UsageError(f"--out: {expected}, got {path}; choose an ending that --help names, or none")
    check_writable(path.parent, "--out")
    if not path.exists() or (path.is_dir() and wants_folder and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"--out: expected a new name, got {path}, which exists; name another, or --overwrite")
    if path.is_dir() != wants_folder:
        kind = "folder" if wants_folder else "file"
        raise UsageError(f"--out: expected a {kind} in the place of a {kind}, got {path}; name another")
    if wants_folder and not all(map(is_ours, path.iterdir())):
        raise UsageError(f"--out: expected nothing but {contents} there, got {path}; name another")


def folders_of_classes(folder: Path, class_names: Sequence[str]) -> list[Path]:
    """The output folder of each class, in the layout of torchvision's `ImageFolder`.

    Args:
        folder: The folder for all classes.
        class_names: The names of the classes. If one is not a valid folder name, or two would share a folder on a
            case-insensitive file system, all folders get the class numbers as prefixes.
    """
    names = [_folder_name(name) for name in class_names]
    different = {unicodedata.normalize("NFC", name).casefold() for name in names}
    if not all(names) or len(different) < len(names) or any(map(_is_device, names)):
        names = [f"{label}-{name}" for label, name in enumerate(names)]
    return [folder / name for name in names]


def _folder_name(name: str) -> str:
    """The parts of a name that are valid in folder names on any system, with at most `_LONGEST` bytes."""
    kept = "".join(letter if letter.isprintable() and letter not in '/\\<>:"|?*' else "-" for letter in name)
    return kept.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").lstrip(".").rstrip(". ")


def _is_device(name: str) -> bool:
    return re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE) is not None  # on Windows
