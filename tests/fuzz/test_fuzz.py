"""Whatever a reader is given, it reads it or says in one line what is wrong with it.

`FUZZED_INPUTS=2000 python -m pytest tests/fuzz` tries as many inputs for each reader; by default there are a few, and
fewer where an input is a whole command line.
"""

from __future__ import annotations

import functools
import gzip
import io
import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import MNIST

from helpers.fuzzing import check_reader, fuzz, fuzz_a_little
from helpers.idx_files import write_idx
from helpers.mutations import JUNK, TENSORS, spoilt_bytes, spoilt_trees
from helpers.paths import CONFIGS, DIGITS, OLD
from lightning_cgan import (
    ArrayData,
    AtomicCheckpointIO,
    ConditionalGAN,
    ImageFolderData,
    LabelledImages,
    MNISTData,
)
from lightning_cgan.cli.main import main
from lightning_cgan.runs.csv_logger import MetricsFile
from lightning_cgan.training.optimizer_config import configuration

SMALL = ["--model.generator", "MLPGenerator", "--model.generator.latent_dim", "4", "--model.generator.hidden", "[8]"]
SMALL += ["--model.discriminator", "MLPDiscriminator", "--model.discriminator.hidden", "[8]", "--data.image_size", "8"]
FIT = ["fit", "--config", DIGITS, "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]


class AlternatedError(Exception):
    """Ends a run behind its first step."""


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins is over after one step, and nothing is downloaded."""
    step = ConditionalGAN.training_step

    def training_step(module: ConditionalGAN, batch: Any, batch_idx: int) -> None:
        step(module, batch, batch_idx)
        raise AlternatedError

    monkeypatch.setattr(ConditionalGAN, "training_step", training_step)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


def check_command(arguments: list[str]) -> None:
    """Runs a command line, which must get as far as a step, or end with one line and leave nothing."""
    shutil.rmtree("runs", ignore_errors=True)
    errors = io.StringIO()
    with redirect_stderr(errors), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main(arguments)
        except AlternatedError:
            return
        except SystemExit as ended:
            if not ended.code:
                return  # as for --help
            lines = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
            assert ended.code == 2  # noqa: PT017
            assert len(lines) == 1, errors.getvalue()
            assert not Path("runs").exists(), lines


def use(data: LabelledImages) -> None:
    """Reads both splits of a data set, and makes a batch of each."""
    data.prepare_data()
    for stage, loader in (("fit", data.train_dataloader), ("test", data.test_dataloader)):
        data.setup(stage)
        batch, _ = next(iter(loader()))
        assert batch.isfinite().all()


@functools.cache
def options() -> list[str]:
    """The options of `fit`, but for those that ask for other machines, or for much memory."""
    shown = io.StringIO()
    with redirect_stdout(shown), pytest.raises(SystemExit):
        main(["fit", "--help"])
    words = {word.strip("[]{},=") for word in shown.getvalue().split()}
    return sorted(word for word in words if word.startswith("--") and word not in ("--help", "--print_config"))


VALUES = ["", "x", "-1", "0", "1", "2", "7", "0.5", "-0.5", "nan", "inf", "1e400", "null", "true", "[]", "[1]", "{}"]
VALUES += ["[1, a]", "{a: 1}", "[[", "é", "a b", "Adam", "DigitsData", "MNISTData", "os.system", "lightning_cgan.Hinge"]
VALUES += ["--", "=", "../x", "/", "*", "last", "16-mixed", "bf16-mixed", "ddp", "gpu", "auto", "normal", "1" * 40]


def check_command_line(data: st.DataObject) -> None:
    names = st.sampled_from(options())
    misspelt = names.map(lambda name: name[:-1])
    pairs = st.lists(st.tuples(st.one_of(names, names, names, misspelt), st.sampled_from(VALUES)), max_size=3)
    arguments = [part for pair in data.draw(pairs) for part in pair]
    where = data.draw(st.sampled_from(["behind", "behind", "before"]))
    check_command([*FIT, *arguments] if where == "behind" else [*arguments, *FIT])


@given(data=st.data())
@fuzz_a_little
def test_command_lines(data: st.DataObject) -> None:
    check_command_line(data)


@pytest.mark.ci
@given(data=st.data())
@fuzz
def test_more_command_lines(data: st.DataObject) -> None:
    check_command_line(data)


def shipped_configs() -> list[str]:
    return [file.read_text() for file in sorted(CONFIGS.rglob("*.yaml"))]


def check_config(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(shipped_configs()))
    if data.draw(st.booleans()):
        tree = data.draw(spoilt_trees({**yaml.safe_load(text), "name": "x", "ckpt_path": None}, JUNK))
        content = yaml.safe_dump(tree, allow_unicode=True).encode()
    else:
        content = data.draw(spoilt_bytes(text.encode()))
    Path("spoilt.yaml").write_bytes(content)
    small = ["--trainer.precision", "32-true", "--data", "DigitsData", "--data.batch_size", "4"]
    check_command(["fit", "--config", "spoilt.yaml", "--trainer.accelerator", "cpu", *small])


@given(data=st.data())
@fuzz_a_little
def test_configs(data: st.DataObject) -> None:
    check_config(data)


@pytest.mark.ci
@given(data=st.data())
@fuzz
def test_more_configs(data: st.DataObject) -> None:
    check_config(data)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, 60)
    return tmp_path / "MNIST" / "raw"


@given(data=st.data())
@fuzz
def test_archives(archives: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(archives.glob("train-*-ubyte"))))
    whole = file.read_bytes()
    archive = file.with_name(f"{file.name}.gz")
    try:
        if data.draw(st.integers(0, 3)) == 0:
            file.unlink()
            archive.write_bytes(data.draw(spoilt_bytes(gzip.compress(whole))))
        else:
            file.write_bytes(data.draw(spoilt_bytes(whole)))
        check_reader(lambda: use(MNISTData(data_dir=str(archives.parent.parent), batch_size=4)))
    finally:
        file.write_bytes(whole)
        archive.unlink(missing_ok=True)


@pytest.fixture
def pictures() -> dict[str, bytes]:
    """An image in each of the usual formats."""
    made = {}
    for name in ("a.png", "b.jpg", "c.bmp", "d.webp", "e.gif", "f.pgm", "g.tif"):
        content = io.BytesIO()
        Image.effect_noise((9, 12), 50).save(
            content, Image.registered_extensions()[f".{name[-3:].replace('ebp', 'webp')}"]
        )
        made[name] = content.getvalue()
    return made


@given(data=st.data())
@fuzz
def test_image_folders(pictures: dict[str, bytes], data: st.DataObject) -> None:
    shutil.rmtree("images", ignore_errors=True)
    splits = data.draw(st.sampled_from([["train", "test"], ["train", "test"], ["."], ["train"]]))
    for split in splits:
        for label in data.draw(st.sets(st.sampled_from(["cat", "dog", "é n", ".hidden"]), max_size=3)):
            folder = Path("images", split, label)
            folder.mkdir(parents=True)
            for name in data.draw(st.sets(st.sampled_from(sorted(pictures)), max_size=4)):
                content = data.draw(st.one_of(st.just(pictures[name]), spoilt_bytes(pictures[name])))
                (folder / name).write_bytes(content)
            if data.draw(st.booleans()):
                (folder / "notes.txt").touch()
    options = {
        "image_size": data.draw(st.sampled_from([None, 8])),
        "image_channels": data.draw(st.sampled_from([None, 1, 3])),
        "corrupt": data.draw(st.sampled_from(["refuse", "skip"])),
        "memory_budget": data.draw(st.sampled_from([0.0, 1.0])),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_reader(lambda: use(ImageFolderData("images", batch_size=1, workers=0, **options)))


def arrays() -> dict[str, Any]:
    return {
        "images": np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4),
        "labels": np.arange(12) % 2,
        "class_names": ["cat", "dog"],
        "test_images": np.zeros((4, 4, 4), dtype=np.uint8),
        "test_labels": np.arange(4) % 2,
    }


@given(data=st.data())
@fuzz
def test_files_of_arrays(data: st.DataObject) -> None:
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    kept = data.draw(st.sampled_from([slice(0, 2), slice(0, 3), slice(0, 5)]))
    content = io.BytesIO()
    save(content, **dict(list(arrays().items())[kept]))
    Path("spoilt.npz").write_bytes(data.draw(spoilt_bytes(content.getvalue())))
    check_reader(lambda: use(ArrayData("spoilt.npz", batch_size=1)))


@given(data=st.data())
@fuzz
def test_arrays(data: st.DataObject) -> None:
    odd = [
        np.zeros(12),
        np.zeros((12, 3, 4, 4), dtype=np.uint8),
        np.full(12, 2**40),
        np.zeros((0, 4, 4), dtype=np.uint8),
    ]
    given_arrays = data.draw(spoilt_trees(arrays(), [*JUNK, *TENSORS, *odd]))
    if isinstance(given_arrays, (dict, str)):
        check_reader(lambda: use(ArrayData(given_arrays, batch_size=1)))


@given(data=st.data())
@fuzz
def test_bytes_of_checkpoints(data: st.DataObject) -> None:
    Path("spoilt.ckpt").write_bytes(data.draw(spoilt_bytes(Path(OLD).read_bytes())))
    check_reader(lambda: AtomicCheckpointIO().load_checkpoint("spoilt.ckpt"))


@pytest.fixture(scope="module")
def old() -> Any:
    """An older checkpoint, with what newer ones hold of their optimizers and schedules."""
    checkpoint = torch.load(OLD, weights_only=True)
    parts: Any = ConditionalGAN.load_from_checkpoint(OLD).configure_optimizers()
    configs = [SimpleNamespace(**part["lr_scheduler"], frequency=1) for part in parts]
    configured = configuration([part["optimizer"] for part in parts], configs)
    checkpoint["lightning_cgan"]["configured"] = configured
    return checkpoint


def check_content(old: Any, data: st.DataObject) -> None:
    torch.save(data.draw(spoilt_trees(old, [*JUNK, *TENSORS])), "spoilt.ckpt")
    command = data.draw(st.sampled_from(["fit", "fit", "validate", "predict"]))
    check_command([command, *FIT[1:], *SMALL, "--ckpt_path", "spoilt.ckpt"])


@given(data=st.data())
@fuzz_a_little
def test_content_of_checkpoints(old: Any, data: st.DataObject) -> None:
    check_content(old, data)


@pytest.mark.ci
@given(data=st.data())
@fuzz
def test_more_content_of_checkpoints(old: Any, data: st.DataObject) -> None:
    check_content(old, data)


@given(data=st.data())
@fuzz
def test_tables(data: st.DataObject) -> None:
    whole = b"generator_loss,step,val_judge_fid\r\n1.5,1,\r\n1.25,2,3.5\r\n"
    Path("metrics.csv").write_bytes(data.draw(spoilt_bytes(whole)))
    file = MetricsFile(Path())
    file.truncate_to(2)
    file.log_metrics({"generator_loss": 1.0}, step=3)
    again = MetricsFile(Path())
    again.truncate_to(100)
    assert len(again.rows) == len(file.rows)
