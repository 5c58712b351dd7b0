"""A fit by two processes that the Trainer starts itself, of which `test_further_fits.py` starts each kind."""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from helpers.seen_latents import fit, gan, loader
from lightning_cgan import ConditionalGAN


class Named(LightningDataModule):
    class_names = ("ant", "bee", "cat")

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(4)


def main(strategy: str) -> None:
    torch.manual_seed(6)
    module = gan(ema_half_life=50.0)
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    trainer = Trainer(max_steps=5, devices=2, strategy=strategy, log_every_n_steps=3, **quiet)
    names = list(module.state_dict())
    trainer.fit(module, Named())
    assert list(module.state_dict()) == names
    assert (module.seed, module.ema.images_seen) == (6, 40), (module.seed, module.ema.images_seen)
    assert module.class_names == ("ant", "bee", "cat")
    assert {role: int(count) for role, count in module.optimization.skipped_steps.items()} == {
        "generator": 0,
        "discriminator": 0,
    }
    assert module.scalars.counts["generator_loss"] == 2  # since step 3
    trainer.save_checkpoint("home.ckpt")
    assert not any("lightning_cgan" in name for name in torch.load("home.ckpt", weights_only=True)["state_dict"])
    loaded = ConditionalGAN.load_from_checkpoint("home.ckpt")
    assert (loaded.seed, loaded.ema.images_seen) == (6, 40)
    for value, other in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    torch.manual_seed(6)
    assert fit(module)
    assert module.seed != 6
    print("came home")


if __name__ == "__main__":
    main(sys.argv[1])
