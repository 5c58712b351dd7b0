"""The pieces of code on a page of the documentation, as a reader would use them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def write_modules(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes those snippets that begin with the name of a file, as a reader would."""
    monkeypatch.syspath_prepend(str(folder))
    for snippet in [*blocks(page, "python"), *blocks(page, "yaml")]:
        if named := re.match(r"# (\w+)\.(py|yaml)\n", snippet):
            (folder / f"{named[1]}.{named[2]}").write_text(snippet)
            monkeypatch.delitem(sys.modules, named[1], raising=False)


def run_snippet(page: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a snippet, counted from 0, and returns the names that it has defined."""
    snippet = ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", snippet)
    exec(compile(blocks(page, "python")[number], f"{page.name}, snippet {number + 1}", "exec"), snippet.__dict__)
    return snippet.__dict__
