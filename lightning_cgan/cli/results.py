"""What a command prints at its end: where the results of a run are, and how to resume it."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from lightning_cgan.runs.folder import RunFolder, resume_command
from lightning_cgan.runs.loggers import wandb_upload


def print_results(trainer: Trainer, folder: RunFolder | None) -> None:
    """Prints where the results of a run are, listing only files that exist."""
    if trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
        return
    run = folder.path if folder else Path(trainer.default_root_dir)
    pictures = [run / name for name in ("samples", "samples.gif", "curves.png") if (run / name).exists()]
    if pictures:
        print(f"Pictures: {', '.join(map(str, pictures))}")
    if (run / "index.html").exists():
        print(f"Page for a browser: {run / 'index.html'}")
    print(f"Checkpoint: {_last_checkpoint(trainer, run)}")
    if folder and (command := wandb_upload(folder.path)):
        print(f"Weights & Biases: to upload the run, {command}")


def _last_checkpoint(trainer: Trainer, run: Path) -> str:
    names = ("last_model_path", "best_model_path")
    written = [getattr(callback, name, "") for name in names for callback in trainer.checkpoint_callbacks]
    found = [file for file in (run / "checkpoints" / "last.ckpt", *written) if file and Path(file).exists()]
    if found:
        return str(found[0])
    return (
        "none, since none could be written" if trainer.checkpoint_callbacks else "none, since checkpoints are disabled"
    )


def print_resume_command(trainer: Trainer, folder: RunFolder | None) -> None:
    """Prints how to resume a stopped run, if it has a checkpoint."""
    saved = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    checkpoint = next(filter(None, saved), None)
    if checkpoint:
        print(f"Stopped at step {trainer.global_step:,}. To resume:")
        print(f"  {resume_command(folder.path if folder else None, checkpoint)}")
