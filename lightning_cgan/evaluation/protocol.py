"""The full protocol: every score of a generator, and each of these scores of real images, for comparison.

A Judge is the reference classifier of a data set. The references of all scores are the images of the test split. To
show what a perfect generator would reach, the validation split is scored in place of generated images, with as many
images per class: real images that are also new to the Judge. Training images would not do, since a Judge finds images
that it was trained on more alike than they are. The test split never influences a choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_cgan.core.files import cache_folder, write_to_cache
from lightning_cgan.core.images import unit_from_signed
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.fakes import Gafi, ImageMaker, at_most, make_confident_fakes, make_fakes
from lightning_cgan.evaluation.gan_train import gan_train
from lightning_cgan.evaluation.judge import fingerprint_of, get_judge
from lightning_cgan.evaluation.neighbours import nearest_of
from lightning_cgan.evaluation.parzen import parzen_window
from lightning_cgan.evaluation.scores import QUICK_SCORES, all_scores, extract_features, quick_scores

FORMAT = 2  # of report.json; in format 1, two keys of `protocol` had other names

# The purposes of generated images; each has different latents.
_SCORED, _TRAINING, _SELECTION, _GAFI, _PARZEN = range(5)


@dataclass(frozen=True)
class ScoringProtocol:
    """The settings that must be equal for two reports to be comparable.

    Attributes:
        images: The most generated images, and the most test images, to compare.
        draws: The number of sets of generated images over which the quick scores are averaged: a single one has too few
            images for small Fréchet distances.
        training_images: The number of generated images on which a Student is trained; if not given, as many as the
            training split has.
        epochs: The number of passes of a Student over them.
        seeds: The seeds of Students that learn from generated images.
        seeds_of_bound: The seeds of Students that learn from real images.
        seed: Determines the latents.
    """

    name: str = "full"
    images: int = 10_000
    draws: int = 8
    training_images: int | None = None
    epochs: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)
    seeds_of_bound: tuple[int, ...] = (0, 1, 2)
    seed: int = 0


FULL = ScoringProtocol()
QUICK = ScoringProtocol("quick", draws=1, training_images=10_000, epochs=3, seeds=(0,), seeds_of_bound=(0,))


class LabelledSplits(Protocol):
    """The parts of a data module that scoring needs; `LabelledImages` has them."""

    num_classes: int
    class_names: tuple[str, ...]

    def setup(self, stage: str) -> None:
        """Reads the splits that a stage needs."""

    def in_order(self, split: str) -> OrderedLoader:
        """All images of a split."""


@dataclass(frozen=True)
class ReportImages:
    """The images in the figure of a report."""

    fakes: OrderedLoader
    nearest: dict[int, Tensor]  # from indices of some of them to the nearest training image, (C, H, W)


class Evaluation:
    """The evaluation of one generator on one data set, all of whose splits have been read.

    With `others`, further generators, Students also learn from the images of all of them together.
    """

    def __init__(
        self,
        maker: ImageMaker,
        data: LabelledSplits,
        device: torch.device,
        protocol: ScoringProtocol = FULL,
        others: Sequence[ImageMaker] = (),
    ) -> None:
        self.maker = maker
        self.others = others
        self.data = data
        self.device = device
        self.protocol = protocol
        self.train, self.validation, self.whole_test = map(data.in_order, ("train", "validation", "test"))
        self.test = at_most(self.whole_test, protocol.images)
        self.judge_record = get_judge(self.train, self.validation, data.num_classes, device)
        self.references = extract_features(self.judge_record.judge, self.test)
        self.held_out = at_most(self.validation, protocol.images)
        self.fakes = self._make_fakes(self.held_out.labels, self._seed(_SCORED))

    @cached_property
    def about_data(self) -> dict[str, Any]:
        """Identifies the data set."""
        splits = {"train": self.train, "validation": self.validation, "test": self.whole_test}
        others = {name: fingerprint_of(splits[name]) for name in ("validation", "test")}
        return {
            "name": type(self.data).__name__,
            "classes": self.data.class_names,
            "images": {name: len(images.labels) for name, images in splits.items()},
            "fingerprints": {"train": self.judge_record.fingerprint, **others},
        }

    def report(self, gafi: Gafi | None = None, parzen: bool = False) -> tuple[dict[str, Any], ReportImages]:
        """Measures everything; returns the report, in plain values, and the images for its figure."""
        memorisation, report_images = self.memorisation()
        report: dict[str, Any] = {
            "format": FORMAT,
            "protocol": dataclasses.asdict(self.protocol),
            "data": self.about_data,
            "judge": {"sha256": self.judge_record.sha256, "validation_accuracy": self.judge_record.validation_accuracy},
            "versions": versions(),
            "scores": self.scores_of_draws(),
            "scores_of_real_images": self.scores(self.held_out),
            "memorisation": memorisation,
            "gan_train": self.gan_train(),
            "gan_train_of_real_images": self.real_data_bound(),
        }
        if gafi is not None:
            report["gan_train_gafi"] = self.gan_train(gafi)
        if self.others:
            report["gan_train_of_several"] = self.gan_train(None, self.others)
        if self.others and gafi is not None:
            report["gan_train_gafi_of_several"] = self.gan_train(gafi, self.others)
        if parzen:
            report["parzen_window"] = self.parzen(self._make_fakes(self.test.labels, self._seed(_PARZEN)))
            report["parzen_window_of_real_images"] = self.parzen(at_most(self.train, len(self.test.labels)))
        return report, report_images

    def scores(self, candidates: OrderedLoader) -> dict[str, Any]:
        """All scores of images against those of the test split."""
        return all_scores(extract_features(self.judge_record.judge, candidates), self.references, self.data.num_classes)

    def scores_of_draws(self) -> dict[str, Any]:
        """All scores of generated images.

        The scores of `quick_scores` are means over the draws, with their standard `deviations`; all others, and those
        by class, are from the first draw.
        """
        labels, judge = self.held_out.labels, self.judge_record.judge
        seeds = (self._seed(_SCORED) + draw for draw in range(1, self.protocol.draws))
        others = (extract_features(judge, self._make_fakes(labels, seed)) for seed in seeds)
        first = self.scores(self.fakes)
        found = [first, *(quick_scores(features, self.references) for features in others)]
        of_each = {name: [scores[name] for scores in found] for name in QUICK_SCORES}
        means = {name: statistics.fmean(values) for name, values in of_each.items()}
        deviations = {name: statistics.stdev(values) if len(values) > 1 else None for name, values in of_each.items()}
        return {**first, **means, "deviations": deviations}

    def memorisation(self) -> tuple[dict[str, float], ReportImages]:
        """The pixel distance from generated images to training images, relative to that from test images."""
        found = {
            name: nearest_of(self._signed(images), (batch for batch, _ in self.train))
            for name, images in (("fakes", self.fakes), ("test_images", self.test))
        }
        means = {f"distance_of_{name}": distances.mean().item() for name, (distances, _) in found.items()}
        ratio = means["distance_of_fakes"] / max(means["distance_of_test_images"], 1e-12)
        shown = [int(torch.nonzero(self.fakes.labels == label)[0]) for label in self.fakes.labels.unique()]
        indices = found["fakes"][1].cpu()
        nearest = {index: self.train.images[int(indices[index])] for index in shown}
        return {"ratio": ratio, **means}, ReportImages(self.fakes, nearest)

    def gan_train(self, gafi: Gafi | None = None, others: Sequence[ImageMaker] = ()) -> dict[str, Any]:
        """The accuracy of Students that learn from generated images; see `gan_train.gan_train`.

        With `others`, images of all generators in equal shares, as many as of one; these also choose the epoch.
        """
        selection_set = self._make_fakes(self.validation.labels, self._seed(_SELECTION), others)
        labels, seeds = self._training_labels(), self.protocol.seeds
        if gafi is None:
            fakes = self._make_fakes(labels, self._seed(_TRAINING), others)
            return self._train_students(lambda epoch: fakes, selection_set, seeds)

        def selected(epoch: int) -> OrderedLoader:
            seed, judge = self._seed(_GAFI) + 10 * epoch, self.judge_record.judge
            return make_confident_fakes(self.maker, labels, seed, judge, gafi, others, self.train.bit_depth)

        return {**dataclasses.asdict(gafi), **self._train_students(selected, selection_set, seeds)}

    def real_data_bound(self) -> dict[str, Any]:
        """The accuracy of Students that learn from real images; computed once per data set, and cached."""
        protocol, machine = self.protocol, [versions(), self.device.type, torch.get_num_threads()]
        about = [self.about_data, protocol.training_images, protocol.epochs, protocol.seeds_of_bound, machine]
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        file = cache_folder() / f"real_data_bound-{name}.json"
        with suppress(OSError, ValueError, TypeError):  # a missing or damaged file
            return dict(json.loads(file.read_text(encoding="utf-8")))
        real = at_most(self.train, protocol.training_images or len(self.train.labels))
        bound = self._train_students(lambda epoch: real, self.validation, protocol.seeds_of_bound)
        content = json.dumps(bound).encode()
        write_to_cache(file, content)
        return dict(json.loads(content))

    def parzen(self, centres: OrderedLoader) -> dict[str, float]:
        """The Parzen-window log-likelihood of test images, in nats, with Gaussians centred on `centres`."""
        splits = (centres, at_most(self.validation, 1000), self.test)
        return parzen_window(*(unit_from_signed(self._signed(split)) for split in splits))

    def _train_students(
        self, training_images: Callable[[int], OrderedLoader], selection_set: OrderedLoader, seeds: tuple[int, ...]
    ) -> dict[str, Any]:
        how = (self.data.num_classes, self.protocol.epochs, seeds, self.device)
        return gan_train(training_images, selection_set, self.whole_test, *how)

    def _training_labels(self) -> Tensor:
        return at_most(self.train, self.protocol.training_images or len(self.train.labels)).labels.cpu()

    def _make_fakes(self, labels: Tensor, seed: int, others: Sequence[ImageMaker] = ()) -> OrderedLoader:
        return make_fakes(self.maker, labels, seed, others=others, bit_depth=self.train.bit_depth)

    def _signed(self, images: OrderedLoader) -> Tensor:
        """All images as one tensor, in [-1, 1]."""
        return torch.cat([batch for batch, _ in images]).to(self.device)

    def _seed(self, purpose: int) -> int:
        # Far from the seeds of the latents that may have chosen the checkpoint.
        return (self.protocol.seed + 1) * 1_000_000 + purpose * 1000


def versions() -> dict[str, str]:
    """The versions of the software that scores depend on."""
    packages = ("lightning_cgan", "lightning", "torch", "torchvision", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def differences(report: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The reasons why two reports, as read from `report.json`, are not comparable; empty if they are."""
    reasons = [
        f"{name}.{key}: {report[name].get(key)!r} and {other[name].get(key)!r}"
        for name in ("protocol", "data", "judge")
        for key in sorted(report[name].keys() | other[name].keys())
        if report[name].get(key) != other[name].get(key)
    ]
    return reasons if report["format"] == other["format"] else ["format", *reasons]
