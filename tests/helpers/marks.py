"""Which of many alike tests run always, and which where they may take long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def ci_but_for(names: Iterable[str], *kept: str) -> list[Any]:
    """Parameters of a test, of which all but those that are kept have the marker `ci`."""
    names = list(names)
    assert set(kept) < set(names), f"expected some of {names}, got {kept}"
    return [name if name in kept else pytest.param(name, marks=pytest.mark.ci) for name in names]
