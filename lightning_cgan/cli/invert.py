"""The command `invert`: finds the latents whose images are nearest to given ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cgan.cli.reference_images import reference_images
from lightning_cgan.core.classes import Classes, find_classes
from lightning_cgan.core.errors import UsageError, check_positive, check_seed, no_such_file, printable, writing
from lightning_cgan.core.files import write_atomic_folder
from lightning_cgan.core.images import grid, save_png
from lightning_cgan.core.npz import save_arrays
from lightning_cgan.core.output_paths import check_output_path
from lightning_cgan.core.rng import INVERSION, rng_at
from lightning_cgan.export.source import Source, load_source
from lightning_cgan.networks.inversion import Inversion, pixel_errors
from lightning_cgan.networks.latents import sample_latents

_FILES = ("latents.npz", "sheet.png", "inversion.json")
_IMAGES = 16  # that are searched before their lines are printed
_PAIRS = 256  # of generated images, from which follows what is out of reach
_OF_PAIRS = 3  # their random stream
_LEVELS = 127.5  # of 255, per unit of an error


def invert(
    source: str,
    images: list[str],
    labels: Classes | None = None,
    out: str = "inverted",
    steps: int = 300,
    restarts: int = 4,
    reference: int = 8,
    seed: int = 0,
    ema: bool = True,
    overwrite: bool = False,
    imports: str | None = None,
    device: str = "auto",
) -> None:
    """Finds the latents whose generated images are nearest to given images.

    `generate SOURCE --latents inverted/latents.npz` makes images of them, also as other classes or as a walk. The
    result for an image depends on the image, its label and the seed, not on the other images.

    Args:
        source: A checkpoint of a run, a folder written by `export`, or the name of a generator that comes with the
            package: `mnist`, `fashion_mnist` or `digits`.
        images: Image files, folders of them, and `.npz` files with the array `images` and, optionally, `labels` and
            `class_names`. Images are converted to gray or colour, resized and cropped as training images are.
        labels: The classes, by name or by number: one for all images, or one for each in order. If not given, those of
            an `.npz` file; else they are found: of the three classes with the nearest samples, the one with the
            smallest error.
        out: The folder to write: `latents.npz`, `sheet.png` (given, found, and the difference, gray where there is
            none) and `inversion.json` with the errors. An error is the root mean square over pixels in [-1, 1].
        steps: The number of steps of the search.
        restarts: The number of samples from which it starts, in each class.
        reference: The number of reference images whose errors are reported, too: held-out images of the validation
            split, if the checkpoint is in the folder of its run and its data can be read, else images that the
            generator makes. 0 turns it off.
        seed: Of the samples from which the search starts.
        ema: Whether to use the moving average of the generator's weights, if the checkpoint has one; `--no_ema` turns
            it off.
        overwrite: Whether to replace an existing folder; `--overwrite` turns it on.
        imports: Modules of custom networks and data in the source to import first, separated by commas. Loading a
            source imports nothing by itself, since that would run code.
        device: The device of the generator: `cpu`, `cuda`, …, or `auto`.
    """
    for option, number in (("--steps", steps), ("--restarts", restarts)):
        check_positive(option, number)
    if reference < 0:
        raise UsageError(f"--reference: expected 0 or more, got {reference}; 0 turns it off")
    check_seed("--seed", seed)
    path = Path(out)
    check_output_path(path, True, overwrite, lambda child: child.name in _FILES, "what invert writes")
    _check_exist(images)
    opened = load_source(source, imports, device, ema)
    if opened.sampler is None:
        expected = "expected a checkpoint or a folder, since an ONNX file has no gradients"
        raise UsageError(f"source: {expected}, got {source}; name what it was exported from")
    given = _read(images, labels, opened)
    search = _Search(opened, steps, restarts, seed, ema)
    compared = search.compare(reference) if reference else None
    limit = _limit(opened, seed)
    found = search.find(given, limit)
    options = {"source": source, "averaged weights": ema, "steps": steps, "restarts": restarts, "seed": seed}
    report = {**options, **_in_report(given, found, compared, limit, opened.metadata.class_names)}
    with writing("--out", path):
        write_atomic_folder(path, lambda folder: _write(folder, given, found, report, opened.metadata.class_names))
    beyond = int((found.errors > limit).sum())
    total = f"{len(given.names):,} {'image' if len(given.names) == 1 else 'images'}"
    reach = f", {beyond:,} out of reach (above {limit:.3f})" if beyond else ""
    print(f"{total}, {_in_words(found.errors)}{reach}: {path}")


def _check_exist(paths: Sequence[str]) -> None:
    for path in paths:
        if not (Path(path).is_file() or Path(path).is_dir()):
            raise UsageError(no_such_file("images", path))


@dataclass(frozen=True)
class _Given:
    """Images (N, C, H, W) in [-1, 1], what they are called, and their class numbers, -1 where not known, (N,)."""

    names: tuple[str, ...]
    images: Tensor
    labels: Tensor


def _read(paths: Sequence[str], labels: Classes | None, source: Source) -> _Given:
    from lightning_cgan.data.given_images import read_given  # imports Lightning, for which mistakes need not wait

    class_names = source.metadata.class_names
    wanted = None if labels is None else find_classes(labels, class_names, "--labels")
    read = read_given(paths, source.metadata.image_channels, source.metadata.image_size)
    if wanted is None:
        numbers = [-1 if label is None else find_classes([label], class_names, "images")[0] for label in read.labels]
    elif len(wanted) in (1, len(read.names)):
        numbers = wanted if len(wanted) > 1 else wanted * len(read.names)
    else:
        expected = f"expected one class, or one for each of {len(read.names):,} images"
        raise UsageError(f"--labels: {expected}, got {len(wanted):,}; give as many, or omit them to have them found")
    return _Given(read.names, read.images, torch.tensor(numbers))


@dataclass(frozen=True)
class _Reference:
    what: str
    errors: Tensor


@dataclass(frozen=True)
class _Search:
    """The search of a generator's latents, with the options of the command."""

    source: Source
    steps: int
    restarts: int
    seed: int
    ema: bool

    def compare(self, count: int) -> _Reference:
        """The errors of reference images, which it prints."""
        what, images, labels = reference_images(self.source, count, self.seed)
        errors = torch.cat([self._invert(*part)[2] for part in _parts(images, labels)])
        print(f"reference: {what}: {_in_words(errors)}", flush=True)
        return _Reference(what, errors)

    def find(self, given: _Given, limit: float) -> Inversion:
        """Finds all images, and prints a line about each when it is found."""
        names, latents, labels = iter(given.names), [], []
        for images, wanted in _parts(given.images, given.labels):
            found, classes, errors = self._invert(images, wanted)
            latents.append(found)
            labels.append(classes)
            for label, error in zip(classes.tolist(), errors.tolist(), strict=True):
                name = printable(self.source.metadata.class_names[label])
                reach = ", out of reach" if error > limit else ""
                print(f"{printable(next(names))}: {name}, {_in_words(torch.tensor([error]))}{reach}", flush=True)
        # Made in one go, as `generate` makes them of the file
        all_latents, all_labels = torch.cat(latents), torch.cat(labels)
        made = self.source.make(all_labels, all_latents)
        return Inversion(all_latents, all_labels, made, pixel_errors(made, given.images))

    def _invert(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The latents, class numbers and errors of images; labels of -1 are searched."""
        sampler = self.source.sampler
        assert sampler is not None, "refused before"
        latents = torch.empty(len(images), self.source.metadata.latent_dim)
        classes, errors = labels.clone(), torch.empty(len(images))
        for rows in (labels >= 0, labels < 0):
            if rows.any():
                known = labels[rows] if bool((labels[rows] >= 0).all()) else None
                found = sampler.invert(images[rows], known, self.steps, self.restarts, self.seed, self.ema)
                latents[rows], classes[rows], errors[rows] = found.latents, found.labels, found.errors
        return latents, classes, errors


def _parts(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images.split(_IMAGES), labels.split(_IMAGES), strict=True)


def _limit(source: Source, seed: int) -> float:
    """The error above which an image is out of reach: half the median distance of two generated images of a class.

    A found image that is farther away is no nearer to the given one than to many others of its class.
    """
    metadata = source.metadata
    shape = (2 * _PAIRS, metadata.latent_dim)
    latents = sample_latents(shape, metadata.latents, rng_at(seed, INVERSION, _OF_PAIRS), torch.float32)
    labels = torch.arange(_PAIRS) % len(metadata.class_names)
    made = source.make(labels.repeat(2), latents)
    return float(pixel_errors(made[:_PAIRS], made[_PAIRS:]).median()) / 2


def _in_words(errors: Tensor) -> str:
    """One error, or the median and the range of several, also in gray levels."""
    middle = float(errors.quantile(0.5))
    levels = f"({middle * _LEVELS:.1f} of 255 levels)"
    if len(errors) == 1:
        return f"error {middle:.3f} {levels}"
    return f"median error {middle:.3f} {levels}, {float(errors.min()):.3f} to {float(errors.max()):.3f}"


def _in_report(
    given: _Given, found: Inversion, compared: _Reference | None, limit: float, class_names: Sequence[str]
) -> dict[str, Any]:
    """What `inversion.json` says of the images."""
    rows = zip(given.names, given.labels.tolist(), found.labels.tolist(), found.errors.tolist(), strict=True)
    images = [
        {
            "image": name,
            "class": class_names[label],
            "class was given": known >= 0,
            "error": round(error, 6),
            "out of reach": error > limit,
        }
        for name, known, label, error in rows
    ]
    errors = None if compared is None else [round(error, 6) for error in compared.errors.tolist()]
    reference = None if compared is None else {"images": compared.what, "errors": errors}
    return {"out of reach above": round(limit, 6), "reference": reference, "images": images}


def _write(folder: Path, given: _Given, found: Inversion, report: dict[str, Any], class_names: Sequence[str]) -> None:
    arrays = {
        "latents": found.latents.numpy(),
        "labels": found.labels.numpy(),
        "class_names": np.array(class_names),
        "errors": found.errors.numpy(),
        "names": np.array(given.names),
    }
    save_arrays(arrays, folder / _FILES[0])
    save_png(_sheet(given.images, found.images), folder / _FILES[1])
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    # A name that is no UTF-8 becomes an escape, which JSON knows.
    (folder / _FILES[2]).write_text(text, encoding="utf-8", errors="backslashreplace")


def _sheet(given: Tensor, found: Tensor) -> Tensor:
    """A picture with given image, found image and difference side by side; many images share a row."""
    difference = (found - given).clamp(-1, 1)  # gray where both are the same
    triples = torch.stack([given, found, difference], dim=1).flatten(0, 1)
    return grid(triples, columns=3 * max(1, round(math.sqrt(len(given) / 3))))
