"""Check output paths, and name output folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_cgan.core.errors import UsageError, check_name, kind_of

# A path with one of these extensions is meant to be a file, not a folder.
_FILE_EXTENSIONS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp"),
    *(".avi", ".mov", ".mp4", ".webm", ".csv", ".json", ".yaml", ".tar", ".gz", ".zip", ".bin", ".h5"),
    *(".npy", ".npz", ".ckpt", ".onnx", ".pt", ".pt2", ".pth", ".pkl", ".safetensors"),
)
_LONGEST = 200  # bytes of a class name in a folder name
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unwritable(path: Path, reason: str, option: str = "--runs_dir") -> UsageError:
    """The error for a folder that cannot be written to."""
    return UsageError(f"{option}: expected a folder to write to, got {path}, {reason}; name another")


def check_writable(folder: Path, option: str = "--runs_dir") -> None:
    """Raises `UsageError` if a folder, or its nearest existing parent, is not writable or is a file."""
    existing = next(path for path in (folder, *folder.resolve().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise unwritable(existing, "which is not a writable folder", option)


def check_output_path(
    path: Path, wants_folder: bool, overwrite: bool, is_ours: Callable[[Path], bool], contents: str
) -> None:
    """Raises `UsageError` if a path for `--out` cannot be written to, or holds something that must not be replaced.

    A folder to overwrite may hold only items that are ours; messages describe these as `contents`.
    """
    if path.name:
        check_name("--out", path.name)
    kind = kind_of(path)
    is_special = kind not in (None, "a folder")
    if not path.name or path.is_symlink() or is_special:
        which = f", which is {kind if is_special else 'a link'}" if path.name else ""
        raise UsageError(f"--out: expected the path of a file or folder, got {str(path)!r}{which}; name another")
    if wants_folder and path.suffix.lower() in _FILE_EXTENSIONS:
        expected = "expected a folder, or a type of file that this command writes"
        raise UsageError(f"--out: {expected}, got {path}; choose an extension that --help names, or none")
    check_writable(path.parent, "--out")
    if not path.exists() or (path.is_dir() and wants_folder and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"--out: expected a new name, got {path}, which exists; name another, or add --overwrite")
    if path.is_dir() != wants_folder:
        wanted, other = ("folder", "file") if wants_folder else ("file", "folder")
        raise UsageError(f"--out: expected a {wanted} to overwrite, got {path}, which is a {other}; name another")
    if wants_folder and not all(map(is_ours, path.iterdir())):
        raise UsageError(f"--out: expected a folder with nothing but {contents}, got {path}; name another")


def folders_of_classes(folder: Path, class_names: Sequence[str]) -> list[Path]:
    """The output folder of each class, in the layout of torchvision's `ImageFolder`.

    If a class name is not a valid folder name, or two classes would share a folder on a case-insensitive file system,
    all folders get the class numbers as prefixes.
    """
    names = [_folder_name(name) for name in class_names]
    different = {unicodedata.normalize("NFC", name).casefold() for name in names}
    if not all(names) or len(different) < len(names) or any(map(_WINDOWS_DEVICE.fullmatch, names)):
        names = [f"{label}-{name}" for label, name in enumerate(names)]
    return [folder / name for name in names]


def _folder_name(name: str) -> str:
    """The parts of a name that are valid in folder names on any system, with at most `_LONGEST` bytes."""
    kept = "".join(letter if letter.isprintable() and letter not in '/\\<>:"|?*' else "-" for letter in name)
    return kept.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").lstrip(".").rstrip(". ")
