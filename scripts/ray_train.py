"""Trains on scikit-learn's digits with Ray Train, and resumes from the last checkpoint if a worker dies.

    python scripts/ray_train.py

Copy it and replace networks, data and numbers; `docs/clusters.md` says what is resumed.
"""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, get_checkpoint
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, RayTrainReportCallback, prepare_trainer
from ray.train.torch import TorchTrainer

from lightning_cgan import ConditionalGAN, DigitsData, MLPDiscriminator, MLPGenerator, NonSaturating

USE_GPU = False  # whether each worker gets a GPU


def train() -> None:
    """Runs in each worker, at the start and after each failure."""
    seed_everything(0)
    gan = ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), NonSaturating(), ema_half_life=5000)
    data = DigitsData(batch_size=64)  # images per step, over all workers
    trainer = Trainer(
        max_epochs=10,
        accelerator="gpu" if USE_GPU else "cpu",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        callbacks=[RayTrainReportCallback()],  # gives Ray a checkpoint and the metrics at the end of each epoch
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer = prepare_trainer(trainer)
    checkpoint = get_checkpoint()  # None at the first start
    if checkpoint is None:
        trainer.fit(gan, data)
    else:
        with checkpoint.as_directory() as folder:
            trainer.fit(gan, data, ckpt_path=f"{folder}/{RayTrainReportCallback.CHECKPOINT_NAME}")


if __name__ == "__main__":
    result = TorchTrainer(
        train,
        scaling_config=ScalingConfig(num_workers=2, use_gpu=USE_GPU),
        run_config=RunConfig(
            name="digits",  # a run resumes by its name
            storage_path=str(Path("ray_runs").resolve()),  # or s3://…; all machines need access
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    ).fit()
    print(f"{result.metrics['step']} steps; checkpoint in {result.checkpoint.path}")
