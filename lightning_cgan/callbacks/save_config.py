"""`config.yaml`, the config of a run in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lightning_cgan.core.errors import UsageError
from lightning_cgan.core.files import write_atomic


class SaveConfig(SaveConfigCallback):
    """Writes `config.yaml` to the run folder of `fit`, and logs the config as hyperparameters.

    Lightning's own callback writes in the encoding of the system, which may lack characters of a name.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the config in `fit`; resuming in the same folder adds `config_2.yaml` and so on."""
        if stage == "fit" and trainer.loggers and not self.already_saved:
            folder = Path(trainer.log_dir or "")  # a broadcast: all processes must take part
            if trainer.is_global_zero:
                self._write(folder)
                self.save_config(trainer, pl_module, stage)
            self.already_saved = True

    def _write(self, folder: Path) -> None:
        earlier = len(list(folder.glob("config*.yaml")))
        file = folder / (f"config_{earlier + 1}.yaml" if earlier else "config.yaml")
        content = self.parser.dump(self.config, skip_none=False).encode()
        try:
            write_atomic(file, lambda unfinished: unfinished.write_bytes(content))
        except OSError as error:
            expected = f"expected a folder to write to, got {folder}, where {file.name} cannot be written"
            raise UsageError(f"--runs_dir: {expected} ({error.strerror}); name another") from error

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Passes the config to the loggers."""
        config = json.loads(self.parser.dump(self.config, skip_none=False, format="json"))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)
