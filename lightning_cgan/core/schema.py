"""Compare nested values from a file with the structure that the program expects."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_cgan.core.errors import UsageError


def check_schema(
    expected: Any, got: Any, name: str, exact: bool = True, remedy: str = "it is damaged: take another"
) -> None:
    """Compares a nested value of a checkpoint with one that the program would write.

    Numbers match numbers, text matches text, tensors match tensors of the same shape, and containers match containers
    with matching contents and the same keys or length. An expected None or empty container matches any content.
    Entries that are expected to be off (None, False or empty) may be missing: older releases of PyTorch have fewer.
    With `exact`, whole numbers must be whole. The first difference raises a `UsageError` that ends with the remedy.
    """
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            if isinstance(key, str) and (key in got or not _is_off(value)):  # other keys are data, such as milestones
                check_schema(value, got.get(key), f"{name}.{key}", exact, remedy)
    elif isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        if expected and len(expected) != len(got):
            raise _refusal(name, f"{len(expected)} values", str(len(got)), remedy)
        for index, pair in enumerate(zip(expected, got, strict=False)):
            check_schema(*pair, f"{name}.{index}", exact, remedy)
    elif isinstance(expected, Tensor):
        is_number = expected.numel() == 1 and _are_alike(0.0, got, exact=False)
        if not is_number and (not isinstance(got, Tensor) or got.shape != expected.shape):
            raise _refusal(name, f"a tensor of shape {tuple(expected.shape)}", _described(got), remedy)
    elif expected is not None and not _are_alike(expected, got, exact):
        raise _refusal(name, f"a value such as {expected!r}", _described(got), remedy)


def _is_off(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (dict, list, tuple)) and not value)


def _are_alike(expected: Any, got: Any, exact: bool) -> bool:
    if isinstance(expected, bool):
        return got is None or isinstance(got, bool)
    if isinstance(expected, int) and exact:
        return isinstance(got, int) and 0 <= got < 2**63
    if isinstance(expected, (int, float)):
        return isinstance(got, (int, float)) and abs(got) < 2**63
    return isinstance(got, type(expected))


def _described(got: Any) -> str:
    return f"a tensor of shape {tuple(got.shape)}" if isinstance(got, Tensor) else repr(got)[:40]


def _refusal(name: str, expected: str, got: str, remedy: str) -> UsageError:
    return UsageError(f"the checkpoint: expected {expected} for {name}, got {got}; {remedy}")
