"""The protocol behind `test`: GAN-train, the judge's appointment, and the report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from helpers.labelled import opened
from helpers.marks import ci_but_for
from lightning_cgan import ConditionalGAN, DigitsData, FashionMNISTData, ImageFolderData, MNISTData, UsageError
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import save_png
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation import gan_train as gan_train_module
from lightning_cgan.evaluation.classifiers import Student, accuracy
from lightning_cgan.evaluation.fakes import Gafi, at_most, choose, make_confident_fakes, make_fakes
from lightning_cgan.evaluation.gan_train import gan_train, train_student
from lightning_cgan.evaluation.judge import get_judge
from lightning_cgan.evaluation.protocol import QUICK, Evaluation, ReportImages, differences
from lightning_cgan.evaluation.report_plot import _samples, plot_report
from lightning_cgan.evaluation.scores import extract_features

Run = Callable[..., Path]
CPU = torch.device("cpu")


class Shelf:
    """Makes images by taking real ones of the class off a shelf, as the one latent says."""

    num_classes = 10

    def __init__(self, images: OrderedLoader) -> None:
        pixels, labels = next(iter(OrderedLoader(images.images, images.labels, len(images.labels))))
        self.of_class = [pixels[labels == label] for label in range(10)]

    def sample_latents(self, count: int, seed: int | None = None) -> Tensor:
        return torch.rand(count, 1, generator=torch.Generator().manual_seed(seed or 0))

    def generate(self, labels: Tensor, latents: Tensor | None = None) -> Tensor:
        assert latents is not None
        pairs = zip(labels.tolist(), latents[:, 0].tolist(), strict=True)
        return torch.stack([self.of_class[label][int(u * len(self.of_class[label]))] for label, u in pairs])


# ---- GAN-train ---------------------------------------------------------------------------------------------------------


def test_student_is_the_described_network() -> None:
    """Convolutions 3 x 3 to 32 and 64 without padding, pool 2, dense 128: its number of weights, worked by hand."""
    by_hand = (9 * 32 + 32) + (9 * 32 * 64 + 64) + (12 * 12 * 64 * 128 + 128) + (128 * 10 + 10)
    student = Student(10, 1, 28).eval()
    assert sum(parameter.numel() for parameter in student.parameters()) == by_hand == 1_199_882
    first, second, hidden, last = (layer for layer in student if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear))
    images = torch.rand(3, 1, 28, 28)
    seen = functional.max_pool2d(functional.relu(second(functional.relu(first(images)))), 2)
    torch.testing.assert_close(student(images), last(functional.relu(hidden(seen.flatten(1)))))


def test_the_best_epoch_is_taken_and_by_the_generated_images_alone() -> None:
    data = opened()
    train, validation = data.in_order("train"), data.in_order("validation")
    wrong = OrderedLoader(train.images, (train.labels + 1) % 10, 64)
    lessons = [train, train, train, wrong]
    student, run = train_student(lessons.__getitem__, validation, 10, epochs=4, seed=0, device=CPU)
    assert run["epoch"] == 3
    assert accuracy(student, validation) == run["chosen_by_accuracy"] > 0.5


def test_gan_train_of_real_images_and_of_wrong_ones() -> None:
    data = opened()
    train, validation, test = (data.in_order(split) for split in ("train", "validation", "test"))
    real = gan_train(lambda _: train, validation, test, 10, epochs=4, seeds=(0, 1), device=CPU)
    accuracies = [run["accuracy"] for run in real["runs"]]
    assert real["mean"] == pytest.approx(sum(accuracies) / 2)
    assert real["mean"] > 0.6
    assert real["deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    shuffled = OrderedLoader(train.images, train.labels.roll(5), 64)
    assert gan_train(lambda _: shuffled, validation, test, 10, 1, (0,), CPU)["mean"] < 0.4
    again = gan_train(lambda _: train, validation, test, 10, epochs=4, seeds=(0, 1), device=CPU)
    assert again == real


def test_gafi_has_fresh_and_confident_images() -> None:
    data = opened()
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    shelf = Shelf(data.in_order("test"))
    labels = torch.arange(10).repeat(20)
    first, second = (make_confident_fakes(shelf, labels, seed, judge, Gafi(1.0, 0.9)) for seed in (0, 1))
    for fakes in (first, second):
        assert extract_features(judge, fakes).confidence.min() >= 0.9
        assert torch.equal(fakes.labels.bincount(), labels.bincount())  # of what was left out there is another
    assert not torch.equal(first.images, second.images)  # type: ignore[arg-type]
    doubtful = extract_features(judge, make_fakes(shelf, labels, 0)).confidence
    assert doubtful.min() < 0.9
    wide = make_fakes(shelf, labels, 0, latent_scale=0.5)
    latents = shelf.sample_latents(200, 0) * 0.5
    expected = OrderedLoader(make_fakes(shelf, labels, 0).images, labels, 200)
    assert not torch.equal(wide.images, expected.images)  # type: ignore[arg-type]
    assert torch.allclose(next(iter(wide))[0][:1], shelf.generate(labels[:1], latents[:1]), atol=1 / 127)


def test_several_makers_share_each_class_and_replace_their_own() -> None:
    data = opened()
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    shelves = [Shelf(data.in_order(split)) for split in ("train", "validation", "test")]
    labels = torch.randint(10, (200,))
    made = make_fakes(shelves[0], labels, 5, others=shelves[1:])
    alone = [make_fakes(shelf, labels, 5).images for shelf in shelves]
    turns, seen = [], [0] * 10
    for label in labels.tolist():
        turns.append(seen[label] % 3)
        seen[label] += 1
    for place, turn in enumerate(turns):
        assert torch.equal(made.images[place], alone[turn][place])
    # Every image of a maker is of one shade, and no judge is sure of the first ones.
    gray = [Shelf(data.in_order("train")) for _ in range(2)]
    for shelf, shade in zip(gray, (-0.5, 0.5), strict=True):
        shelf.of_class = [torch.full((3, 1, 8, 8), shade) for _ in range(10)]
    kept = make_confident_fakes(gray[0], torch.zeros(7, dtype=torch.int64), 0, judge, Gafi(1.0, 0.0), [gray[1]])
    shades = [int(image.unique()) for image in kept.images]  # in a random order
    assert sorted(shades) == [64] * 4 + [191] * 3
    sure = make_confident_fakes(shelves[0], labels, 1, judge, Gafi(1.0, 0.9), shelves[1:])
    assert extract_features(judge, sure).confidence.min() >= 0.9
    per_maker = [
        [{image.numpy().tobytes() for image in _bytes(shelf.of_class[c])} for c in range(10)] for shelf in shelves
    ]
    for label in range(10):  # what was replaced is from the same maker, so that the shares stay
        images = [image.numpy().tobytes() for image, own in zip(sure.images, sure.labels, strict=True) if own == label]
        found = [sum(image in makers[label] for image in images) for makers in per_maker]
        assert max(found) - min(found) <= 1
        assert sum(found) == len(images) == int((labels == label).sum())


def _bytes(images: Tensor) -> Tensor:
    return images.add(1).mul(127.5).round().to(torch.uint8)


# ---- the report --------------------------------------------------------------------------------------------------------


def test_scores_of_a_shelf_of_real_images() -> None:
    """Whoever hands out training images gets the best scores there are, and is found out."""
    data = opened()
    copier = Evaluation(Shelf(data.in_order("train")), data, CPU, QUICK)
    found, _ = copier.memorisation()
    assert found["ratio"] == pytest.approx(0, abs=1e-3)
    honest = Evaluation(Shelf(data.in_order("test")), data, CPU, QUICK)
    found, report_images = honest.memorisation()
    assert found["ratio"] == pytest.approx(1, abs=0.1)
    assert copier.scores(copier.fakes)["gan_test"] > 0.99
    # as many of each class as there are held out
    assert torch.equal(report_images.fakes.labels, data.in_order("validation").labels)


def test_quick_scores_are_means_over_draws() -> None:
    data = opened()
    protocol = dataclasses.replace(QUICK, draws=3)
    found = Evaluation(Shelf(data.in_order("test")), data, CPU, protocol).scores_of_draws()
    assert found["deviations"].keys() == {"gan_test", "judge_fid", "diversity"}
    # One draw after the other, each as the only one of an examination, and by NumPy.
    shelf = Shelf(data.in_order("test"))
    original = shelf.sample_latents
    of_each = []
    for draw in range(3):
        shelf.sample_latents = lambda count, seed, draw=draw: original(count, seed + draw)  # type: ignore[method-assign,misc]
        evaluation = Evaluation(shelf, data, CPU, QUICK)
        of_each.append(evaluation.scores(evaluation.fakes))
    assert len({scores["judge_fid"] for scores in of_each}) == 3
    for name, deviation in found["deviations"].items():
        values = [scores[name] for scores in of_each]
        assert found[name] == pytest.approx(np.mean(values))
        assert deviation == pytest.approx(np.std(values, ddof=1))
    assert found["confusion"] == of_each[0]["confusion"]
    alone = Evaluation(Shelf(data.in_order("test")), data, CPU, QUICK).scores_of_draws()
    assert alone == {**of_each[0], "deviations": dict.fromkeys(found["deviations"])}


@pytest.mark.ci
def test_report_is_written_and_written_again_the_same(run: Run, tmp_path: Path) -> None:
    folder = run("--trainer.max_steps", "20", "--data.image_size", "8")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint), "--report.protocol", "quick"]
    reports = []
    for name in ("one", "two"):
        main(
            ["test", *common, "--report.folder", name, "--report.parzen", "true", "--report.gafi.min_confidence", "0.1"]
        )
        reports.append((tmp_path / name / "report.json").read_text())
        assert Image.open(tmp_path / name / "report.png").size == (1300, 1200)
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    assert report["protocol"]["name"] == "quick"
    assert report["data"]["images"] == {"train": 1317, "validation": 120, "test": 360}
    for name in ("gan_train", "gan_train_of_real_images", "gan_train_gafi", "parzen_window"):
        assert torch.isfinite(torch.tensor(report[name]["mean"]))
    assert differences(report, json.loads(reports[1])) == []
    other = {**report, "protocol": {**report["protocol"], "epochs": 10}}
    assert differences(report, other) == ["protocol.epochs: 3 and 10"]
    # the scores are those of the checkpoint's own images
    module = ConditionalGAN.load_from_checkpoint(checkpoint, map_location="cpu")
    data = opened()
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    images = module.generate(data.in_order("validation").labels, module.sample_latents(120, 1_000_000))
    pixels = images.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)
    right = judge(pixels).argmax(1) == data.in_order("validation").labels
    assert report["scores"]["gan_test"] == pytest.approx(right.float().mean().item(), abs=1e-6)


@pytest.mark.ci
def test_report_lies_beside_its_checkpoint(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_train_module, "learn", lambda *_: None)  # the students may stay as they are
    folder = run("--trainer.max_steps", "2", "--data.image_size", "8")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    main(["test", "--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)])
    report = json.loads((folder / "checkpoints" / "last-report" / "report.json").read_text())
    assert report["protocol"]["name"] == "full"
    assert len(report["gan_train"]["runs"]) == 3
    assert report["checkpoint"]["name"] == "last.ckpt"
    # fewer students, before the same bound
    options = ["--ckpt_path", str(checkpoint), "--report.students", "1", "--report.folder", str(tmp_path / "one")]
    main(["test", "--config", str(folder / "config.yaml"), *options])
    other = json.loads((tmp_path / "one" / "report.json").read_text())
    assert len(other["gan_train"]["runs"]) == 1
    assert other["gan_train_of_real_images"] == report["gan_train_of_real_images"]
    assert differences(report, other) == ["protocol.seeds: [0, 1, 2] and [0]"]


@pytest.mark.usefixtures("_quick_judge")
@pytest.mark.parametrize("cls", ci_but_for([DigitsData, MNISTData, FashionMNISTData], DigitsData))
def test_the_test_split_is_not_touched_before_test(
    run: Run, monkeypatch: pytest.MonkeyPatch, mnist_folder: str, cls: type[DigitsData]
) -> None:
    monkeypatch.setenv("LIGHTNING_CGAN_DATA", mnist_folder)
    read: list[str] = []
    real = cls.read

    def watched(self: DigitsData, split: str) -> tuple[Tensor, Tensor]:
        read.append(split)
        return real(self, split)  # type: ignore[arg-type]

    monkeypatch.setattr(cls, "read", watched)
    size = ["--data.image_size", "8"]
    folder = run("--data", cls.__name__, *size, "--trainer.max_steps", "20", "--trainer.check_val_every_n_epoch", "1")
    assert "val_judge_fid" in (folder / "metrics.csv").read_text()
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints" / "best.ckpt")]
    main(["validate", *common])
    main(["predict", *common, "--predictions.min_confidence", "0.01", "--data.predictions_per_class", "3"])
    assert set(read) == {"train"}


def test_parts_of_a_set() -> None:
    train = opened().in_order("train")
    part = at_most(train, 100)
    assert torch.equal(part.labels, at_most(train, 100).labels)
    assert len(part.labels) == 100
    assert at_most(train, 5000) is train
    assert torch.equal(choose(train, torch.tensor([4, 2])).labels, train.labels[[4, 2]])


@pytest.mark.usefixtures("_quick_judge")
def test_bad_options(fails: Callable[..., str], run: Run) -> None:
    folder = run("--trainer.max_steps", "1", "--data.image_size", "4")
    common = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    assert fails("test", *common).startswith(
        "error: --data.image_size: expected 6 or more for the students of a report"
    )
    message = fails("test", *common, "--report.gafi.min_confidence", "1.5")
    assert message.startswith("error: --report.gafi.min_confidence: expected a number from 0 to below 1, got 1.5")
    message = fails("test", *common, "--report.students", "0")
    assert message == "error: --report.students: expected 1 or more, got 0; give a positive number"


def test_gafi_without_a_confident_image_says_so() -> None:
    data = opened()
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    wrong = Shelf(data.in_order("train"))
    wrong.of_class = wrong.of_class[1:] + wrong.of_class[:1]
    with pytest.raises(UsageError, match="--report.gafi.min_confidence: expected a confidence that some images reach"):
        make_confident_fakes(wrong, torch.arange(10), 0, judge, Gafi(1.0, 0.99))


def test_colour_files_and_chosen_classes_are_examined(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    for split, count in (("train", 30), ("test", 12)):
        for shade, name in enumerate(("dark", "middle", "bright")):
            for number in range(count):
                pixels = torch.randint(70 * shade, 70 * shade + 60, (3, 8, 8), generator=random).to(torch.uint8)
                save_png(pixels, tmp_path / "mine" / split / name / f"{number}.png")
    options = {"image_size": 8, "classes": ["bright", "dark"], "validation_fraction": 0.3}
    data = ImageFolderData(str(tmp_path / "mine"), memory_budget=0, workers=0, **options)  # type: ignore[arg-type]
    data.setup("test")

    class Shades(Shelf):
        num_classes = 2

        def __init__(self) -> None:
            self.of_class = [torch.full((4, 3, 8, 8), shade) for shade in (0.4, -0.8)]

    found, report_images = Evaluation(Shades(), data, CPU, QUICK).report()
    assert found["data"]["classes"] == ("bright", "dark")
    assert [len(row) for row in found["scores"]["confusion"]] == [2, 2]
    assert found["gan_train_of_real_images"]["mean"] > 0.9
    plot_report(found, report_images, data.class_names, tmp_path / "report.png")
    assert Image.open(tmp_path / "report.png").size == (1300, 1200)


def test_picture_has_a_row_for_each_class_also_for_rare_ones() -> None:
    labels = torch.tensor([0] * 12 + [1] * 4 + [3] * 10)
    pixels = (labels * 50).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 56, 56)
    shown = torch.from_numpy(_samples(ReportImages(OrderedLoader(pixels, labels, 500), {})))
    assert shown.shape == (3 * 58 + 2, 4 * 58 + 2, 3)  # three rows of four, 2 pixels between
    assert [int(shown[30 + 58 * row, 30, 0]) for row in range(3)] == [0, 50, 150]
