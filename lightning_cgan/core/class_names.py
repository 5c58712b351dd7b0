"""Check and escape class names, which come from untrusted folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lightning_cgan.core.errors import UsageError, printable


def check_names(where: str, names: Iterable[str]) -> None:
    """Raises `UsageError` for names, from `where`, that cannot be written: with NUL, or surrogates of invalid UTF-8."""
    for name in names:
        if re.search("[\0\ud800-\udfff]", name):
            expected = "expected class names in UTF-8, without NUL"
            raise UsageError(f"{where}: {expected}, got {printable(name, 60)}; rename that class")


def in_markdown(text: object, limit: int = 80) -> str:
    """Escapes untrusted text for Markdown, so that it stays plain text within its line and table cell."""
    shown = printable(" ".join(str(text).split()), limit)
    # A numeric character reference is literal: it cannot start a link, image, tag, code or formula.
    return re.sub(r"[^\w \-/,…]|_", lambda found: f"&#{ord(found[0])};", shown)
