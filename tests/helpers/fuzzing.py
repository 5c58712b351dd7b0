"""How many inputs a reader is given, and what it must make of each."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings

from lightning_cgan import UsageError

fuzz = settings(
    max_examples=int(os.environ.get("FUZZED_INPUTS", "20")),
    derandomize="FUZZED_INPUTS" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
fuzz_a_little = settings(fuzz, max_examples=int(os.environ.get("FUZZED_INPUTS", "4")))  # where an input takes long


def check_reader(read: Callable[[], object]) -> None:
    """Runs a reader, which must read, or say in one line what is wrong."""
    try:
        read()
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017
