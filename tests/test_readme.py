"""The snippets of the README run as they stand there, and the documents leave nothing out."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lightning_cgan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", snippet)
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), snippet.__dict__)


def test_there_are_snippets_and_every_file_exists() -> None:
    assert SNIPPETS
    for path in re.findall(r"(?:\]\(|src=\")((?!http|#)[^)\"]+)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:configs|scripts)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path


def test_table_of_options_is_complete() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    arguments = inspect.signature(lightning_cgan.ConditionalGAN.__init__).parameters
    options = arguments.keys() - {"self", "generator", "discriminator"}
    contracts = {"AdversarialLoss", "GradientPenalty", "Augmentation", "Generator", "Discriminator"}
    rooms = [f"lightning_cgan.{room}" for room in ("losses", "penalties", "augmentations", "networks")]
    classes = {name for room in rooms for name in lightning_cgan._HOMES[room]} - contracts
    classes -= {"AuxiliaryClassifier", "ConditionalDiscriminator"}  # the one is an option, the other a base
    assert [name for name in sorted(options | classes) if f"`{name}`" not in text] == []
