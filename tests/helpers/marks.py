"""Which of many alike tests run always, and which where they may take long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def ci_but_for(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test, of which all but those that are kept have the marker `ci`."""
    values = list(values)
    assert 0 < len([value for value in values if value in kept]) == len(kept) < len(values), (values, kept)
    return [value if value in kept else pytest.param(value, marks=pytest.mark.ci) for value in values]
