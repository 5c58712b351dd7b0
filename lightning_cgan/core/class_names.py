"""Names of classes, which may come from anybody's folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lightning_cgan.core.errors import UsageError, printable


def check_names(where: str, names: Iterable[str]) -> None:
    """Refuses names that no file can hold: with NUL, or with half a character, as bytes that are no UTF-8 give.

    Args:
        where: Where they stand, for the message.
        names: The names.

    Raises:
        UsageError: A name is such.
    """
    for name in names:
        if re.search("[\0\ud800-\udfff]", name):
            expected = "expected names of classes that are UTF-8, without NUL"
            raise UsageError(f"{where}: {expected}, got {printable(name, 60)}; give that class another name")


def in_markdown(text: object, limit: int = 80) -> str:
    """A text of others' that is nothing but text on a page of Markdown, and stays within its line and its cell.

    Args:
        text: The text.
        limit: The most characters of it that are shown.
    """
    shown = printable(" ".join(str(text).split()), limit)
    # As a number, a sign means itself: no link, picture, tag, code or formula begins with it.
    return re.sub(r"[^\w \-/,…]|_", lambda found: f"&#{ord(found[0])};", shown)
