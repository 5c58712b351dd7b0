"""Asks what generated images lack, compared with real ones, as a training set.

    python scripts/what_is_missing.py mnist MNISTData --epochs 3

trains students (see docs/scores.md) on real images and on those of a generator: as they are, shifted by up to two
pixels in 28, and new ones in each epoch. Then it looks at the test images that a student of real images labels right,
and the student of generated images does not: how far they are, by pixels, from the nearest of many generated images,
and from the nearest training image. Prints each result when it is found. The test split only measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import lightning_cgan
from lightning_cgan import PretrainedGenerator, Translation
from lightning_cgan.core.rng import rng_at
from lightning_cgan.data import LabelledImages
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.classifiers import labelled_right
from lightning_cgan.evaluation.fakes import make_fakes
from lightning_cgan.evaluation.gan_train import train_student
from lightning_cgan.evaluation.neighbours import nearest_of

_SEED = 3_000_000  # far from those that may have chosen the checkpoint
_BATCH = 10_000


def main() -> None:
    """Trains the students, and compares the distances."""
    parser = argparse.ArgumentParser(description="Asks what generated images lack as a training set.")
    parser.add_argument("source", help="a folder that export wrote, or the name of a shipped generator")
    parser.add_argument("data", help="the class of the data set that it was trained on, such as MNISTData")
    parser.add_argument("--epochs", type=int, default=10, help="of each student; 10")
    parser.add_argument(
        "--images", type=int, default=500_000, help="generated images to search for the nearest; 500,000"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the students; 0")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = PretrainedGenerator.from_pretrained(options.source)
    data = getattr(lightning_cgan, options.data)(image_size=generator.generator.image_size)
    data.prepare_data()
    data.setup("test")
    students = _students(generator, data, options.epochs, options.seed)
    _distances(generator, data, *students, options.images)


def _students(generator: PretrainedGenerator, data: LabelledImages, epochs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Trains all students; returns which test images those of real and of generated images label correctly."""
    train, validation, test = (data.in_order(split) for split in ("train", "validation", "test"))
    labels = train.labels
    fakes = make_fakes(generator, labels, _SEED)
    to_choose = make_fakes(generator, validation.labels, _SEED + 1)
    sets: dict[str, tuple[Callable[[int], OrderedLoader], OrderedLoader]] = {
        "real": (lambda epoch: train, validation),
        "generated": (lambda epoch: fakes, to_choose),
        "real, shifted": (lambda epoch: _shifted(train, epoch), validation),
        "generated, shifted": (lambda epoch: _shifted(fakes, epoch), to_choose),
        "generated, new in each epoch": (lambda epoch: make_fakes(generator, labels, _SEED + 2 + epoch), to_choose),
    }
    right = {}
    for name, (training_images, selection_set) in sets.items():
        how = (training_images, selection_set, data.num_classes, epochs, seed, torch.device("cpu"))
        right[name] = labelled_right(train_student(*how)[0], test)
        print(f"student of {name} images: {right[name].float().mean():.2%} of the test images", flush=True)
    return right["real"], right["generated"]


def _shifted(images: OrderedLoader, epoch: int) -> OrderedLoader:
    """All images, each shifted by up to two pixels in 28 in both directions, differently in each epoch."""
    shift = Translation(1 / 14, fill=0.0)  # of pixels, where 0 is black
    assert isinstance(images.images, Tensor)
    uniforms = torch.rand(len(images.labels), shift.num_uniforms, generator=rng_at(_SEED, epoch))
    parts = zip(images.images.split(_BATCH), uniforms.split(_BATCH), strict=True)
    shifted = torch.cat([shift(*part).to(torch.uint8) for part in parts])  # filled with a float
    return OrderedLoader(shifted, images.labels, images.batch_size)


def _distances(
    generator: PretrainedGenerator, data: LabelledImages, real_right: Tensor, generated_right: Tensor, count: int
) -> None:
    """Compares test images that only the student of real images labels correctly with all others."""
    test, train = data.in_order("test"), data.in_order("train")
    candidates = torch.cat([batch for batch, _ in test])
    labels = torch.arange(count) % data.num_classes
    made = make_fakes(generator, labels, _SEED + 1000)
    near_fakes, fake = nearest_of(candidates, (batch for batch, _ in made))
    near_real, real = nearest_of(candidates, (batch for batch, _ in train))
    lost = real_right & ~generated_right
    for name, chosen in (("lost", lost), ("other", ~lost)):
        of_fakes, of_real = (
            (found[chosen] == test.labels[chosen]).float().mean() for found in (labels[fake], train.labels[real])
        )
        to_fakes, to_real = (distances[chosen].median() for distances in (near_fakes, near_real))
        print(f"{int(chosen.sum())} {name} test images: distance to the nearest (median), whose label is the same")
        print(f"  of {count:,} generated images {to_fakes:.2f}, {of_fakes:.1%}")
        print(f"  of {len(train.labels):,} training images {to_real:.2f}, {of_real:.1%}", flush=True)


if __name__ == "__main__":
    main()
