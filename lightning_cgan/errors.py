"""What a user did wrong, in one line."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class UsageError(ValueError):
    """A mistake that the user can mend.

    The message names the option as the user typed it, shows what was expected and what was got, and ends with the
    remedy. The command line prints it as one line, without a traceback, and ends with exit code 2.
    """


class TrainingError(RuntimeError):
    """A run that cannot go on, through nobody's mistake; the command line says so in one line, with exit code 1."""


class CaptureError(Exception):
    """An alternation does something that no graph can hold; nothing has been changed."""


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


def no_such_file(option: str, path: str, also_known: Iterable[Path] = ()) -> str:
    """Says that a file does not exist, with the name of the nearest one in its folder.

    Args:
        option: The option that names the file.
        path: The file that does not exist.
        also_known: Files in other folders that may be meant.
    """
    folder, name = Path(path).parent, Path(path).name
    beside = [file for file in folder.iterdir() if file.name != name] if folder.is_dir() else []  # a dead link has it
    hint = did_you_mean(name, (file.name for file in [*beside, *also_known]))
    return f"{option}: no such file: {path}{hint or '; check the path'}"
