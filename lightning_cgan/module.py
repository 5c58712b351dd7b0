"""The conditional GAN: two networks, two optimizers, one training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_cgan.chance import Distribution, draw_latents, generator_at
from lightning_cgan.errors import UsageError, check_positive
from lightning_cgan.losses import AdversarialLoss
from lightning_cgan.networks.base import (
    Discriminator,
    Generator,
    check_agreement,
    check_same_shapes,
    frozen,
    uses_batch_statistics,
)
from lightning_cgan.penalties import GradientPenalty
from lightning_cgan.rebuildable import Rebuildable
from lightning_cgan.running_means import RunningMeans
from lightning_cgan.sampling import SamplingModule

FORMAT_VERSION = 1

# The purposes of random numbers, a part of their address.
_TRAINING, _VALIDATION, _TEST, _PREDICTION = range(4)


class ConditionalGAN(Rebuildable, SamplingModule):
    """Trains a generator and a discriminator against each other, both of which see the labels.

    One training step is one *alternation*: `discriminator_steps` updates of the discriminator, then one of the
    generator. The Trainer's `global_step`, `max_steps`, checkpoints and loggers all count alternations, since the
    discriminator's updates go through Lightning's precision plugin but not through its counter.

    A training batch is what one alternation needs: images (N, C, H, W) in [-1, 1] and labels (N,). With more than one
    discriminator step it is cut into as many equal parts, so that each step sees fresh images (as in BigGAN's code;
    Brock et al. 2019, arXiv:1809.11096). The package's data modules size their batches accordingly; a loader of your
    own must give `discriminator_steps` times the batch size.

    Latents and drawn labels are a function of the seed and the alternation (see `lightning_cgan.chance`). The seed is
    PyTorch's initial seed, which `seed_everything` sets, and is kept in the checkpoint.

    Args:
        generator: Makes the images.
        discriminator: Judges them.
        loss: What the two minimise.
        penalties: Gradient penalties that are added to the discriminator's loss.
        generator_optimizer: Takes the generator's parameters, returns their optimizer. For convolutional networks
            Radford et al. 2016 (arXiv:1511.06434, section 4) found `partial(Adam, lr=2e-4, betas=(0.5, 0.999))`.
        discriminator_optimizer: The same for the discriminator.
        generator_scheduler: Takes the generator's optimizer, returns a learning-rate scheduler, stepped once in each
            alternation.
        discriminator_scheduler: The same for the discriminator.
        latents: The distribution of the latents: standard normal, or uniform in [-1, 1].
        fake_labels: Where the labels of generated images come from in training: `real` takes those of the real batch,
            `uniform` draws every class with equal chance, `empirical` shuffles those of the real batch, and so follows
            their frequencies.
        discriminator_steps: The number of discriminator updates in an alternation.
        share_fakes: Whether the generator's update reuses the images of the last discriminator update, with that
            update's discriminator. It saves a pass, and is exact, since the generator did not move in between.
        generator_clip_norm: The largest norm of the generator's gradient, all parameters taken together; longer
            gradients are scaled down to it.
        discriminator_clip_norm: The same for the discriminator.

    Raises:
        UsageError: The networks disagree with each other, or an option is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        penalties: list[GradientPenalty] | None = None,
        generator_optimizer: OptimizerCallable = Adam,
        discriminator_optimizer: OptimizerCallable = Adam,
        generator_scheduler: LRSchedulerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        latents: Distribution = "normal",
        fake_labels: Literal["real", "uniform", "empirical"] = "real",
        discriminator_steps: int = 1,
        share_fakes: bool = True,
        generator_clip_norm: float | None = None,
        discriminator_clip_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_positive("discriminator_steps", discriminator_steps)
        self.generator = generator
        self.discriminator = discriminator
        self.loss = loss
        self.penalties = penalties or []
        self.optimizer_factories = (generator_optimizer, discriminator_optimizer)
        self.scheduler_factories = (generator_scheduler, discriminator_scheduler)
        self.latents = latents
        self.fake_labels = fake_labels
        self.discriminator_steps = discriminator_steps
        self.share_fakes = share_fakes
        self.clip_norms = (generator_clip_norm, discriminator_clip_norm)
        # Batch statistics of real and fake must not mix: then the two go through the discriminator one after the other.
        self.joint_pass = not uses_batch_statistics(discriminator)
        self.seed: int | None = None
        self.running_means = RunningMeans()
        check_agreement("discriminator", discriminator, "generator", generator)
        self._save_description()

    # ---- the training step -------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Makes one alternation."""
        generator_optimizer, discriminator_optimizer = cast(list[LightningOptimizer], self.optimizers())
        images, labels = batch
        if len(images) % self.discriminator_steps:
            raise UsageError(
                f"discriminator_steps: expected training batches of a multiple of {self.discriminator_steps} images, "
                f"got {len(images)}; give the loader a batch size of discriminator_steps times the images of one update"
            )
        step = self.global_step
        parts = zip(images.chunk(self.discriminator_steps), labels.chunk(self.discriminator_steps), strict=True)
        for part, (real, real_labels) in enumerate(parts):
            latents, fake_labels = self._draw(real_labels, _TRAINING, step, part)
            keep_graph = self.share_fakes and part == self.discriminator_steps - 1
            with torch.set_grad_enabled(keep_graph):
                fake = self.generator(latents, fake_labels)
            self._update_discriminator(discriminator_optimizer.optimizer, real, real_labels, fake, fake_labels)
        if not self.share_fakes:
            # An address of its own: fresh latents, as if one more part of the batch had come.
            latents, fake_labels = self._draw(real_labels, _TRAINING, step, self.discriminator_steps)
            fake = self.generator(latents, fake_labels)
        self._update_generator(generator_optimizer, real, real_labels, fake, fake_labels)
        self.running_means.count_images(len(images) * self.trainer.world_size)
        for scheduler in self._schedulers():
            scheduler.step()
        every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every_n_steps and self.global_step % every_n_steps == 0:
            self._log_running_means()

    def _update_discriminator(
        self, optimizer: Optimizer, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> None:
        fake = fake.detach()
        optimizer.zero_grad()
        real_logits, fake_logits = self._judge(real, labels, fake, fake_labels)
        loss = self.loss.discriminator(real_logits, fake_logits)
        objective = loss
        for penalty in self.penalties:
            if self.global_step % penalty.interval == 0:
                term = penalty(self.discriminator, real, fake, labels, fake_labels)
                objective = objective + penalty.interval * term
        self.manual_backward(objective)
        # Through the precision plugin, as every update, but past Lightning's counter: one alternation is one step.
        self.trainer.strategy.optimizer_step(optimizer, closure=_nothing)
        self.running_means.add(discriminator_loss=loss, real_logits=real_logits.mean(), fake_logits=fake_logits.mean())

    def _update_generator(
        self, optimizer: LightningOptimizer, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> None:
        optimizer.zero_grad()
        with frozen(self.discriminator):
            if self.loss.needs_real_logits:
                real_logits, fake_logits = self._judge(real, labels, fake, fake_labels)
            else:
                real_logits, fake_logits = None, self.discriminator(fake, fake_labels)
            loss = self.loss.generator(fake_logits, real_logits)
            self.manual_backward(loss)
        optimizer.step()
        self.running_means.add(generator_loss=loss)

    def _judge(self, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of real and of generated images, in one pass where that changes nothing."""
        if self.joint_pass:
            logits = self.discriminator(torch.cat([real, fake.to(real.dtype)]), torch.cat([labels, fake_labels]))
            return cast(tuple[Tensor, Tensor], logits.split(len(real)))
        return self.discriminator(real, labels), self.discriminator(fake, fake_labels)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the gradient of the network that is about to move; here it is already un-scaled in half precision."""
        generator_optimizer, _ = cast(list[Optimizer], self.optimizers(use_pl_optimizer=False))
        clip_norm = self.clip_norms[0 if optimizer is generator_optimizer else 1]
        if clip_norm is not None:
            self.clip_gradients(optimizer, clip_norm, "norm")

    # ---- chance ------------------------------------------------------------------------------------------------------

    def _generator(self, *address: int) -> torch.Generator:
        assert self.seed is not None, "the seed is known once a Trainer runs"
        return generator_at(self.seed, *address, device=self.device)

    def _draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """This process's latents: drawn for all processes, of which each keeps its slice."""
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        shape = (count * world_size, self.generator.latent_dim)
        return draw_latents(shape, self.latents, generator)[rank::world_size]

    def _draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The labels of this process's fakes, as many as the labels of the real images that are given."""
        if self.fake_labels == "real":
            return labels
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        whole = len(labels) * world_size
        if self.fake_labels == "uniform":
            drawn = torch.randint(self.generator.num_classes, (whole,), generator=generator, device=generator.device)
            return drawn[rank::world_size]
        everywhere = cast(Tensor, self.all_gather(labels)).T.flatten() if world_size > 1 else labels
        shuffled = torch.randperm(whole, generator=generator, device=generator.device)
        return everywhere[shuffled[rank::world_size]]

    def _draw(self, labels: Tensor, *address: int) -> tuple[Tensor, Tensor]:
        """Latents and labels of the fakes that stand beside real images with these labels."""
        generator = self._generator(*address)
        return self._draw_latents(len(labels), generator), self._draw_labels(labels, generator)

    # ---- what Lightning asks for -------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds an optimizer, and a scheduler if wanted, for the generator and for the discriminator.

        Raises:
            UsageError: A scheduler waits for a score, of which there is none in each alternation.
        """
        configured: list[dict[str, Any]] = []
        networks = (self.generator, self.discriminator)
        for network, optimizer_factory, scheduler_factory in zip(
            networks, self.optimizer_factories, self.scheduler_factories, strict=True
        ):
            optimizer = optimizer_factory(network.parameters())
            configured.append({"optimizer": optimizer})
            if scheduler_factory is not None:
                scheduler = scheduler_factory(optimizer)
                if isinstance(scheduler, ReduceLROnPlateau):
                    raise UsageError(
                        "generator_scheduler and discriminator_scheduler: expected a scheduler that counts "
                        "alternations, got ReduceLROnPlateau, which waits for a score; choose another, such as "
                        "PolynomialLR"
                    )
                configured[-1]["lr_scheduler"] = {"scheduler": scheduler, "interval": "step"}
        return cast(OptimizerLRScheduler, tuple(configured))

    def _schedulers(self) -> list[Any]:
        schedulers = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers] if schedulers is not None else []

    def setup(self, stage: str) -> None:
        """Fixes the seed, and compares the networks with the data module, if there is one.

        Raises:
            UsageError: They disagree on classes, channels or image size.
        """
        if self.seed is None:
            self.seed = self.trainer.strategy.broadcast(torch.initial_seed() % 2**63)
        data = getattr(self.trainer, "datamodule", None)
        for name, network in (("generator", self.generator), ("discriminator", self.discriminator)):
            check_agreement(name, network, "data", data)

    def on_train_start(self) -> None:
        """Starts the clock of `images_per_second`."""
        self.running_means.start_clock()

    def _log_running_means(self) -> None:
        means = self.running_means.pop()
        shown = ("discriminator_loss", "generator_loss", "images_per_second")
        self.log_dict({name: means[name] for name in shown}, prog_bar=True, logger=False)
        self._hand_to_loggers(means)

    def _hand_to_loggers(self, scalars: Mapping[str, Tensor]) -> None:
        """Logs at the number of alternations: Lightning's own axis is one behind, and further off after a resume.

        Logging a scalar called `step`, Lightning's way to set the axis, would end up in the names of checkpoints.
        """
        for logger in self.loggers:
            logger.log_metrics({name: scalar.item() for name, scalar in scalars.items()}, step=self.global_step)
            logger.save()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs both losses on held-out images, `val_discriminator_loss` and `val_generator_loss`."""
        self._log_losses("val", batch, _VALIDATION, batch_idx)

    def on_validation_end(self) -> None:
        """Hands the losses on held-out images to the loggers."""
        if self._is_fitting() and not self.trainer.sanity_checking:
            losses = self.trainer.callback_metrics
            self._hand_to_loggers({name: losses[name] for name in losses if name.startswith("val_")})

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs both losses on the test split, `test_discriminator_loss` and `test_generator_loss`."""
        self._log_losses("test", batch, _TEST, batch_idx)

    def _log_losses(self, prefix: str, batch: tuple[Tensor, Tensor], *address: int) -> None:
        real, labels = batch
        latents, fake_labels = self._draw(labels, *address)
        real_logits = self.discriminator(real, labels)
        fake_logits = self.discriminator(self.generator(latents, fake_labels), fake_labels)
        losses = {
            f"{prefix}_discriminator_loss": self.loss.discriminator(real_logits, fake_logits),
            f"{prefix}_generator_loss": self.loss.generator(fake_logits, real_logits),
        }
        self.log_dict(losses, batch_size=len(real), sync_dist=True, logger=not self._is_fitting())

    def _is_fitting(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING

    def predict_step(self, batch: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Makes an image of each label: labels (N,) -> images (N, C, H, W) in [-1, 1], and the labels again."""
        latents = self._draw_latents(len(batch), self._generator(_PREDICTION, batch_idx))
        return self.generate(batch, latents), batch

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save_description(self) -> None:
        """Keeps what builds this module again as hyperparameters, in the format of Lightning's command line."""
        if self.undescribed:
            names = ", ".join(self.undescribed)
            rank_zero_warn(
                f"{type(self).__name__}: the checkpoint cannot say how {names} was made; give {names} to "
                "load_from_checkpoint too, or build it from classes that can say it, such as functools.partial(Adam, "
                "lr=1e-3) for an optimizer"
            )
        instantiator = "lightning.pytorch.cli.instantiate_module"
        self.save_hyperparameters({"_instantiator": instantiator, **self.init_args}, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the seed and the means that wait to be logged."""
        checkpoint["lightning_cgan"] = {
            "format": FORMAT_VERSION,
            "seed": self.seed,
            "running_means": self.running_means.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the seed of the run and its means.

        Raises:
            UsageError: The checkpoint is of another kind of model.
        """
        state = checkpoint.get("lightning_cgan")
        if state is None:
            raise UsageError("the checkpoint: expected one that a ConditionalGAN wrote, got another; name such a file")
        check_same_shapes(self, checkpoint["state_dict"])
        self.seed = state["seed"]
        self.running_means.load_state_dict(state["running_means"])


def _nothing() -> None:
    """The closure of an optimizer step whose gradients are already there."""
