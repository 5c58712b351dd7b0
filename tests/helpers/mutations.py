"""Ways to spoil what a reader is given: trees of plain values, and bytes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from hypothesis import strategies as st

# What somebody may write where something else belongs.
JUNK: list[Any] = [None, True, 0, -1, 3, 10**30, 0.5, float("nan"), float("inf"), "", "x", "null", "é\n", [], [1, "a"]]
JUNK += [{}, {"x": 1}, {"class_path": "DigitsData"}, {"class_path": "os.system", "init_args": {"command": "x"}}]
TENSORS = [torch.zeros(()), torch.full((3,), float("nan")), torch.zeros(2, 2, dtype=torch.int64)]


@st.composite
def spoilt_trees(draw: Callable[..., Any], tree: Any, junk: list[Any]) -> Any:
    """A nested value in which one to three places are taken away, renamed, doubled or replaced."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = _place(draw, tree)
        if parent is None:
            return draw(st.sampled_from(junk))
        action = draw(st.sampled_from(["take away", "rename", "replace", "replace"]))
        if action == "replace":
            parent[key] = deepcopy(draw(st.sampled_from(junk)))
        elif action == "rename" and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        else:
            del parent[key]
    return tree


def _place(draw: Callable[..., Any], tree: Any) -> tuple[Any, Any]:
    """A container and one of its keys, not deeper than is likely to matter."""
    parent, key = None, None
    while isinstance(tree, (dict, list)) and tree:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        parent, key = tree, draw(st.sampled_from(keys))
        tree = parent[key]
        if draw(st.integers(0, 4)) == 0:
            break
    return parent, key


@st.composite
def spoilt_bytes(draw: Callable[..., Any], whole: bytes) -> bytes:
    """Bytes that are cut off, filled in, exchanged or flipped at one to four places; more often at the beginning."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.integers(0, min(64, len(data))))
        place = draw(st.one_of(st.just(near), st.integers(0, len(data))))
        action = draw(st.sampled_from(["cut", "fill in", "overwrite", "flip"]))
        if action == "cut":
            del data[place : place + draw(st.sampled_from([1, 16, len(data)]))]
        elif action == "fill in":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif action == "overwrite":
            new = draw(st.binary(min_size=1, max_size=8))
            data[place : place + len(new)] = new
        elif place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)
