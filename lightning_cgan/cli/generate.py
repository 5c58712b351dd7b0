"""The command `generate`: makes images of chosen classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_cgan.core.classes import Classes, chosen_classes
from lightning_cgan.core.errors import UsageError, check_positive, check_seed, check_truncation, writing
from lightning_cgan.core.files import write_atomic, write_atomic_folder
from lightning_cgan.core.images import (
    LARGEST_SIDE,
    BitDepth,
    array_from_pixels,
    cell_size,
    check_bit_depth,
    grid,
    image_suffix,
    pil_image,
    pixels_from_signed,
    save_gif,
    save_image,
    save_png,
)
from lightning_cgan.core.output_paths import check_output_path, folders_of_classes
from lightning_cgan.export.source import Source, load_source
from lightning_cgan.networks.latents import LatentSampler, slerp

Walk = Literal["latents", "classes"]

_SUFFIXES = (".png", ".npz", ".gif")
_STOPS = 4  # sets of latents in a walk, which returns to the first
_FRAMES_PER_SECOND = 24


def generate(
    source: str,
    labels: Classes | None = None,
    count: int = 8,
    out: str = "generated.png",
    seed: int = 0,
    ema: bool = True,
    truncation: float | None = None,
    walk: Walk | None = None,
    frames: int = 24,
    overwrite: bool = False,
    imports: str | None = None,
    device: str = "auto",
    bit_depth: BitDepth = 8,
) -> None:
    """Makes images of chosen classes.

    An image depends only on the seed, its class and its number within the class, not on the other images.

    Args:
        source: A checkpoint of a run, a folder or ONNX file written by `export`, or the name of a generator that comes
            with the package: `mnist`, `fashion_mnist` or `digits`.
        labels: The classes, by name or by number, such as `0-3,7` or `Bag,Sandal`, or as a list, `["Bag", 7]`; all if
            not given.
        count: The number of images per class.
        out: The path to write. A name in `.png` is a sheet with a row per class, one in `.npz` contains arrays
            (`images`, (N, H, W) or (N, H, W, C), `labels` and `class_names`), one in `.gif` is a walk. Any other name
            is a folder with a folder of files per class, as torchvision's `ImageFolder` reads them: PNG, or TIFF with a
            page per channel for images that are neither gray nor coloured.
        seed: Different seeds give different images.
        ema: Whether to use the moving average of the generator's weights, if the checkpoint has one; `--no_ema` turns
            it off.
        truncation: The largest distance of a latent from 0. Smaller values give more typical and less varied images
            (Brock et al. 2019, arXiv:1809.11096, section 3.1).
        walk: `latents` interpolates between latents, with a row per class; `classes` interpolates between classes, with
            the same latents.
        frames: The number of frames from one stop of a walk to the next; 24 are shown per second.
        overwrite: Whether to replace an existing file or folder; `--overwrite` turns it on.
        imports: Modules of custom networks in the source to import first, separated by commas. Loading a source imports
            nothing by itself, since that would run code.
        device: The device of the generator: `cpu`, `cuda`, …, or `auto`.
        bit_depth: How many bits each pixel has in arrays and in the files of a folder; files of 16 bits hold no
            colours.
    """
    for option, number in (("--count", count), ("--frames", frames)):
        check_positive(option, number)
    check_truncation("--truncation", truncation)
    check_seed("--seed", seed)
    path = Path(out)
    _check_output_path(path, walk, overwrite)
    generator = load_source(source, imports, device, ema)
    metadata = generator.metadata
    if bit_depth == 16:
        _check_16_bits(path, walk, metadata.image_channels)
    chosen = chosen_classes(labels, metadata.class_names, "--labels")
    latent_sampler = LatentSampler(seed, truncation)
    if walk is not None:
        if walk == "classes" and not generator.mixes:
            expected = "expected latents, since an ONNX file does not mix classes"
            raise UsageError(f"--walk: {expected}, got classes; name a checkpoint or a folder")
        _check_gif_size(len(chosen) if walk == "latents" else 1, count, metadata.image_shape)
        grids = list(_walk(generator, chosen, count, latent_sampler, walk, frames))
        with writing("--out", path):
            _write_gif(grids, path)
    else:
        images = [generator.first_images(label, count, latent_sampler) for label in chosen]
        with writing("--out", path):
            _write(images, chosen, metadata.class_names, path, bit_depth)
    total = count * len(chosen)
    classes = f"{len(chosen):,} classes" if len(chosen) > 1 else metadata.class_names[chosen[0]]
    print(f"{total:,} {'image' if total == 1 else 'images'} of {classes}: {path}")


def _sample(
    generator: Source, chosen: Sequence[int], count: int, latent_sampler: LatentSampler, variant: int = 0
) -> Tensor:
    """The latents of the first images of some classes, shape (classes × count, latent_dim)."""
    metadata = generator.metadata
    return latent_sampler.first(chosen, count, metadata.latent_dim, metadata.latents, variant)


def _walk(
    generator: Source, chosen: Sequence[int], count: int, latent_sampler: LatentSampler, walk: Walk, frames: int
) -> Iterator[Tensor]:
    """The frames of a walk that ends where it began, uint8, (3, H, W)."""
    if walk == "latents":
        stops = [_sample(generator, chosen, count, latent_sampler, stop) for stop in range(_STOPS)]
        labels = torch.tensor(chosen).repeat_interleave(count)
        inputs = ((labels, slerp(*pair, part)) for pair, part in _steps(stops, frames))
    else:
        latents = _sample(generator, chosen[:1], count, latent_sampler)
        codes = [torch.eye(len(generator.metadata.class_names))[label].expand(count, -1) for label in chosen]
        inputs = ((torch.lerp(*pair, part), latents) for pair, part in _steps(codes, frames))
    for label, latent in inputs:
        yield grid(generator.make(label, latent), columns=count)


def _steps(stops: Sequence[Tensor], frames: int) -> Iterator[tuple[tuple[Tensor, Tensor], float]]:
    for i, stop in enumerate(stops):
        for frame in range(frames):
            yield (stop, stops[(i + 1) % len(stops)]), frame / frames


def _check_output_path(path: Path, walk: Walk | None, overwrite: bool) -> None:
    if (walk is not None) != (path.suffix.lower() == ".gif") and path.name:
        raise UsageError(f"--out: expected a name in .gif with --walk, and another one without, got {path}; change one")
    check_output_path(
        path, path.suffix.lower() not in _SUFFIXES, overwrite, _is_class_folder, "class folders of images"
    )


def _check_16_bits(path: Path, walk: Walk | None, channels: int) -> None:
    if walk is not None or path.suffix.lower() == ".png":
        raise UsageError(f"--bit_depth: expected 8 for a picture, got 16; name a folder or a file in .npz, not {path}")
    if path.suffix.lower() != ".npz":
        check_bit_depth("--bit_depth", 16, channels)


def _check_gif_size(rows: int, columns: int, image_shape: Sequence[int]) -> None:
    height, width = cell_size(image_shape)
    for option, number, side, things in (
        ("--labels", rows, height, "classes"),
        ("--count", columns, width, "images of each class"),
    ):
        most = LARGEST_SIDE // side
        if number > most:
            expected = f"expected at most {most:,} {things}, as many as a GIF can hold"
            raise UsageError(f"{option}: {expected}, got {number:,}; choose fewer")


def _is_class_folder(path: Path) -> bool:
    return path.is_dir() and all(re.fullmatch(r"\d+\.(png|tif)", file.name) for file in path.iterdir())


def _write(
    images: Sequence[Tensor], chosen: Sequence[int], class_names: Sequence[str], path: Path, bit_depth: BitDepth
) -> None:
    if path.suffix.lower() == ".png":
        sheet = grid(torch.cat(list(images)), columns=len(images[0]))
        write_atomic(path, lambda file: save_png(sheet, file))
    elif path.suffix.lower() == ".npz":
        pixels = array_from_pixels(pixels_from_signed(torch.cat(list(images)), bit_depth).permute(0, 2, 3, 1))
        arrays = {
            "images": pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
            "labels": np.repeat(np.array(chosen), [len(part) for part in images]),
            "class_names": np.array(class_names),
        }
        write_atomic(path, lambda file: _save_arrays(arrays, file))
    else:
        write_atomic_folder(path, lambda folder: _fill(folder, images, chosen, class_names, bit_depth))


def _fill(
    folder: Path, images: Sequence[Tensor], chosen: Sequence[int], class_names: Sequence[str], bit_depth: BitDepth
) -> None:
    folders = folders_of_classes(folder, class_names)
    for label, part in zip(chosen, images, strict=True):
        for number, image in enumerate(pixels_from_signed(part, bit_depth)):
            save_image(image, folders[label] / f"{number:05d}{image_suffix(len(image))}")


def _save_arrays(arrays: dict[str, np.ndarray], file: Path) -> None:
    with file.open("wb") as stream:  # given a path, NumPy would add a suffix
        np.savez_compressed(stream, **cast("dict[str, Any]", arrays))


def _write_gif(grids: Sequence[Tensor], path: Path) -> None:
    frames = [pil_image(picture).convert("P", palette=Image.Palette.ADAPTIVE) for picture in grids]
    write_atomic(path, lambda file: save_gif(frames, file, 1 / _FRAMES_PER_SECOND))
