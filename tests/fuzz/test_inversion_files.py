"""Whatever arrays `invert` and `generate --latents` are given, they read them or say in one line what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import check_reader, fuzz
from helpers.mutations import JUNK, spoilt_bytes, spoilt_trees
from lightning_cgan.cli.latents_file import read_latents
from lightning_cgan.core.classes import find_classes
from lightning_cgan.data.given_images import read_given
from lightning_cgan.export.metadata import ExportMetadata

NAMES = ("cat", "dog")
LATENTS = {"latents": np.zeros((3, 4), np.float32), "labels": np.arange(3) % 2, "class_names": np.array(NAMES)}
IMAGES = {"images": np.zeros((3, 4, 5), np.uint8), "labels": np.arange(3) % 2, "class_names": np.array(NAMES)}
ODD = [
    *JUNK,
    np.zeros(3),
    np.full(3, 2**40),
    np.full(3, -1),
    np.zeros((0, 4), np.float32),
    np.full((3, 4), np.nan, np.float32),
    np.zeros((3, 4, 4, 3), np.uint8),
    np.array(["cat", "dog", "x"]),
    np.array(["cat"]),
]


def save(data: st.DataObject, arrays: dict[str, np.ndarray]) -> None:
    """Writes `spoilt.npz`, in which some of the arrays, or some bytes, are others."""
    tree: Any = data.draw(spoilt_trees(dict(arrays), ODD))
    tree = tree if isinstance(tree, dict) else {"x": tree}
    whole = {
        str(name): np.array(value, dtype=object if isinstance(value, list) else None) for name, value in tree.items()
    }
    np.savez("spoilt.npz", **whole)
    if data.draw(st.integers(0, 2)) == 0:
        with open("spoilt.npz", "rb") as file:
            content = data.draw(spoilt_bytes(file.read()))
        with open("spoilt.npz", "wb") as file:
            file.write(content)


@given(data=st.data())
@fuzz
def test_files_of_latents(data: st.DataObject) -> None:
    save(data, LATENTS)
    metadata = ExportMetadata(NAMES, 4, 1, 8, "normal", "0")
    check_reader(lambda: read_latents("spoilt.npz", metadata))


@given(data=st.data())
@fuzz
def test_arrays_of_images(data: st.DataObject) -> None:
    save(data, IMAGES)

    def read() -> None:
        given_images = read_given(["spoilt.npz"], data.draw(st.sampled_from([1, 3])), 8)
        assert len(given_images.names) == len(given_images.images) == len(given_images.labels)
        find_classes([label for label in given_images.labels if label is not None], NAMES, "images")

    check_reader(read)
