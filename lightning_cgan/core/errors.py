"""Errors that users can fix, as one line each."""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

_LONGEST_NAME = 200  # most file systems allow 255 bytes; unfinished files add some
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def printable(text: str, limit: int | None = None) -> str:
    """Escapes unprintable characters in text from anywhere, and truncates it to `limit` characters."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…"


class UsageError(ValueError):
    """A mistake that the user can fix.

    The message names the option as the user typed it, the expected and the actual value, and ends with a remedy. The
    command line prints it as one line, without a traceback, and exits with code 2. Unprintable characters in it are
    escaped: names from files may hold control sequences of terminals.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(" ".join(str(message).split())))


class TrainingError(RuntimeError):
    """A run cannot continue, through no fault of the user; the command line prints one line, with exit code 1."""


class FusionError(Exception):
    """A step contains an operation that a graph cannot capture; nothing has been changed."""


class MissingExtraError(UsageError, ImportError):
    """A package that only a part of this one needs is not installed."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turns an import error of an optional package into a `MissingExtraError` that names the extra to install."""
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise MissingExtraError(
            f'{package}: expected this package to be installed, got none; pip install "lightning_cgan[{name}]"'
        ) from error


def check_positive(option: str, value: float | None) -> None:
    """Raises `UsageError` if a number is below 1; None is valid."""
    if value is not None and value < 1:
        raise UsageError(f"{option}: expected 1 or more, got {value}; give a positive number")


def check_seed(option: str, seed: int | None) -> None:
    """Raises `UsageError` if a seed is not a signed 64-bit integer; None is valid."""
    try:
        struct.pack("q", 0 if seed is None else seed)
    except struct.error as error:
        raise UsageError(f"{option}: expected a whole number of 64 bits, got {seed}; give another") from error


def check_name(option: str, name: str) -> None:
    """Raises `UsageError` if a name is not valid for nested folders within another folder."""
    parts = name.split("/")
    if not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
        expected = "expected a name that a folder or file may have"
        raise UsageError(f"{option}: {expected}, got {shown or 'nothing'}; give letters and digits")
    longest = max(len(os.fsencode(part)) for part in parts)
    if longest > _LONGEST_NAME:
        raise UsageError(
            f"{option}: expected a name of at most {_LONGEST_NAME} bytes, got {longest}; give a shorter one"
        )


def check_truncation(option: str, limit: float | None) -> None:
    """Raises `UsageError` if a truncation limit of latents is not above 0 and finite; None is valid."""
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"{option}: expected a number above 0, got {limit}; 1 keeps two thirds of latents")


def reason_of(error: BaseException) -> str:
    """The class and the message of an error, in one line of bounded length, for a message about its consequence."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the known name nearest to a misspelt one; empty if none is near."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[near[0]]}?" if near else ""


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Turns errors of a disk that is full, read-only or gone into a `UsageError` about the option and its path."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and "(os error " not in str(error):  # from libraries in Rust
            raise
        has_no_room = getattr(error, "errno", None) in _NO_ROOM or "(os error 28)" in str(error)
        remedy = "make room, or name another" if has_no_room else "name another"
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"{option}: expected a path to write to, got {path} ({reason}); {remedy}") from error


def kind_of(path: Path) -> str | None:
    """Describes a path that is not a regular file, such as `a folder`; None for a file or a missing path."""
    try:
        if path.is_symlink() and not path.exists():
            return "a link to nothing"
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    kinds |= {"device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode)}
    return next((f"a {kind}" for kind, is_one in kinds.items() if is_one(mode)), None)


def neighbours(path: Path) -> list[str]:
    """The names of the other files in the folder of a path; none if there is no such folder, or it is unreadable."""
    try:
        return [file.name for file in path.parent.iterdir() if file.name != path.name]
    except OSError:
        return []


def no_such_file(option: str, path: str, also_known: Iterable[Path] = ()) -> str:
    """The message for a path that does not exist or is not a file, with the most similar name.

    That is searched in the path's folder and in `also_known`, files in other folders that may be meant.
    """
    if kind := kind_of(Path(path)):
        return f"{option}: expected a file, got {path}, which is {kind}; name a file"
    hint = did_you_mean(Path(path).name, [*neighbours(Path(path)), *(file.name for file in also_known)])
    return f"{option}: no such file: {path}{hint or '; check the path'}"
