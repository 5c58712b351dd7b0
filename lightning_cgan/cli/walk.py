"""Walks: images that change from one set of labels and latents to the next, as a GIF that ends where it began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.files import write_atomic
from lightning_cgan.core.images import LARGEST_SIDE, cell_size, grid, pil_image, save_gif
from lightning_cgan.export.source import Source
from lightning_cgan.networks.latents import LatentSampler, slerp

Walk = Literal["latents", "classes"]
Stop = tuple[Tensor, Tensor]  # labels, (N,) or mixtures of classes (N, num_classes), and latents, (N, latent_dim)

_STOPS = 4  # sets of sampled latents
_FRAMES_PER_SECOND = 24


def check_mixes(source: Source, walk: Walk) -> None:
    """Raises `UsageError` for a walk between classes if the source is an ONNX file."""
    if walk == "classes" and not source.mixes:
        expected = "expected latents, since an ONNX file does not mix classes"
        raise UsageError(f"--walk: {expected}, got classes; name a checkpoint or a folder")


def sampled_stops(source: Source, chosen: Sequence[int], count: int, sampler: LatentSampler, walk: Walk) -> list[Stop]:
    """The stops of a walk of the first images of classes, with a row per class, or one row from class to class."""
    metadata = source.metadata

    def sample(classes: Sequence[int], stop: int = 0) -> Tensor:
        return sampler.first(classes, count, metadata.latent_dim, metadata.latents, stop)

    if walk == "classes":
        return _from_class_to_class(source, chosen, sample(chosen[:1]))
    labels = torch.tensor(chosen).repeat_interleave(count)
    return [(labels, sample(chosen, stop)) for stop in range(_STOPS)]


def given_stops(
    source: Source, chosen: Sequence[int], labels: Tensor | None, latents: Tensor, walk: Walk
) -> list[Stop]:
    """The stops of a walk between given latents (N, latent_dim) in order; `labels` (N,) if each is of its own class.

    A walk between latents has one column, and a row for each chosen class unless there are labels.
    """
    if walk == "classes":
        return _from_class_to_class(source, chosen, latents)
    if len(latents) < 2:
        raise UsageError("--walk: expected two or more latents to walk between, got 1; invert more images")
    if labels is None:
        every = torch.tensor(chosen)
        return [(every, latent.expand(len(chosen), -1)) for latent in latents]
    present = [source.metadata.class_names[label] for label in labels.unique().tolist()]
    if len(present) == 1:
        return [(labels[:1], latent[None]) for latent in latents]
    if not source.mixes:
        expected = "expected latents of one class, since an ONNX file does not mix classes"
        raise UsageError(f"--walk: {expected}, got those of {', '.join(present)}; name classes with --labels")
    codes = torch.eye(len(source.metadata.class_names))[labels]
    return [(code[None], latent[None]) for code, latent in zip(codes, latents, strict=True)]


def _from_class_to_class(source: Source, chosen: Sequence[int], latents: Tensor) -> list[Stop]:
    codes = torch.eye(len(source.metadata.class_names))
    return [(codes[label].expand(len(latents), -1), latents) for label in chosen]


def walk_pictures(source: Source, stops: Sequence[Stop], frames: int, columns: int) -> Iterator[Tensor]:
    """The frames of a walk that ends where it began, uint8, (3, H, W)."""
    for place, (labels, latents) in enumerate(stops):
        next_labels, next_latents = stops[(place + 1) % len(stops)]
        for part in (frame / frames for frame in range(frames)):
            between = torch.lerp(labels, next_labels, part) if labels.is_floating_point() else labels
            is_fixed = latents is next_latents
            yield grid(source.make(between, latents if is_fixed else slerp(latents, next_latents, part)), columns)


def check_gif_size(rows: int, columns: int, image_shape: Sequence[int], option_of_columns: str = "--count") -> None:
    """Raises `UsageError` if so many images, of shape (C, H, W), do not fit into a GIF."""
    height, width = cell_size(image_shape)
    for option, number, side, things in (
        ("--labels", rows, height, "classes"),
        (option_of_columns, columns, width, "images of each class"),
    ):
        most = LARGEST_SIDE // side
        if number > most:
            expected = f"expected at most {most:,} {things}, as many as a GIF can hold"
            raise UsageError(f"{option}: {expected}, got {number:,}; choose fewer")


def write_gif(pictures: Sequence[Tensor], path: Path) -> None:
    """Writes the frames of a walk."""
    frames = [pil_image(picture).convert("P", palette=Image.Palette.ADAPTIVE) for picture in pictures]
    write_atomic(path, lambda file: save_gif(frames, file, 1 / _FRAMES_PER_SECOND))
