"""The examples in the docstrings of public classes are what a reader would see."""

from __future__ import annotations

import doctest
import inspect
import sys
from pathlib import Path

import pytest

import lightning_cgan

CLASSES = [name for name in lightning_cgan.__all__ if inspect.isclass(getattr(lightning_cgan, name))]
ABSTRACT = {"UsageError"}  # nothing to show that a message does not


@pytest.mark.parametrize("name", sorted(set(CLASSES) - ABSTRACT))
def test_the_example_of_a_class_runs(name: str, tmp_path: Path) -> None:
    cls = getattr(lightning_cgan, name)
    module = sys.modules[cls.__module__]
    (example,) = doctest.DocTestFinder(recurse=False).find(
        cls, name, module, globs={**vars(module), **vars(lightning_cgan)}
    )
    assert example.examples, f"{name} has no Example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)
