"""Checkpoint files: whole or not there, looked at before they are used, and never a way to run code."""

from __future__ import annotations

import os
import pickle
import re
import resource
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.paths import OLD
from lightning_cgan import AtomicCheckpointIO, ConditionalGAN
from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.files import backup_path, write_atomic

Run = Callable[..., Path]


class Hostile:
    """Runs a command where it is unpickled carelessly."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def weights(value: float) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((2000,), value), "count": torch.tensor(3)}, "epoch": 1}


def value_in(checkpoint: dict[str, Any]) -> float:
    return float(checkpoint["state_dict"]["weight"][0])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The second of two checkpoints of the same name."""
    file = tmp_path / "last.ckpt"
    for value in (1.0, 2.0):
        AtomicCheckpointIO().save_checkpoint(weights(value), file)
    return file


def test_the_newest_is_read_and_the_one_before_is_kept(saved: Path) -> None:
    assert value_in(AtomicCheckpointIO().load_checkpoint(saved)) == 2.0
    assert value_in(AtomicCheckpointIO().load_checkpoint(backup_path(saved))) == 1.0
    assert sorted(file.name for file in saved.parent.iterdir()) == ["last.ckpt", "last.ckpt.previous"]
    AtomicCheckpointIO().remove_checkpoint(saved)
    assert list(saved.parent.iterdir()) == []


def test_a_torn_file_is_replaced_by_the_one_before(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.warns(UserWarning, match=r"last.ckpt is damaged or not a checkpoint .* loaded its backup"):
            assert value_in(AtomicCheckpointIO().load_checkpoint(saved)) == 1.0
    saved.unlink()
    with pytest.warns(UserWarning, match="last.ckpt does not exist; loaded its backup"):
        assert value_in(AtomicCheckpointIO().load_checkpoint(saved)) == 1.0


@pytest.mark.filterwarnings("ignore:.*loaded its backup")
def test_no_flipped_bit_changes_what_is_read(saved: Path) -> None:
    whole = saved.read_bytes()
    expected = torch.load(saved, weights_only=True)["state_dict"]["weight"]
    fallen_back = 0
    for place in range(0, len(whole), 37):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        got = AtomicCheckpointIO().load_checkpoint(saved)["state_dict"]["weight"]
        fallen_back += value_in({"state_dict": {"weight": got}}) == 1.0
        assert torch.equal(got, expected) or torch.equal(got, torch.ones(2000)), place
    assert fallen_back > 200  # of 260 places; the others are padding


def test_without_one_before_a_damaged_file_is_refused(saved: Path) -> None:
    backup_path(saved).unlink()
    saved.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(
        UsageError, match=r"--ckpt_path: expected a complete checkpoint, got .*last.ckpt, which is damaged"
    ):
        AtomicCheckpointIO().load_checkpoint(saved)
    saved.write_text("hello")
    with pytest.raises(
        UsageError, match=r"which is damaged or not a checkpoint \(File is not a zip file\); name another"
    ):
        AtomicCheckpointIO().load_checkpoint(saved)
    with pytest.raises(UsageError, match="which does not exist; name another"):
        AtomicCheckpointIO().load_checkpoint(saved.with_name("none.ckpt"))


def test_a_file_with_code_is_refused_and_nothing_runs(tmp_path: Path, run: Run, fails: Callable[..., str]) -> None:
    folder, trace = run("--trainer.max_steps", "1"), tmp_path / "trace"
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    hostile = tmp_path / "hostile.ckpt"
    torch.save({**checkpoint, "extra": Hostile(trace)}, hostile)
    for command in ("fit", "validate", "test", "predict"):
        message = fails(command, "--config", str(folder / "config.yaml"), "--ckpt_path", str(hostile))
        assert message.startswith("error: --ckpt_path: expected a checkpoint of plain weights, got ")
        assert message.endswith("; it was not loaded; name another")
    with pytest.raises(pickle.UnpicklingError):
        ConditionalGAN.load_from_checkpoint(hostile)
    assert not trace.exists()
    torch.load(hostile, weights_only=False)
    assert trace.exists()  # it would have


OTHERS = "expected the class of a part of a module, such as a network, loss or optimizer"
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "trace"]}}
LOSS = "expected a description of AdversarialLoss for loss"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"loss": {"class_path": "hostile_module.Loss", "init_args": {}}},
            "got hostile_module.Loss; import its module",
        ),
        ({"penalties": [{"class_path": "hostile_module.Loss"}]}, "got hostile_module.Loss; import its module first"),
        ({"generator": POPEN}, f"{OTHERS}, got subprocess.Popen; other classes are not built"),
        ({"generator_optimizer": POPEN}, f"{OTHERS}, got subprocess.Popen"),
        ({"generator_scheduler": POPEN}, f"{OTHERS}, got subprocess.Popen"),
        ({"penalties": [POPEN]}, f"{OTHERS}, got subprocess.Popen"),
        ({"loss": {"class_path": "functools.partial"}}, f"{OTHERS}, got functools.partial"),
        ({"loss": {"class_path": "builtins.eval"}}, f"{OTHERS}, got builtins.eval"),
        ({"loss": {"class_path": "Hinge"}}, f"{OTHERS}, got Hinge"),
        # what nobody has made public, or is there by accident
        (
            {"generator": {"class_path": "lightning_cgan.export.pretrained.build"}},
            "got lightning_cgan.export.pretrained.build",
        ),
        (
            {"loss": {"class_path": "lightning_cgan.objectives.losses.ConfigMixin"}},
            f"{OTHERS}, got lightning_cgan.objectives.losses.Con",
        ),
        ({"loss": {"class_path": "lightning_cgan.ConditionalGAN"}}, f"{OTHERS}, got lightning_cgan.ConditionalGAN"),
        ({"loss": {"class_path": "torch.nn.DataParallel"}}, f"{OTHERS}, got torch.nn.DataParallel"),
        ({"loss": {"class_path": "torch.nn.quantized.Linear"}}, f"{OTHERS}, got torch.nn.quantized.Linear"),
        # what is known, where something else belongs
        ({"loss": {"class_path": "torch.nn.ReLU"}}, f"{LOSS}, got torch.nn.ReLU"),
        ({"loss": {"class_path": "lightning_cgan.R1", "init_args": {"gamma": 1.0}}}, f"{LOSS}, got lightning_cgan.R1"),
        (
            {"generator_optimizer": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {}}},
            "expected Callable for generator_optimizer, got torch.optim.lr_scheduler.StepLR",
        ),
        # PyTorch's own take plain values only
        (
            {"generator_optimizer": {"class_path": "torch.optim.Optimizer", "init_args": {"defaults": {"lr": POPEN}}}},
            "expected a plain value for generator_optimizer.defaults.lr, got a description of an object",
        ),
        (
            {
                "generator_scheduler": {
                    "class_path": "torch.optim.lr_scheduler.LambdaLR",
                    "init_args": {"lr_lambda": {"class_path": "torch.nn.ReLU"}},
                }
            },
            "expected a plain value for generator_scheduler.lr_lambda, got a description of an object",
        ),
        (
            {"generator_optimizer": {"class_path": "torch.optim.Adam", "init_args": {"params": [1]}}},
            "expected options of Adam for generator_optimizer, got params; it takes lr, betas",
        ),
        # other forms
        (
            {"generator_scheduler": {"class_path": "torch.optim.swa_utils.SWALR", "dict_kwargs": {"swa_lr": POPEN}}},
            "expected a name as class_path, a mapping as init_args and nothing else for generator_scheduler, got class_path, dict_kwargs",
        ),
        (
            {"loss": {"class_path": ["lightning_cgan.Hinge"]}},
            "expected a name as class_path, a mapping as init_args and nothing else for loss, got",
        ),
        (
            {"loss": {"class_path": "lightning_cgan.Hinge", "init_args": []}},
            "expected a name as class_path, a mapping as init_args and nothing else",
        ),
        (
            {"loss": {"class_path": "lightning_cgan.Hinge", "init_args": {"weight": 1}}},
            "expected options of Hinge for l",
        ),
        ({"discriminator_steps": "2"}, "expected int for discriminator_steps, got 2"),
        ({"discriminator_steps": 0}, "discriminator_steps: expected 1 or more, got 0"),
        ({"latents": "cauchy"}, "expected 'normal' or 'uniform' for latents, got cauchy"),
        ({"latents": torch.zeros(1)}, "expected plain values for latents, got a Tensor"),
        ({"loss": None}, "expected a description of AdversarialLoss for loss, got None"),
    ],
)
def test_a_description_that_names_other_code_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    """A checkpoint says how its module is built: it must not be a way to choose what is imported or called."""
    (tmp_path / "hostile_module.py").write_text("open('trace', 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint = torch.load(OLD, weights_only=True)
    torch.save({**checkpoint, "hyper_parameters": {**checkpoint["hyper_parameters"], **changed}}, "hostile.ckpt")
    for opened in ("hostile.ckpt", BytesIO(Path("hostile.ckpt").read_bytes())):
        with pytest.raises(UsageError, match=re.escape(message)):
            ConditionalGAN.load_from_checkpoint(opened)
    assert not (tmp_path / "trace").exists()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UsageError, match="--ckpt_path: expected a checkpoint of Lightning, got a list in "):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "list.ckpt")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(UsageError, match=r"zip.ckpt, which is damaged or not a checkpoint"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "zip.ckpt")


def test_weights_that_are_nan_are_not_written(saved: Path) -> None:
    plugin = AtomicCheckpointIO()
    with pytest.warns(
        UserWarning, match="was not written: weight holds NaN. Training continues; the last good one stays"
    ):
        plugin.save_checkpoint(weights(float("nan")), saved)
    assert value_in(plugin.load_checkpoint(saved)) == 2.0
    plugin.remove_checkpoint(saved)  # as a ModelCheckpoint does that believes in the new one
    assert value_in(plugin.load_checkpoint(saved)) == 2.0
    plugin.save_checkpoint(weights(float("-inf")), saved)  # a mask may hold it
    plugin.remove_checkpoint(saved)
    assert not saved.exists()


@pytest.fixture
def _small_disk() -> Iterator[None]:
    """Files of more than 20,000 bytes cannot be written, as on a full disk: a write fails in its middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_small_disk")
def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    plugin, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    plugin.save_checkpoint({"state_dict": {"weight": torch.ones(2000)}}, file)
    with pytest.warns(UserWarning, match=r"last.ckpt was not written: \[Errno 27\] File too large. Training continues"):
        plugin.save_checkpoint({"state_dict": {"weight": torch.ones(20000)}}, file)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert len(plugin.load_checkpoint(file)["state_dict"]["weight"]) == 2000


def test_a_writer_that_dies_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomic(file, lambda path: path.write_text("old"))

    def die(path: Path) -> None:
        path.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(file, die)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.txt", "old")]


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"

    def write(path: Path) -> None:
        path.write_text("outer")
        write_atomic(file, lambda other: other.write_text("inner"))  # as a process of another machine might
        assert (file.read_text(), path.read_text()) == ("inner", "outer")

    write_atomic(file, write)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.txt", "outer")]


def test_leftovers_of_killed_processes_go(saved: Path) -> None:
    leftover = saved.with_name(".999-last.ckpt.unfinished")
    leftover.write_text("half")
    AtomicCheckpointIO().save_checkpoint(weights(3.0), saved)
    assert not leftover.exists()
