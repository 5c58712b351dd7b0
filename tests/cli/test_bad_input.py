"""A user's mistake: one line on stderr that names it, exit code 2, and nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torchvision.datasets import MNIST

from helpers.idx_files import write_idx
from helpers.paths import CONFIGS, DIGITS
from lightning_cgan import MNISTData, UsageError

Fails = Callable[..., str]
FIT = ("fit", "--config", DIGITS, "--trainer.accelerator", "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # misspelt options
        ("--trainer.max_step 3", "--trainer.max_step: no such option; did you mean --trainer.max_steps?"),
        ("--data.batchsize 3", "--data.batchsize: DigitsData has no such option; did you mean batch_size?"),
        (
            "--model.generator.latnt_dim 3",
            "--model.generator.latnt_dim: DCGANGenerator has no such option; did you mean latent_dim?",
        ),
        (
            "--model.generator_optimizer.lrr 3",
            "--model.generator_optimizer.lrr: Adam has no such option; did you mean lr?",
        ),
        ("--smaples.rows 3", "--smaples.rows: no such option; did you mean --samples.rows?"),
        # unknown classes
        ("--data MNIST", "--data: expected the name of a class, got MNIST; did you mean MNISTData?"),
        ("--model.loss Hing", "--model.loss: expected the name of a class, got Hing; did you mean Hinge?"),
        (
            "--model.loss Xyzzy",
            "--model.loss: expected the name of a class, got Xyzzy; known are Hinge, LeastSquares, NonSaturating, "
            "RelativisticPairing, Saturating, Wasserstein",
        ),
        (
            "--model.generator_optimizer Adm",
            "--model.generator_optimizer: expected the name of a class, got Adm; did you mean Adam?",
        ),
        (
            "--model.generator torch.nn.Linear",
            "--model.generator: expected a Generator, got torch.nn.Linear; known are DCGANGenerator, MLPGenerator, ",
        ),
        (
            "--model.generator no.such.Class",
            "--model.generator: cannot import no.such.Class: No module named 'no'; check the dotted path, and that it "
            "is installed",
        ),
        # wrong values
        ("--trainer.max_steps abc", "--trainer.max_steps: expected int, got abc"),
        (
            "--model.latents norml",
            "--model.latents: expected one of 'normal', 'uniform', got norml; did you mean normal?",
        ),
        ("--seed_everything x", "--seed_everything: expected bool or int, got x"),
        ("--model.generator.channels many", "--model.generator.channels: expected list, got many; a list is typed in"),
        ("--model.discriminator_steps 0", "discriminator_steps: expected 1 or more, got 0; give a positive number"),
        ("--model.generator_accumulation 0", "generator_accumulation: expected 1 or more, got 0; give a positive"),
        (
            "--model.discriminator_accumulation 3",
            "discriminator_accumulation: expected training batches of a multiple of 3 images in each process, got 64",
        ),
        ("--model.ema_half_life 0", "ema_half_life: expected 1 or more, got 0.0; give a positive number"),
        ("--model.ema_ramp_up 0", "ema_ramp_up: expected a number above 0, got 0.0; give one, or none for no ramp-up"),
        (
            "--model.discriminator.label_embedding 4",
            "label_embedding: expected none with conditioning projection, got 4; omit it, or choose conditioning "
            "concatenation",
        ),
        ("--model.generator.label_embedding 0", "label_embedding: expected 1 or more, got 0; give a positive number"),
        (
            "--model.discriminator.conditioning classifier",
            "auxiliary_classifier: expected an AuxiliaryClassifier, since the discriminator has a classifier, got none",
        ),
        (
            "--model.auxiliary_classifier.weight 1",
            "auxiliary_classifier: expected a discriminator with a classifier, got one without",
        ),
        ("--data.image_size -8", "--data.image_size: expected 1 or more, got -8; give a positive number"),
        ("--curves.every_n_seconds 0", "--curves.every_n_seconds: expected 1 or more, got 0.0; give a positive number"),
        ("--samples.rows 0", "--samples.rows: expected 1 or more, got 0; give a positive number"),
        (
            "--data.classes [4,10]",
            "--data.classes: expected names or numbers of classes, got 10; choose from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        (
            "--trainer.check_val_every_n_epoch 0",
            "--trainer.check_val_every_n_epoch: expected 1 or more, got 0; give a positive number",
        ),
        (
            "--samples.labels []",
            "--samples.labels: expected classes, got none; name some, or omit the option for all",
        ),
        (
            "--samples.labels [3,12]",
            "--samples.labels: expected names or numbers of classes, got 12; choose from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        (
            "--data.batch_size 5000",
            "--data.batch_size: expected at most 1317 images in a step, as many as there are to train on, got 5000",
        ),
        # networks, data and sizes
        (
            "--data.image_size 30",
            "image_size: DCGANGenerator with these settings makes images whose size is a multiple of 4, got 30; resize "
            "the data with --data.image_size 28 or 32, or choose another network",
        ),
        (
            "--model.generator.num_classes 3",
            "--model.generator.num_classes: expected to be omitted, got 3; it is taken from the data",
        ),
        (
            "--model.penalties+=R1",
            "--model.penalties: expected a value for gamma, got none; give --model.penalties.gamma",
        ),
        # files
        ("--ckpt_path last.ckpt", "--ckpt_path: no such file: last.ckpt; check the path"),
        ("--config no.yaml", "--config: no such file: "),
        # Lightning's own
        ("--trainer.devices x", "--trainer.devices: expected another value, got x (`devices` selected with"),
        (
            "--trainer.gradient_clip_val 1.0",
            "--trainer.gradient_clip_val: expected to be omitted, got 1.0; set it for each network, with "
            "--model.generator_clip_norm and --model.discriminator_clip_norm",
        ),
        (
            "--trainer.accumulate_grad_batches 4",
            "--trainer.accumulate_grad_batches: expected to be omitted, got 4; set it for each network, with "
            "--model.generator_accumulation and --model.discriminator_accumulation",
        ),
    ],
)
def test_mistake_on_the_command_line(fails: Fails, tmp_path: Path, arguments: str, message: str) -> None:
    assert fails(*FIT, *arguments.split()).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trainer: {max_stepz: 3}",
            "trainer.max_stepz: no such option (in a config); did you mean trainer.max_steps?",
        ),
        ("samples: null", "--samples: expected options, got null; omit it for their defaults"),
        (
            "model: {generator_optimizer: null}",
            "--model.generator_optimizer: expected Optimizer, got null; omit it for its default",
        ),
        ("scores: {images: null}", "--scores.images: expected int, got null; omit it for its default"),
        ("runs_dir: null", "--runs_dir: expected str, got null; omit it for its default"),
        (
            "model: {latents: null}",
            "--model.latents: expected Literal['normal', 'uniform'], got null; omit it for its",
        ),
        (
            "model: {generator: {class_path: DCGANGenerator, init_args: {latent_dim: null}}}",
            "--model.generator.latent_dim: expected int, got null; omit it for its default",
        ),
        (
            "model: {penalties: [{class_path: R1, init_args: {gamma: 1.0, interval: null}}]}",
            "--model.penalties.0.interval: expected int, got null; omit it for its default",
        ),
        (
            "model: {generator_optimizer: {class_path: Adam, init_args: {eps: null}}}",
            "--model.generator_optimizer.eps: expected float, got null; omit it for its default",
        ),
        ("curves: 3", "--curves: expected options, got 3; omit it for their defaults"),
        ("trainer: null", "--trainer: expected options, got null; omit it for their defaults"),
        ("trainer: [", "--config: not a readable YAML file in own.yaml (while parsing a flow node"),
        (
            "data: {class_path: DigitsData, init_args: {batchsize: 3}}",
            "--data.batchsize: DigitsData has no such option; did you mean batch_size?",
        ),
        (
            "model: {generator: {class_path: MLPGen}}",
            "--model.generator: expected the name of a class, got MLPGen; did you mean MLPGenerator?",
        ),
    ],
)
def test_mistake_in_a_config(fails: Fails, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    assert fails(*FIT, "--config", "own.yaml").startswith(f"error: {message}")


@pytest.mark.parametrize("threads", ["one", "chosen"])
def test_network_without_weights(fails: Fails, tmp_path: Path, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads == "chosen":  # by passes through both networks
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    config = yaml.safe_load(Path(DIGITS).read_text())
    config["model"]["discriminator"] = {}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    assert fails("fit", "--config", "own.yaml", "--trainer.accelerator", "cpu") == (
        "error: discriminator: expected a network with weights, got Discriminator, which has none; name another, such "
        "as MLPDiscriminator"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["own.yaml"]


def test_misspelt_command_and_file(fails: Fails, tmp_path: Path) -> None:
    assert fails("fitt") == "error: fitt: no such command; did you mean fit?"
    assert fails("fit").startswith(
        "error: expected --model.generator, --model.discriminator, --model.loss, --data, got"
    )
    near = CONFIGS / "digit.yaml"
    assert fails("fit", "--config", str(near)) == f"error: --config: no such file: {near}; did you mean digits.yaml?"
    assert fails("fit", "--config", "digit").endswith("/digit; did you mean digits?")
    (tmp_path / "last.ckpt").touch()
    assert (
        fails(*FIT, "--ckpt_path", "lst.ckpt") == "error: --ckpt_path: no such file: lst.ckpt; did you mean last.ckpt?"
    )
    assert fails("validate").startswith(
        "error: expected --model.generator, --model.discriminator, --model.loss, --data,"
    )
    for command in ("validate", "test", "predict"):
        message = fails(command, "--config", DIGITS)
        assert message == f"error: --ckpt_path: expected a checkpoint to {command}, got none; name one"


def on_mnist(fails: Fails, folder: Path) -> str:
    mnist = ("fit", "--config", str(CONFIGS / "mnist.yaml"), "--data.data_dir", str(folder))
    return fails(*mnist, "--trainer.accelerator", "cpu", "--trainer.max_steps", "1")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads fail at once, also where there is a network."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


@pytest.mark.usefixtures("no_network")
def test_missing_data(fails: Fails, tmp_path: Path) -> None:
    message = on_mnist(fails, tmp_path / "nowhere")
    assert message.startswith(f"error: MNIST is not in {tmp_path}/nowhere/MNIST/raw and cannot be downloaded (")
    assert "give the folder that holds it with --data.data_dir" in message
    assert message.endswith("or train on configs/digits.yaml, which needs no download")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_network")
def test_truncated_archive(fails: Fails, tmp_path: Path) -> None:
    archive = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(gzip.compress(bytes(100))[:20])
    message = on_mnist(fails, tmp_path)
    assert message == (
        f"error: {archive}: expected the archive with md5 f68b3c2dcbeaaa9fbdd348bbdeb94873, got another file of 20 "
        "bytes; delete it, and it will be downloaded again"
    )


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\x00", b"<html>Not found</html>"])
def test_broken_unpacked_file(fails: Fails, tmp_path: Path, name: str, content: bytes | None) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, 60)
    file = tmp_path / "MNIST" / "raw" / name
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    message = on_mnist(fails, tmp_path)
    assert message.startswith(f"error: {file}: expected a complete IDX file, got {file.stat().st_size:,} bytes (")
    assert message.endswith("; delete it, and it will be unpacked or downloaded again")
    assert not (tmp_path / "runs").exists()


def test_broken_test_split_is_found_by_who_reads_it(tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, 60)
    file = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-7])
    data = MNISTData(data_dir=str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    with pytest.raises(UsageError, match="t10k-labels-idx1-ubyte: expected a complete IDX file, got 61 bytes"):
        data.setup("test")


def test_images_and_labels_of_different_number(fails: Fails, tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, 60)
    images = (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    write_idx(tmp_path / "MNIST" / "raw", "train", 40)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(images)
    assert "expected as many labels as train-images-idx3-ubyte has images (60), got 40; delete both files" in on_mnist(
        fails, tmp_path
    )


def test_label_outside_the_classes(fails: Fails, tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, 110, highest_label=10)
    message = on_mnist(fails, tmp_path)
    assert message.startswith("error: MNISTData: expected labels from 0 to 9, got [10] in 10 images; fix the files in ")
    assert not (tmp_path / "runs").exists()
