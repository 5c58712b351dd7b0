"""Weights & Biases: an offline run, read back from the file that W&B itself wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.wandb_files import written_records
from lightning_cgan.runs.loggers import _mode_of_environment, wandb_logger

pytest.importorskip("wandb")


def by_key(items: Any) -> dict[str, Any]:
    keys = ((item.key or "/".join(item.nested_key), item.value_json) for item in items)
    return {key: json.loads(value) for key, value in keys}


@pytest.mark.ci
def test_offline_run_holds_scalars_images_and_config(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key there
    folder = run(
        *("--trainer.max_steps", "6", "--trainer.log_every_n_steps", "2", "--samples.every_n_steps", "3"),
        *("--data.batch_size", "300", "--trainer.check_val_every_n_epoch", "1", "--wandb.tags", "[test]"),
    )
    everything = written_records(folder)
    (begin,) = [record.run for record in everything if record.HasField("run")]
    assert (begin.project, begin.display_name, list(begin.tags)) == ("lightning_cgan", "digits", ["test"])

    history = [by_key(record.history.item) for record in everything if record.HasField("history")]
    scalars = {row["trainer/global_step"]: row for row in history if "generator_loss" in row}
    assert sorted(scalars) == [2, 4, 6]
    for name in ("discriminator_loss", "generator_loss", "real_logits", "fake_logits", "images_per_second"):
        assert isinstance(scalars[4][name], float)
    assert [row["trainer/global_step"] for row in history if "val_generator_loss" in row] == [4]
    images = {row["trainer/global_step"]: row for row in history if "samples/filenames" in row}
    assert sorted(images) == [0, 3, 6]
    (files,) = folder.glob("wandb/offline-run-*/files")
    shown = Image.open(files / images[6]["samples/filenames"][0])
    assert shown.size == (images[6]["samples/width"], images[6]["samples/height"])
    assert shown.tobytes() == Image.open(folder / "samples" / "00000006.png").tobytes()

    config: dict[str, Any] = {}
    for record in everything:
        if record.HasField("config"):
            config |= by_key(record.config.update)
    assert config["data"]["class_path"] == "lightning_cgan.DigitsData"
    assert config["trainer"]["max_steps"] == 6


@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [
        (None, None, "offline"),
        (None, "environment", "online"),
        (None, "netrc", "online"),
        (None, "netrc of another host", "offline"),
        ("offline", "environment", "offline"),
        ("dryrun", "environment", "offline"),
        ("online", None, "online"),
        ("disabled", "environment", "disabled"),
    ],
)
def test_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str | None, key: str | None, expected: str
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    if key == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    elif key:
        host = "api.wandb.ai" if key == "netrc" else "example.org"
        (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
        (tmp_path / ".netrc").chmod(0o600)
    assert _mode_of_environment() == expected
    logger = wandb_logger(tmp_path, "name")
    assert (logger is None) == (expected == "disabled")


def test_the_option_overrules_the_environment(tmp_path: Path) -> None:
    assert wandb_logger(tmp_path, "name") is None  # the tests' own WANDB_MODE
    assert wandb_logger(tmp_path, "name", mode="offline") is not None
