"""The snippets of the README run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", snippet)
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), snippet.__dict__)


def test_there_are_snippets_and_every_file_exists() -> None:
    assert SNIPPETS
    for path in re.findall(r"(?:\]\(|src=\")((?!http|#)[^)\"]+)", README):
        assert (Path(__file__).parent.parent / path).exists(), path
    for path in re.findall(r"(?:configs|scripts)/[\w/]+\.\w+", README):
        assert (Path(__file__).parent.parent / path).exists(), path
