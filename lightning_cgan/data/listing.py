"""List the images and folders in a folder, and count the files that are skipped."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_cgan.core.errors import UsageError, printable

ENDINGS: tuple[str, ...] = (*IMG_EXTENSIONS, ".jfif", ".jpe")  # the last two are also JPEG
_SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "__macosx")  # created by Windows and macOS in folders and archives
_NAMED = 5  # the most kinds of files that a warning lists


def folders_in(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted; empty if it cannot be read."""
    return [entry.name for entry in _readable_entries(path) if _is_folder(entry)]


def files_in(path: Path) -> list[str]:
    """The names of the images directly in a folder, sorted; empty if it cannot be read."""
    names = (entry.name for entry in _readable_entries(path) if not _is_folder(entry))
    return [name for name in names if name.lower().endswith(ENDINGS)]


def images_in(path: Path, skipped: Counter[str]) -> list[str]:
    """The images in the folder of a class and its subfolders, each once, in the order of torchvision.

    A missing folder has none. `skipped` counts other files by extension, except hidden files and those that operating
    systems create.

    Raises:
        UsageError: A folder cannot be read.
    """
    found: dict[str, str] = {}
    seen = {str(above) for above in path.resolve().parents}
    pending = [str(path)] if path.exists() else []
    while pending:
        folder = pending.pop()
        actual = os.path.realpath(folder)
        if actual in seen:  # reached before through a link, which may be circular
            continue
        seen.add(actual)
        try:
            entries = _entries(folder)
        except OSError as error:
            got = f"got {folder!r} ({error.strerror}); change its permissions, or remove it"
            raise UsageError(f"--data.data_dir: expected folders that can be read, {got}") from error
        pending += [entry.path for entry in reversed(entries) if _is_folder(entry)]
        for entry in entries:
            if _is_folder(entry):
                continue
            if not entry.name.lower().endswith(ENDINGS):
                skipped[Path(entry.name).suffix.lower() or "without an extension"] += 1
            elif entry.is_symlink() or entry.is_file():
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(actual, entry.name)
                found.setdefault(target, entry.path)
            else:  # reading a pipe would block forever
                skipped["pipe or device"] += 1
    return sorted(found.values(), key=os.path.split)


def counted(skipped: Counter[str]) -> str:
    """The skipped files as text: `3 .gif, 1 .txt`."""
    most_first = sorted(skipped.items(), key=lambda found: (-found[1], found[0]))
    kinds = [f"{count:,} {printable(kind)}" for kind, count in most_first]
    return ", ".join(kinds[:_NAMED]) + (", …" if len(kinds) > _NAMED else "")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        shown = [one for one in entries if not one.name.startswith(".") and one.name.lower() not in _SYSTEM_NAMES]
    return sorted(shown, key=lambda entry: entry.name)


def _readable_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return _entries(str(folder))
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
