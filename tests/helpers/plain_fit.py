"""The run of `scripts/ray_train.py`, by Lightning alone."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer, seed_everything

import lightning_cgan as cgan


def fit(file: str, processes: str) -> None:
    """Trains in one process, or in one of several that a launcher has started, and writes a checkpoint."""
    torch.set_num_threads(1)
    seed_everything(0)
    networks = cgan.MLPGenerator(10, 1, 8), cgan.MLPDiscriminator(10, 1, 8)
    gan = cgan.ConditionalGAN(*networks, cgan.NonSaturating(), ema_half_life=5000)
    trainer = Trainer(
        max_epochs=10,
        accelerator="cpu",
        devices=int(processes),
        strategy="ddp" if processes != "1" else "auto",
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(gan, cgan.DigitsData(batch_size=64))
    trainer.save_checkpoint(file)
