"""What a module does beside training: losses on held-out images, and images of labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cgan.core.rng import PREDICTION, TEST, VALIDATION, generator_at
from lightning_cgan.networks.base import judge
from lightning_cgan.networks.latents import Drawing
from lightning_cgan.networks.sampler import SamplingModule
from lightning_cgan.objectives.losses import AdversarialLoss
from lightning_cgan.training.batches import TrainingBatches
from lightning_cgan.training.spawning import Spawnable


class EvaluationSteps(SamplingModule, Spawnable):
    """A module that is validated, tested, and asked for images.

    Attributes:
        loss: What the two networks minimise.
        drawing: How `predict` draws the latents of numbered images.
    """

    loss: AdversarialLoss
    drawing: Drawing
    _batches: TrainingBatches

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs both losses on held-out images, `val_discriminator_loss` and `val_generator_loss`.

        Of several loaders, each has losses of its own, whose names end in `/dataloader_idx_0`, and so on.
        """
        pair = self._batches.check(batch, "validation", batch_idx)
        self._report_losses("val", *pair, VALIDATION, batch_idx, *_unless_first(dataloader_idx))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs both losses on the test split, `test_discriminator_loss` and `test_generator_loss`; see the former."""
        pair = self._batches.check(batch, "test", batch_idx)
        self._report_losses("test", *pair, TEST, batch_idx, *_unless_first(dataloader_idx))

    def _report_losses(self, prefix: str, real: Tensor, labels: Tensor, *address: int) -> None:
        losses = [torch.zeros((), device=self.device)] * 2  # of a process that has no share of the last, short batch
        if len(real):
            latents, fake_labels = self.dealer.draw_fakes(self._generator(*address), labels, alone=True)
            real_logits = judge(self.discriminator, real, labels).logits
            fake_logits = judge(self.discriminator, self.generator(latents, fake_labels), fake_labels).logits
            losses = [self.loss.discriminator(real_logits, fake_logits), self.loss.generator(fake_logits, real_logits)]
        self.report_losses(prefix, len(real), discriminator_loss=losses[0], generator_loss=losses[1])

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Makes an image of each label: images (N, C, H, W) in [-1, 1], and the labels again, int64.

        Args:
            batch: Labels with the numbers of the images within their classes, shape (N, 2), which `drawing` draws the
                latents for; or labels alone, shape (N,), for any latents. Also as the one part of a list.
            batch_idx: The number of the batch.
            dataloader_idx: The number of the loader, where there are several.

        Raises:
            UsageError: The batch is something else.
        """
        given = self._batches.check_prediction(batch, batch_idx)
        labels = given if given.ndim == 1 else given[:, 0]
        if given.ndim == 1:
            address = (PREDICTION, batch_idx, *_unless_first(dataloader_idx))
            latents = self.dealer.draw_latents(len(given), self._generator(*address))
        else:
            latents = self.drawing.latents(labels, given[:, 1], self.generator.latent_dim, self.latents)
        with torch.autocast(self.device.type, enabled=False):  # as precisely as `generate` alone makes them
            return self.generate(labels, latents), labels

    def _generator(self, *address: int) -> torch.Generator:
        assert self.seed is not None, "the seed is known once a Trainer runs"
        return generator_at(self.seed, *address, device=self.device)


def _unless_first(dataloader_idx: int) -> tuple[int, ...]:
    """The part of an address that says which of several loaders it is; most runs have one."""
    return (dataloader_idx,) if dataloader_idx else ()
