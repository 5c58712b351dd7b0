"""The conditional GAN: two networks, two optimizers, one training step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Adam

from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.rng import NETWORKS, TRAINING, generator_at, move_global_generator
from lightning_cgan.core.serialization import INSTANTIATOR, Rebuildable
from lightning_cgan.networks.base import (
    Discriminator,
    Generator,
    check_agreement,
    frozen,
    uses_batch_statistics,
)
from lightning_cgan.networks.latents import Distribution, Drawing
from lightning_cgan.objectives.augmentations import Augmentation
from lightning_cgan.objectives.inputs import Dealer, LabelSource, Round
from lightning_cgan.objectives.losses import AdversarialLoss, AuxiliaryClassifier
from lightning_cgan.objectives.objectives import Objectives, Penalties, check_classifier
from lightning_cgan.objectives.penalties import GradientPenalty
from lightning_cgan.training.batches import TrainingBatches
from lightning_cgan.training.compilation import Compiled
from lightning_cgan.training.ema import average_of, decay_of, update_average
from lightning_cgan.training.evaluation_steps import EvaluationSteps
from lightning_cgan.training.optimization import ROLES


class ConditionalGAN(Rebuildable, EvaluationSteps):
    """Trains a generator and a discriminator against each other, both of which see the labels.

    One training step is one *alternation*: `discriminator_steps` updates of the discriminator, then one of the
    generator. The Trainer's `global_step`, `max_steps`, checkpoints and loggers all count alternations, since the
    discriminator's updates go through Lightning's precision plugin but not through its counter.

    A training batch is what one alternation needs: images (N, C, H, W) in [-1, 1] and labels (N,). With more than one
    discriminator step it is cut into as many equal parts, so that each step sees fresh images and fresh latents (as in
    BigGAN's code; Brock et al. 2019, arXiv:1809.11096). The package's data modules size their batches accordingly; a
    loader of your own must give `discriminator_steps` times the batch size. What a short last batch has too many for
    equal parts is left out, and one with too few images is no step.

    Latents, drawn labels, augmentations and the points of penalties are a function of the seed and the alternation
    (see `core/rng.py`). The seed is PyTorch's initial seed, which `seed_everything` sets, when a fit begins;
    a fit that goes on by `ckpt_path` has the one of its checkpoint. A module that was trained before, in a fit or in
    the run whose checkpoint it was loaded from, makes another seed of it, by the number of images that it has seen.

    Args:
        generator: Makes the images.
        discriminator: Judges them.
        loss: What the two minimise.
        penalties: Gradient penalties that are added to the discriminator's loss, at the images that it sees.
        augmentations: Change real and generated images alike before the discriminator sees them, one after the other.
        auxiliary_classifier: What the two minimise beside the loss, with a discriminator that names classes too.
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
        share_fakes: Whether the generator's update works on the images of the last discriminator update. It is exact,
            since the generator did not move in between, and saves a pass unless an update is accumulated: then the
            images are made again from the same latents.
        generator_clip_norm: The largest norm of the generator's gradient, all parameters taken together; longer
            gradients are scaled down to it.
        discriminator_clip_norm: The same for the discriminator.
        generator_accumulation: The number of parts that the batch of a generator's update is cut into, to save memory:
            their gradients add up to those of the whole batch.
        discriminator_accumulation: The same for the discriminator.
        ema_half_life: Keeps an exponential moving average of the generator's weights, in which a contribution counts
            half after so many images (batch size times alternations). Samples are made with it. It is kept in float32
            where the networks are in half precision.
        ema_ramp_up: The half-life is at most this share of the images so far (Karras et al. 2020, arXiv:2006.06676).
        compile: What `torch.compile` fuses: both `networks`, in place, but for penalties, which need second
            derivatives; or the whole `alternation`, penalties and steps of Adam included, as one graph for each set of
            penalties that are due together. Where that is not possible, a line says why, and the networks are compiled.
        cuda_graph: Whether a GPU runs an alternation as one CUDA graph, compiled or not, wherever that is possible.

    Attributes:
        drawing: How `predict` draws the latents of numbered images.
        objectives_class: What says what each update minimises; a subclass of this module may name one that adds terms.

    Raises:
        UsageError: The networks disagree with each other, or an option is out of range.
    """

    objectives_class: type[Objectives] = Objectives
    is_part = False

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        penalties: list[GradientPenalty] | None = None,
        augmentations: list[Augmentation] | None = None,
        auxiliary_classifier: AuxiliaryClassifier | None = None,
        generator_optimizer: OptimizerCallable = Adam,
        discriminator_optimizer: OptimizerCallable = Adam,
        generator_scheduler: LRSchedulerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        latents: Distribution = "normal",
        fake_labels: LabelSource = "real",
        discriminator_steps: int = 1,
        share_fakes: bool = True,
        generator_clip_norm: float | None = None,
        discriminator_clip_norm: float | None = None,
        generator_accumulation: int = 1,
        discriminator_accumulation: int = 1,
        ema_half_life: float | None = None,
        ema_ramp_up: float | None = 0.05,
        compile: Compiled = "none",
        cuda_graph: bool = True,
    ) -> None:
        super().__init__()
        check_positive("discriminator_steps", discriminator_steps)
        check_positive("generator_accumulation", generator_accumulation)
        check_positive("discriminator_accumulation", discriminator_accumulation)
        check_positive("ema_half_life", ema_half_life)
        if ema_ramp_up is not None and ema_ramp_up <= 0:
            raise UsageError(f"ema_ramp_up: expected a number above 0, got {ema_ramp_up}; or none, for no ramp-up")
        self.generator = generator
        self.discriminator = discriminator
        self.loss = loss
        self.auxiliary_classifier = auxiliary_classifier
        self.penalties = penalties or []
        self.optimizer_factories = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        self.scheduler_factories = {"generator": generator_scheduler, "discriminator": discriminator_scheduler}
        self.latents = latents
        self.discriminator_steps = discriminator_steps
        self.share_fakes = share_fakes
        self.clip_norms = {"generator": generator_clip_norm, "discriminator": discriminator_clip_norm}
        self.accumulation = {"generator": generator_accumulation, "discriminator": discriminator_accumulation}
        self.ema_half_life = ema_half_life
        self.ema_ramp_up = ema_ramp_up
        self.generator_ema = None if ema_half_life is None else average_of(generator)
        # Batch statistics of real and fake must not mix: then the two go through the discriminator one after the other.
        joint_pass = not uses_batch_statistics(discriminator)
        self.objectives = self.objectives_class(loss, self.penalties, auxiliary_classifier, joint_pass)
        self.compiled = compile
        self.cuda_graph = cuda_graph
        self.seed = None
        self.images_seen = 0
        self.drawing = Drawing()
        self._prepare_batches()
        with_places = any(penalty.needs_places for penalty in self.penalties)
        sizes = (generator.latent_dim, generator.num_classes)
        self.dealer = Dealer(*sizes, latents, fake_labels, augmentations or [], with_places)
        check_agreement("discriminator", discriminator, "generator", generator)
        check_classifier(discriminator, auxiliary_classifier)
        self._save_description()

    def _prepare_batches(self) -> None:
        steps, accumulation = self.discriminator_steps, self.accumulation
        networks = self.generator, self.discriminator
        self._batches = TrainingBatches(*networks, steps, accumulation, warn=rank_zero_warn)

    # ---- the training step -------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Makes one alternation.

        Raises:
            UsageError: The batch is not of images (N, C, H, W), floats in [-1, 1], and class numbers (N,), or cannot be
                cut into the parts that are asked for.
        """
        loader = self.trainer.train_dataloader
        images, labels = self._batches.take(batch, batch_idx, loader, self.device, self.trainer.world_size)
        if not len(images):
            return
        assert self.seed is not None, "setup has fixed it"
        address = (self.seed, NETWORKS, self.global_step, self.trainer.global_rank)
        move_global_generator(*address, device=self.device)  # for dropout, and whatever else a network draws
        rounds, last = self._deal_alternation(images, labels)
        due = self.objectives.due(self.global_step)
        if not self.run_captured(rounds, last, due):
            self._alternate(rounds, last, due)
        self.finish_alternation()
        self._average_generator(len(rounds[0].real) * self.trainer.world_size)
        self.running_means.count_images(len(images) * self.trainer.world_size)
        every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every_n_steps and self.global_step % every_n_steps == 0:
            self._batches.raise_faults()
            self.report_running_means(**self.skipped_scalars())

    def on_train_epoch_end(self) -> None:
        """Looks at what of the batches has not been looked at yet, since that makes a GPU wait."""
        self._batches.raise_faults()

    def _deal_alternation(self, images: Tensor, labels: Tensor) -> tuple[list[Round], Round | None]:
        """A round for each update of the discriminator, and one for the generator's if that does not share fakes."""
        step, count = self.global_step, self.discriminator_steps
        parts = list(zip(images.chunk(count), labels.chunk(count), strict=True))
        rounds = [self._deal(*part, TRAINING, step, number) for number, part in enumerate(parts)]
        if self.share_fakes:
            return rounds, None
        # An address of its own: fresh latents, as if one more part of the batch had come.
        return rounds, self._deal(*parts[-1], TRAINING, step, count)

    def _alternate(self, rounds: list[Round], last: Round | None, due: Penalties) -> None:
        fake = None
        for dealt in rounds:
            is_shared = last is None and dealt is rounds[-1]
            keep_graph = is_shared and set(self.accumulation.values()) == {1}
            fake = self._update_discriminator(dealt, due, keep_graph)
        self._update_generator(last or rounds[-1], fake)

    def _update_discriminator(self, dealt: Round, due: Penalties, keep_graph: bool) -> Tensor | None:
        """Returns the generated images, if the generator's update can go on from their graph."""
        self.optimizer_of("discriminator").zero_grad()
        parts = dealt.split(self.accumulation["discriminator"])
        for part in parts:
            with torch.set_grad_enabled(keep_graph):
                fake = self.dealer.make(self.generator, part)
            objective, means = self.objectives.of_discriminator(self.discriminator, part, fake.detach(), due)
            self.running_means.add(means)
            self.manual_backward(objective / len(parts))
        self.move("discriminator")
        return fake if keep_graph else None

    def _update_generator(self, dealt: Round, fake: Tensor | None) -> None:
        self.optimizer_of("generator").zero_grad()
        parts = dealt.split(self.accumulation["generator"])
        with frozen(self.discriminator):
            for part in parts:
                made = fake if fake is not None else self.dealer.make(self.generator, part)
                objective, means = self.objectives.of_generator(self.discriminator, part, made)
                self.running_means.add(means)
                self.manual_backward(objective / len(parts))
        self.move("generator")

    def _average_generator(self, images: int) -> None:
        if self.generator_ema is not None and self.ema_half_life is not None:
            decay = decay_of(images, self.images_seen, self.ema_half_life, self.ema_ramp_up)
            update_average(self.generator_ema, self.generator, decay)
        self.images_seen += images

    def _deal(self, real: Tensor, labels: Tensor, *address: int) -> Round:
        return self.dealer.deal(self._generator(*address), real, labels)

    def _seed_of_fit(self) -> int:
        """PyTorch's seed of the moment; another where images have been seen, so that no latents are met again."""
        seed = torch.initial_seed() % 2**63
        return generator_at(seed, self.images_seen).initial_seed() if self.images_seen else seed

    # ---- what Lightning asks for -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Fixes the seed, makes strategy and networks ready, and compares the networks with the data module, if any.

        Raises:
            UsageError: They disagree on classes, channels or image size, or the strategy is not supported.
        """
        # A resumed run takes its seed from the checkpoint, next; a second fit of a Trainer goes on with its own.
        if self.seed is None or (stage == "fit" and not self.trainer.global_step):
            self.seed = self.trainer.strategy.broadcast(self._seed_of_fit())
        self._prepare_batches()
        self.dealer.join(self.trainer.global_rank, self.trainer.world_size)
        self.prepare_strategy()
        if stage == "fit":
            self.prepare_compilation()
        data = getattr(self.trainer, "datamodule", None)
        for role in ROLES:
            check_agreement(role, getattr(self, role), "data", data)

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
        self.save_hyperparameters({"_instantiator": INSTANTIATOR, **self.init_args}, logger=False)
