"""Images in bulk: as many as are wanted, each once, on any number of processes, also after a stop."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from lightning_cgan import ConditionalGAN, DigitsData, PredictionWriter, UsageError
from lightning_cgan.cli.main import main
from lightning_cgan.evaluation.judge import get_judge
from lightning_cgan.networks.latents import LatentSampler

Fails = Callable[..., str]
CPU = torch.device("cpu")


@pytest.fixture
def common(short_run: Path) -> list[str]:
    """The options that name a checkpoint of a short run."""
    return ["--config", str(short_run / "config.yaml"), "--ckpt_path", str(short_run / "checkpoints" / "last.ckpt")]


def predict(common: list[str], folder: str, per_class: int, *options: str) -> dict[str, bytes]:
    """Runs `predict`, and reads what is in its folder then."""
    numbers = ["--data.predictions_per_class", str(per_class)]
    main(["predict", *common, *numbers, "--predictions.folder", folder, *options])
    return files_of(folder)


def files_of(folder: str) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*.png")}


def trainer(*callbacks: PredictionWriter) -> Trainer:
    return Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, callbacks=list(callbacks))


def digits() -> DigitsData:
    data = DigitsData(image_size=8)
    data.setup("fit")
    return data


@pytest.mark.ci
def test_many_images_on_two_processes(common: list[str]) -> None:
    options = ["--data.predictions_per_class", "120", "--predictions.folder", "two", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "lightning_cgan", "predict", *common, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    images = ImageFolder("two")
    assert images.classes == list("0123456789")
    assert torch.bincount(torch.tensor(images.targets)).tolist() == [120] * 10
    files = files_of("two")
    assert len(set(files.values())) == len(files) == 1200
    assert predict(common, "one", 120) == files
    assert "1,200 images: two" in done.stderr
    for number in range(3, 120):
        Path("two/4", f"{number:05d}.png").unlink()
    subprocess.run(command, capture_output=True, check=True)
    assert files_of("two") == files


def test_images_are_those_of_generate(common: list[str]) -> None:
    made = predict(common, "made", 30, "--predictions.seed", "3", "--predictions.truncation", "0.9")
    main(["generate", common[-1], "--count", "30", "--seed", "3", "--truncation", "0.9", "--out", "generated"])
    assert made == files_of("generated")
    assert made.keys() == predict(common, "others", 30, "--predictions.seed", "4").keys()
    assert not set(made.values()) & set(files_of("others").values())


def test_goes_on_where_it_was_stopped(common: list[str], recwarn: pytest.WarningsRecorder) -> None:
    whole = predict(common, "made", 30)
    for number in range(7, 30):
        Path("made/3", f"{number:05d}.png").unlink()
    for number, size in enumerate((0, 5, 100)):  # of files that a full disk has cut off
        os.truncate(Path("made/5", f"{number:05d}.png"), size)
    Path("made/3/.17-00007.png.unfinished").write_bytes(b"half of an image")
    times = {file: file.stat().st_mtime_ns for label in "0123456789" for file in Path("made", label).glob("0002*.png")}
    assert predict(common, "made", 30) == whole
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert not list(Path("made").rglob("*.unfinished"))
    assert len(predict(common, "made", 31)) == 310
    assert len(predict(common, "made", 31, "--trainer.devices", "1")) == 310  # nothing is left to make
    assert not [warning for warning in recwarn if "across ranks is zero" in str(warning.message)]


def test_makes_up_a_balanced_set(common: list[str]) -> None:
    predict(common, "made", 170, "--predictions.top_up", "true")
    data = digits()
    real = torch.bincount(torch.cat([data.splits[split][1] for split in ("train", "validation")]), minlength=10)
    made = torch.bincount(torch.tensor(ImageFolder("made").targets), minlength=10)
    assert (real + made).tolist() == [170] * 10
    assert len(set(made.tolist())) > 1


def test_two_processes_go_on_with_the_last_image(common: list[str]) -> None:
    whole = predict(common, "made", 2)
    Path("made/9/00001.png").unlink()
    data = DigitsData()
    data.trainer = type("Two", (), {"global_rank": 0, "world_size": 2})()  # type: ignore[assignment]
    data.predictions_per_class, data.already_made = 2, {(label, number) for label in range(9) for number in range(2)}
    data.already_made |= {(9, 0)}
    assert [batch.tolist() for batch in data.predict_dataloader()] == [[[9, 1], [9, 1]]]  # work for each
    assert predict(common, "made", 2) == whole


def test_labels_of_ones_own(common: list[str]) -> None:
    module = ConditionalGAN.load_from_checkpoint(common[-1], map_location="cpu")
    loader: DataLoader[torch.Tensor] = DataLoader(torch.tensor([7, 7, 2]), batch_size=3)  # type: ignore[arg-type]
    ((images, labels),) = trainer().predict(module, loader)  # type: ignore[misc]
    assert labels.tolist() == [7, 7, 2]
    assert images.shape == (3, 1, 8, 8)
    assert not torch.equal(images[0], images[1])
    with pytest.raises(UsageError, match=r"expected batches of labels and image numbers, shape \(N, 2\), as .* \(3,\)"):
        trainer(PredictionWriter("made")).predict(module, loader)
    assert not files_of("made")


def test_nothing_stays_of_a_predict_that_ends_early(common: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = ConditionalGAN.load_from_checkpoint(common[-1], map_location="cpu"), digits()
    writer = PredictionWriter("made", seed=3, top_up=True)

    def fail(*_: object) -> None:
        assert (module.latent_sampler, data.tops_up) == (LatentSampler(3), True)
        raise OSError("disk full")

    monkeypatch.setattr("lightning_cgan.callbacks.predictions.save_image", fail)
    data.predictions_per_class = 170
    with pytest.raises(UsageError, match=r"^--predictions.folder: expected a path to write to, got made \(disk full\)"):
        trainer(writer).predict(module, data)
    assert (module.latent_sampler, data.tops_up, data.already_made) == (LatentSampler(), False, ())


def test_networks_of_the_same_weights_are_told_apart(common: list[str]) -> None:
    module, data = ConditionalGAN.load_from_checkpoint(common[-1], map_location="cpu"), digits()
    data.predictions_per_class = 1
    trainer(PredictionWriter("made")).predict(module, data)
    trainer(PredictionWriter("made")).predict(module, data)
    layer = next(layer for layer in module.generator.modules() if isinstance(layer, torch.nn.ReLU))
    layer.inplace = not layer.inplace  # stands for an option without weights of its own
    with pytest.raises(UsageError, match="expected images made with the same weights, got others in made"):
        trainer(PredictionWriter("made")).predict(module, data)


@pytest.mark.ci
def test_images_of_two_kinds_do_not_mix(common: list[str], fails: Fails) -> None:
    Path("photos").mkdir()
    Path("photos/a.png").touch()
    message = fails("predict", *common, "--predictions.folder", "photos")
    assert message.startswith(
        "error: --predictions.folder: expected a new or empty folder, got photos with files in it"
    )
    predict(common, "made", 1)
    same = [*common, "--data.predictions_per_class", "1"]  # nothing is left to make
    for options, differing in (
        ("--predictions.seed 1", "seed"),
        ("--model.latents uniform", "latents"),
        ("--predictions.top_up true", "top_up, data"),
        ("--predictions.min_confidence 0.1", "min_confidence, data"),
    ):
        message = fails("predict", *same, "--predictions.folder", "made", *options.split())
        assert message == (
            f"error: --predictions.folder: expected images made with the same {differing}, got others in made; "
            "name another folder"
        )
    checkpoint = torch.load(common[-1], weights_only=True)
    next(iter(checkpoint["state_dict"].values())).add_(1)
    torch.save(checkpoint, "other.ckpt")
    message = fails("predict", *same, "--ckpt_path", "other.ckpt", "--predictions.folder", "made")
    assert "expected images made with the same weights, got others in made" in message
    facts = json.loads(Path("made/predictions.json").read_text())
    assert (facts["seed"], facts["classes"]) == (0, list("0123456789"))
    Path("made/predictions.json").write_text("[")
    assert (
        "expected images made with the same seed, scale, latents, min_confidence, top_up, classes, weights, got"
        in fails("predict", *common, "--predictions.folder", "made")
    )


@pytest.mark.ci
def test_others_take_the_place_of_what_is_doubtful(common: list[str], fails: Fails) -> None:
    data = digits()
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    made = {
        "all": predict(common, "all", 20),
        "sure": predict(common, "sure", 20, "--predictions.min_confidence", "0.2"),
        "wide": predict(common, "wide", 20, "--predictions.latent_scale", "2"),
    }
    confidence = {}
    for name in ("all", "sure"):
        files = sorted(made[name])
        pixels = torch.stack([pil_to_tensor(Image.open(Path(name, file))) for file in files]).float().div(127.5).sub(1)
        chances = judge(pixels).softmax(1)
        confidence[name] = {file: row[int(file[0])].item() for file, row in zip(files, chances, strict=True)}
    assert min(confidence["sure"].values()) >= 0.2 > min(confidence["all"].values())
    assert len(made["sure"]) > sum(certainty >= 0.2 for certainty in confidence["all"].values())  # made others
    for file, content in made["sure"].items():
        assert (content == made["all"][file]) == (confidence["all"][file] >= 0.2)
    assert made["wide"].keys() == made["all"].keys()
    assert any(content != made["wide"][file] for file, content in made["all"].items())
    other = ["--data.predictions_per_class", "20", "--data.validation_fraction", "0.2"]  # and so another judge
    chosen = ["--predictions.folder", "sure", "--predictions.min_confidence", "0.2"]
    assert "expected images made with the same data, got others in sure" in fails("predict", *common, *other, *chosen)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("latent_scale", "0", "expected a number above 0, got 0.0; 1 is the scale of training"),
        ("min_confidence", "1", "expected a number from 0 to below 1, got 1.0; 0 keeps all images"),
        ("truncation", "0", "expected a number above 0, got 0.0; 1 keeps two thirds of latents"),
        ("seed", "99999999999999999999", "expected a whole number of 64 bits, got 99999999999999999999; give another"),
        ("folder", "afile", "expected a folder to write to, got afile, which is not a writable folder; name another"),
        (
            "folder",
            "afile/x",
            "expected a folder to write to, got {here}/afile, which is not a writable folder; name another",
        ),
    ],
)
def test_mistakes(common: list[str], fails: Fails, option: str, value: str, message: str) -> None:
    Path("afile").touch()
    assert fails("predict", *common, f"--predictions.{option}", value) == (
        f"error: --predictions.{option}: {message.format(here=Path.cwd())}"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_no_latent_goes_with(value: float) -> None:
    with pytest.raises(UsageError, match=f"--predictions.latent_scale: expected a number above 0, got {value}"):
        PredictionWriter(latent_scale=value)
    with pytest.raises(UsageError, match=f"--predictions.truncation: expected a number above 0, got {value}"):
        PredictionWriter(truncation=value)


@pytest.mark.ci
def test_data_of_other_classes_are_refused(common: list[str], fails: Fails) -> None:
    turned = ["--data.classes", "[9,8,7,6,5,4,3,2,1,0]", "--predictions.folder", "made"]
    for command in ("predict", "validate", "test"):
        assert fails(command, *common, *turned) == (
            "error: --data.classes: expected those of the checkpoint, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got 9, 8, 7, 6, 5, "
            "4, 3, 2, 1, 0; name the former, in that order"
        )
    assert not Path("made").exists()
    checkpoint = torch.load(common[-1], weights_only=True)
    for number, about in enumerate((None, {}, {"classes": None}, {"classes": [1, "a"]})):
        checkpoint["lightning_cgan"]["data"] = about
        torch.save(checkpoint, "old.ckpt")
        assert predict([*common[:-1], "old.ckpt", *turned[:2]], f"made{number}", 1)
