"""What a user did wrong, in one line."""

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

_LONGEST_NAME = 200  # most file systems take 255 bytes, of which an unfinished file needs some
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def printable(text: str, limit: int | None = None) -> str:
    """Spells out what cannot be printed, such as the escape character, and cuts off what is too long.

    Args:
        text: Any text, also of others' files.
        limit: The most characters that are left.
    """
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…"


class UsageError(ValueError):
    """A mistake that the user can mend.

    The message names the option as the user typed it, shows what was expected and what was got, and ends with the
    remedy. The command line prints it as one line, without a traceback, and ends with exit code 2.

    Args:
        message: The message. What cannot be printed is spelt out: names from files may hold what a terminal would obey.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(" ".join(str(message).split())))


class TrainingError(RuntimeError):
    """A run that cannot go on, through nobody's mistake; the command line says so in one line, with exit code 1."""


class FusionError(Exception):
    """A step does something that no graph can hold; nothing has been changed."""


class MissingExtraError(UsageError, ImportError):
    """A package is not installed that only a part of this one needs."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Says what to install, where an import fails of a package that only a part of this one needs.

    Args:
        name: The extra that brings it, as `pip install "lightning_cgan[name]"` has it.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        expected = f"{package}: expected it to be installed, got no such package"
        raise MissingExtraError(f'{expected}; pip install "lightning_cgan[{name}]"') from error


def check_positive(option: str, value: float | None) -> None:
    """Refuses a number below 1; none at all is fine.

    Raises:
        UsageError: The number is 0 or negative.
    """
    if value is not None and value < 1:
        raise UsageError(f"{option}: expected 1 or more, got {value}; give a positive number")


def check_seed(option: str, seed: int | None) -> None:
    """Refuses a seed that does not fit 64 signed bits; none at all is fine.

    Raises:
        UsageError: It does not, or is no whole number.
    """
    try:
        struct.pack("q", 0 if seed is None else seed)
    except struct.error as error:
        raise UsageError(f"{option}: expected a whole number of 64 bits, got {seed}; give another") from error


def check_name(option: str, name: str) -> None:
    """Refuses what is no name for folders within another one.

    Raises:
        UsageError: It is empty, leads out of that folder, has letters that no file may have, or is too long.
    """
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
    """Refuses what is no limit of latents; none at all is fine.

    Raises:
        UsageError: The limit is 0, negative or not finite.
    """
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"{option}: expected a number above 0, got {limit}; 1 keeps two thirds of latents")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ends an error message with the known name that is nearest to a misspelt one.

    Args:
        name: The name that nobody knows.
        known: The names that exist.

    Returns:
        `; did you mean …?`, or an empty string where nothing known is near.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[near[0]]}?" if near else ""


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Makes one line of what a disk says that is full, read-only or gone.

    Args:
        option: The option that names the place.
        path: Where something is written.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and "(os error " not in str(error):  # which a library in Rust raises
            raise
        has_no_room = getattr(error, "errno", None) in _NO_ROOM or "(os error 28)" in str(error)
        remedy = "make room, or name another" if has_no_room else "name another"
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"{option}: expected a place to write to, got {path} ({reason}); {remedy}") from error


def kind_of(path: Path) -> str | None:
    """What a path is that is no file, in words; none for a file, and for nothing at all."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            if not path.exists():
                return "a link to nothing"
            mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    kinds |= {"device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode)}
    return next((f"a {kind}" for kind, is_one in kinds.items() if is_one(mode)), None)


def no_such_file(option: str, path: str, also_known: Iterable[Path] = ()) -> str:
    """Says that a path is no file, or that there is none, with the name of the nearest one in its folder.

    Args:
        option: The option that names the file.
        path: What is no file.
        also_known: Files in other folders that may be meant.
    """
    if kind := kind_of(Path(path)):
        return f"{option}: expected a file, got {path}, which is {kind}; name a file"
    folder, name = Path(path).parent, Path(path).name
    try:
        beside = [file for file in folder.iterdir() if file.name != name]
    except OSError:  # no such folder, or one that may not be read
        beside = []
    hint = did_you_mean(name, (file.name for file in [*beside, *also_known]))
    return f"{option}: no such file: {path}{hint or '; check the path'}"
