"""The command `generate`: makes images of chosen classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_cgan.cli.latents_file import check_latents_path, read_latents
from lightning_cgan.cli.walk import (
    Stop,
    Walk,
    check_gif_size,
    check_mixes,
    given_stops,
    sampled_stops,
    walk_pictures,
    write_gif,
)
from lightning_cgan.core.classes import Classes, chosen_classes
from lightning_cgan.core.errors import UsageError, check_positive, check_seed, check_truncation, writing
from lightning_cgan.core.files import write_atomic, write_atomic_folder
from lightning_cgan.core.images import (
    BitDepth,
    array_from_pixels,
    check_bit_depth,
    grid,
    image_suffix,
    pixels_from_signed,
    save_image,
    save_png,
)
from lightning_cgan.core.npz import save_arrays
from lightning_cgan.core.output_paths import check_output_path, folders_of_classes
from lightning_cgan.export.source import Source, load_source
from lightning_cgan.networks.latents import LatentSampler

_SUFFIXES = (".png", ".npz", ".gif")
_COUNT = 8  # images per class
_COLUMNS = 8  # of a sheet without a row per class


def generate(
    source: str,
    labels: Classes | None = None,
    count: int | None = None,
    out: str = "generated.png",
    seed: int | None = None,
    ema: bool = True,
    truncation: float | None = None,
    latents: str | None = None,
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
        count: The number of images per class; 8 if not given.
        out: The path to write. A name in `.png` is a sheet with a row per class, one in `.npz` contains arrays
            (`images`, (N, H, W) or (N, H, W, C), `labels` and `class_names`), one in `.gif` is a walk. Any other name
            is a folder with a folder of files per class, as torchvision's `ImageFolder` reads them: PNG, or TIFF with a
            page per channel for images that are neither gray nor coloured.
        seed: Different seeds give different images; 0 if not given.
        ema: Whether to use the moving average of the generator's weights, if the checkpoint has one; `--no_ema` turns
            it off.
        truncation: The largest distance of a latent from 0. Smaller values give more typical and less varied images
            (Brock et al. 2019, arXiv:1809.11096, section 3.1).
        latents: A `latents.npz` that `invert` wrote, to use its latents instead of sampled ones: each as the class that
            belongs to it, or, with `labels`, as each of these. A walk goes from each to the next.
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
    if latents is not None:
        _check_alone(count=count, seed=seed, truncation=truncation)
        check_latents_path(latents)
    generator = load_source(source, imports, device, ema)
    if bit_depth == 16:
        _check_16_bits(path, walk, generator.metadata.image_channels)
    chosen = chosen_classes(labels, generator.metadata.class_names, "--labels")
    if walk is not None:
        check_mixes(generator, walk)
    if latents is None:
        plan = _of_samples(generator, chosen, count or _COUNT, LatentSampler(seed or 0, truncation), walk)
    else:
        plan = _of_file(generator, chosen, latents, labels is None, walk)
    if walk is not None:
        shape, option = generator.metadata.image_shape, "--count" if latents is None else "--latents"
        check_gif_size(len(plan.stops[0][0]) // plan.columns, plan.columns, shape, option)
        pictures = list(walk_pictures(generator, plan.stops, frames, plan.columns))
        with writing("--out", path):
            write_gif(pictures, path)
    else:
        images = torch.cat([generator.make(*part) for part in plan.parts])
        with writing("--out", path):
            _write(images, plan, generator.metadata.class_names, path, bit_depth)
    total, present = len(plan.labels), plan.labels.unique().tolist()
    classes = f"{len(present):,} classes" if len(present) > 1 else generator.metadata.class_names[present[0]]
    print(f"{total:,} {'image' if total == 1 else 'images'} of {classes}: {path}")


@dataclass(frozen=True)
class _Plan:
    """What to make.

    Attributes:
        parts: Labels (N,) and latents (N, latent_dim) of images, one after another.
        stops: Those of a walk, if there is one.
        columns: Of a picture.
    """

    parts: Sequence[Stop]
    stops: Sequence[Stop]
    columns: int

    @property
    def labels(self) -> Tensor:
        """The class numbers of all images."""
        return torch.cat([labels for labels, _ in self.parts])


def _of_samples(
    generator: Source, chosen: Sequence[int], count: int, sampler: LatentSampler, walk: Walk | None
) -> _Plan:
    """The first images of each class."""
    sample = generator.metadata.sample_latents
    parts = [(torch.full((count,), label), sample(label, count, sampler)) for label in chosen]
    stops = sampled_stops(generator, chosen, count, sampler, walk) if walk is not None else []
    return _Plan(parts, stops, count)


def _of_file(generator: Source, chosen: Sequence[int], file: str, keeps_labels: bool, walk: Walk | None) -> _Plan:
    """The latents of a file: each as the class that belongs to it, or as each chosen class."""
    latents, labels = read_latents(file, generator.metadata)
    keeps_labels = keeps_labels and walk != "classes"
    stops = given_stops(generator, chosen, labels if keeps_labels else None, latents, walk) if walk is not None else []
    if keeps_labels:
        parts, columns = [(labels, latents)], min(_COLUMNS, len(latents))
    else:
        parts, columns = [(torch.full_like(labels, label), latents) for label in chosen], len(latents)
    return _Plan(parts, stops, 1 if walk == "latents" else columns)


def _check_output_path(path: Path, walk: Walk | None, overwrite: bool) -> None:
    if (walk is not None) != (path.suffix.lower() == ".gif") and path.name:
        raise UsageError(f"--out: expected a name in .gif with --walk, and another one without, got {path}; change one")
    check_output_path(
        path, path.suffix.lower() not in _SUFFIXES, overwrite, _is_class_folder, "class folders of images"
    )


def _is_class_folder(path: Path) -> bool:
    return path.is_dir() and all(re.fullmatch(r"\d+\.(png|tif)", file.name) for file in path.iterdir())


def _check_16_bits(path: Path, walk: Walk | None, channels: int) -> None:
    if walk is not None or path.suffix.lower() == ".png":
        raise UsageError(f"--bit_depth: expected 8 for a picture, got 16; name a folder or a file in .npz, not {path}")
    if path.suffix.lower() != ".npz":
        check_bit_depth("--bit_depth", 16, channels)


def _check_alone(**options: float | None) -> None:
    """Refuses options of sampling where latents are given."""
    for option, value in options.items():
        if value is not None:
            expected = f"expected no --{option} with --latents, which are taken as they are"
            raise UsageError(f"--{option}: {expected}, got {value}; omit one of them")


def _write(images: Tensor, plan: _Plan, class_names: Sequence[str], path: Path, bit_depth: BitDepth) -> None:
    if path.suffix.lower() == ".png":
        sheet = grid(images, plan.columns)
        write_atomic(path, lambda file: save_png(sheet, file))
    elif path.suffix.lower() == ".npz":
        values = array_from_pixels(pixels_from_signed(images, bit_depth).permute(0, 2, 3, 1))
        arrays = {
            "images": values[..., 0] if values.shape[-1] == 1 else values,
            "labels": plan.labels.numpy(),
            "class_names": np.array(class_names),
        }
        write_atomic(path, lambda file: save_arrays(arrays, file))
    else:
        write_atomic_folder(
            path, lambda folder: _fill(folder, pixels_from_signed(images, bit_depth), plan.labels, class_names)
        )


def _fill(folder: Path, images: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
    folders = folders_of_classes(folder, class_names)
    written = Counter[int]()
    for label, image in zip(labels.tolist(), images, strict=True):
        save_image(image, folders[label] / f"{written[label]:05d}{image_suffix(len(image))}")
        written[label] += 1
