"""The examples in the docstrings of public classes run as they stand; `torch` and all public names are imported."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
import torch

import lightning_cgan

CLASSES = [name for name in lightning_cgan.__all__ if inspect.isclass(getattr(lightning_cgan, name))]
FUNCTIONS = ["initialize_from"]
ABSTRACT = {"UsageError"}  # nothing to show that a message does not


@pytest.mark.parametrize("name", sorted({*CLASSES, *FUNCTIONS} - ABSTRACT))
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    cls = getattr(lightning_cgan, name)
    public = {public: getattr(lightning_cgan, public) for public in lightning_cgan.__all__}
    (example,) = doctest.DocTestFinder(recurse=False).find(cls, name, globs={"torch": torch, **public})
    assert example.examples, f"{name} has no Example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)
