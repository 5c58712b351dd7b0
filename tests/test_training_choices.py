"""docs/training_choices.md: its commands run, and early stopping counts the same in a run that resumes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

import lightning_cgan as cgan
from helpers.paths import ROOT
from helpers.quiet import quiet_trainer
from helpers.run_files import last_of
from lightning_cgan.callbacks import report
from lightning_cgan.cli.main import main
from lightning_cgan.evaluation.protocol import ScoringProtocol

PAGE = (ROOT / "docs" / "training_choices.md").read_text()


def commands() -> list[list[str]]:
    """The words of each command of the page, after the program's name."""
    blocks = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    assert all(words[:3] == ["python", "-m", "lightning_cgan"] for words in lines)
    return [words[3:] for words in lines]


@pytest.fixture
def short(_quick_judge: None, monkeypatch: pytest.MonkeyPatch, mnist_folder: str) -> list[str]:
    """Options that shorten a command: little data, few steps, and a report of little."""
    brief = ScoringProtocol("full", images=100, training_images=100, epochs=1, seeds=(0,), seeds_of_bound=(0,))
    monkeypatch.setitem(report._PROTOCOLS, "full", brief)
    return ["--data.data_dir", mnist_folder, "--trainer.accelerator", "cpu", "--scores.images", "50"]


FIT = ["--trainer.max_steps", "8", "--trainer.check_val_every_n_epoch", "1", "--samples.columns", "1"]


@pytest.mark.ci
def test_commands_of_the_page(short: list[str]) -> None:
    seen = []
    for words in commands():
        if "MLFlowLogger" in words:
            for package in ("mlflow", "sqlalchemy", "alembic"):
                pytest.importorskip(package)
        name = str(len(seen))
        if words[0] == "fit":
            main([*words, *short, *FIT, "--name", name])
            (folder,) = Path("runs", name).iterdir()
            seen.append(folder)
        else:
            (last,) = Path("runs", "0").glob("*/checkpoints/last.ckpt")
            main([str(last) if "…" in word else word for word in words] + short)
            assert (last.parent / "last-report" / "report.json").exists()
    (stopping,) = [state for key, state in last_of(seen[0])["callbacks"].items() if key.startswith("EarlyStopping")]
    assert stopping["patience"] == 5
    assert 0 < float(stopping["best_score"]) < float("inf")  # there was a score to watch
    extras = [{"tensorboard", "wandb"} & {file.name for file in folder.iterdir()} for folder in seen]
    assert extras == [set(), set(), {"tensorboard"}, {"wandb"}, set()]  # the tests have no Weights & Biases by default
    assert Path("mlflow.db").exists()


@pytest.mark.ci
def test_config_of_the_page(short: list[str], tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    # A path of its own: MLflow keeps the connection of a relative one, also in another folder.
    (tmp_path / "mine.yaml").write_text(config.replace("sqlite:///mlflow.db", f"sqlite:///{tmp_path}/mine.db"))
    main(["fit", "--config", "mnist", "--config", "mine.yaml", *short, *FIT])
    assert (tmp_path / "mine.db").exists()


class Counted(Callback):
    """Notes how many validations in a row were no better; at a given step, the process dies."""

    def __init__(self, dies_at: int = -1) -> None:
        self.dies_at = dies_at
        self.waited: dict[int, int] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.dies_at:
            raise InterruptedError
        (stopping,) = trainer.early_stopping_callbacks
        self.waited[trainer.global_step] = stopping.wait_count  # type: ignore[attr-defined]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("dies_at", [10, 12, 13])  # at an epoch's end; two and three steps later
def test_early_stopping_counts_the_same_after_a_resume(tmp_path: Path, every: int, dies_at: int) -> None:
    def fit(folder: str, counted: Counted, checkpoint: Path | None = None) -> int:
        networks = cgan.MLPGenerator(10, 1, 8, latent_dim=4, hidden=(8,)), cgan.MLPDiscriminator(10, 1, 8, hidden=(8,))
        stopping = EarlyStopping("val_generator_loss", min_delta=1e9, patience=3)  # no loss is that much smaller
        options: dict[str, Any] = {"enable_checkpointing": True, "check_val_every_n_epoch": every}
        callbacks = [stopping, counted, cgan.Checkpoints(every_n_train_steps=5)]
        trainer = quiet_trainer(-1, callbacks=callbacks, default_root_dir=tmp_path / folder, max_epochs=20, **options)
        trainer.fit(
            cgan.ConditionalGAN(*networks, cgan.NonSaturating()), cgan.DigitsData(batch_size=256), ckpt_path=checkpoint
        )
        return int(trainer.global_step)

    whole, first, second = Counted(), Counted(dies_at), Counted()
    assert fit("whole", whole) == 20 * every  # four epochs of five steps, or twice as many
    with pytest.raises(InterruptedError):
        fit("killed", first)
    (last,) = tmp_path.glob("killed/**/last.ckpt")
    assert fit("killed", second, last) == 20 * every
    assert {**first.waited, **second.waited} == whole.waited
    assert max(whole.waited.values()) == 2


def test_early_stopping_of_a_training_loss_or_as_the_user_says_is_left_alone(tmp_path: Path) -> None:
    looks: Callable[[EarlyStopping], bool] = lambda stopping: bool(stopping._check_on_train_epoch_end)  # noqa: E731
    for stopping in (EarlyStopping("generator_loss"), EarlyStopping("val_loss", check_on_train_epoch_end=True)):
        stopping.strict = False
        networks = cgan.MLPGenerator(10, 1, 8), cgan.MLPDiscriminator(10, 1, 8)
        trainer = quiet_trainer(1, callbacks=[stopping], default_root_dir=tmp_path)
        trainer.fit(cgan.ConditionalGAN(*networks, cgan.NonSaturating()), cgan.DigitsData())
        assert looks(stopping)
