"""The config of a run, beside its results."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback


class SaveConfig(SaveConfigCallback):
    """Writes `config.yaml` into the folder of a fit, and hands the config to the loggers that keep one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves, in a fit; one that goes on in its folder writes `config_2.yaml` and so on beside the first."""
        if stage == "fit" and trainer.loggers:
            written = len(list(Path(trainer.log_dir or "").glob("config*.yaml")))
            self.config_filename = f"config_{written + 1}.yaml" if written else "config.yaml"
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hands the config to the loggers."""
        config = json.loads(self.parser.dump(self.config, skip_none=False, format="json"))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)
