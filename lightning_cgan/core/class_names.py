"""Check and escape class names, which come from untrusted folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightning_cgan.core.errors import UsageError, printable


def check_names(where: str, names: Iterable[str]) -> None:
    """Raises `UsageError` for names, from `where`, that cannot be written: with NUL, or surrogates of invalid UTF-8."""
    for name in names:
        if re.search("[\0\ud800-\udfff]", name):
            expected = "expected class names in UTF-8, without NUL"
            raise UsageError(f"{where}: {expected}, got {printable(name, 60)}; rename that class")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns different names in numerical order if all are whole numbers, else in alphabetical order."""
    names = sorted(set(names))
    are_numbers = all(re.fullmatch("-?[0-9]{1,18}", name) for name in names)
    return tuple(sorted(names, key=int) if are_numbers else names)


def usable_names(where: str, names: Any, count: int) -> tuple[str, ...] | None:
    """Returns `names` if they name that many classes, else None; see `check_names`."""
    if not isinstance(names, (list, tuple)) or len(names) != count:
        return None
    if not all(isinstance(name, str) and name for name in names):
        return None
    check_names(where, names)
    return tuple(names)


def in_markdown(text: object, limit: int = 80) -> str:
    """Escapes untrusted text for Markdown, so that it stays plain text within its line and table cell."""
    shown = printable(" ".join(str(text).split()), limit)
    # A numeric character reference is literal: it cannot start a link, image, tag, code or formula.
    return re.sub(r"[^\w \-/,…]|_", lambda found: f"&#{ord(found[0])};", shown)
