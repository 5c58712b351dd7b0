"""`ConditionalGAN`: the training step and every Lightning hook, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam, Optimizer
from typing_extensions import Self

from lightning_cgan.core.class_names import usable_names
from lightning_cgan.core.compat import INSTANTIATOR_KEY, check_after_validation, load_plain
from lightning_cgan.core.errors import UsageError, check_positive
from lightning_cgan.core.rng import NETWORKS, PREDICTION, TEST, VALIDATION, rng_at, seed_global_rng, seed_of_process
from lightning_cgan.core.serialization import INSTANTIATOR, ConfigMixin
from lightning_cgan.networks.base import (
    Discriminator,
    Generator,
    check_agreement,
    check_has_weights,
    freeze_layers,
    frozen,
    uses_batch_statistics,
)
from lightning_cgan.networks.latents import Distribution, LatentSampler
from lightning_cgan.networks.sampler import Sampler
from lightning_cgan.objectives.augmentations import Augmentation
from lightning_cgan.objectives.inputs import InputSampler, LabelSource, UpdateInputs
from lightning_cgan.objectives.losses import AdversarialLoss, AuxiliaryClassifier
from lightning_cgan.objectives.objectives import Objectives, Penalties, check_classifier
from lightning_cgan.objectives.penalties import GradientPenalty
from lightning_cgan.training.batches import TrainingBatches
from lightning_cgan.training.checkpointing import Checkpointing, build_from
from lightning_cgan.training.compilation import COMPILED, Compilation, Compiled
from lightning_cgan.training.contract import ROLES, Role
from lightning_cgan.training.data_position import KeepsDataPosition
from lightning_cgan.training.ema import MovingAverage, averaged_copy
from lightning_cgan.training.held_out_losses import held_out_losses
from lightning_cgan.training.manual_optimization import save_by_time
from lightning_cgan.training.optimization import Optimization, prepare_strategy
from lightning_cgan.training.scalars import Scalars
from lightning_cgan.training.steps_per_call import Calls, StepsPerCall, check_steps_per_call


class ConditionalGAN(ConfigMixin, Sampler, LightningModule):
    """Trains a generator and a discriminator against each other, both conditioned on class labels.

    One training step is one *alternation*: `discriminator_steps` updates of the discriminator, then one of the
    generator. The Trainer's `global_step`, `max_steps`, checkpoints and loggers all count these steps: the
    discriminator's updates go through Lightning's precision plugin but not through its step counter.

    A training batch holds what one step needs: images (N, C, H, W) in [-1, 1] and labels (N,). With several
    discriminator steps it is split into that many equal parts, so that each update sees fresh images and latents (as in
    BigGAN's code; Brock et al. 2019, arXiv:1809.11096). The package's data modules size their batches accordingly; a
    custom loader must yield `discriminator_steps` times the batch size. A short last batch is trimmed to equal parts,
    and skipped if it has too few images.

    All random inputs of a step are a function of the seed and the step (see `core/rng.py`). The seed is PyTorch's
    initial seed (set by `seed_everything`) at the start of a fit; a fit resumed with `ckpt_path` uses that of its
    checkpoint. A module that was trained before derives a different one from the number of images it has seen.

    Examples:
        >>> model = ConditionalGAN(MLPGenerator(10, 1, 8), MLPDiscriminator(10, 1, 8), NonSaturating())
        >>> model.generate([3, 7, 7], seed=0).shape
        torch.Size([3, 1, 8, 8])
        >>> model.sheet([0, 3, 7], count=8, seed=0).size  # 8 images in each of 3 rows, magnified to 56 pixels
        (466, 176)

    Args:
        generator: Generates the images.
        discriminator: Scores images as real or generated.
        loss: The adversarial loss of both networks.
        penalties: Gradient penalties added to the discriminator's loss.
        augmentations: Differentiable augmentations, applied in order to all images that the discriminator sees.
        auxiliary_classifier: Classification loss of both networks; needs a discriminator with a classifier.
        generator_optimizer: Takes the generator's parameters, returns their optimizer. For convolutional networks
            Radford et al. 2016 (arXiv:1511.06434, section 4) use `partial(Adam, lr=2e-4, betas=(0.5, 0.999))`.
        discriminator_optimizer: The same for the discriminator.
        generator_scheduler: Takes the generator's optimizer, returns a scheduler, which is stepped once per step.
        discriminator_scheduler: The same for the discriminator.
        latents: The distribution of the latents: standard normal, or uniform in [-1, 1].
        fake_labels: The labels of generated images in training: `real` reuses those of the real batch, `uniform`
            samples all classes with equal probability, `empirical` shuffles those of the real batch and so keeps their
            frequencies.
        discriminator_steps: The number of discriminator updates per step.
        discriminator_frozen_layers: How many of the discriminator's first layers, in the order in which images pass
            them, keep their weights: for a training that begins with those of another one (Mo et al. 2020,
            arXiv:2002.10964).
        share_fakes: Whether the generator's update reuses the images of the last discriminator update. This is exact,
            since the generator has not changed in between, and saves a forward pass, unless an update is accumulated:
            then the images are generated again from the same latents.
        generator_clip_norm: The maximum norm of the generator's gradient; larger gradients are scaled down to it.
        discriminator_clip_norm: The same for the discriminator.
        generator_accumulation: The number of parts into which the generator's batch is split to save memory; their
            gradients add up to those of the whole batch.
        discriminator_accumulation: The same for the discriminator.
        ema_half_life: Half-life, in images (batch size times steps), of an exponential moving average of the
            generator's weights, which is then used for sampling. It has float32 or better.
        ema_ramp_up: Upper bound of the half-life as a fraction of the images seen so far (Karras et al. 2020,
            arXiv:2006.06676).
        compile: What `torch.compile` compiles: `networks` compiles both in place, except for penalties, which need
            second derivatives; `step` compiles the whole step, with penalties and Adam updates, as one graph for each
            set of penalties that are active together. Where that is not possible, the reason is logged and the networks
            are compiled.
        cuda_graph: Whether a GPU runs a step as one CUDA graph, compiled or not, where possible. No GPU run has yet
            shown that this is correct and faster; `scripts/gpu_report.py` finds out.
        steps_per_call: The largest number of steps in one call of `training_step`, which saves Lightning's work between
            them. A call ends early wherever Lightning or a callback acts, so that the run is the same to the last bit;
            callbacks of others that act on batches get a call for each step. With `auto`, a call also ends after a
            twentieth of a second, and with several processes after each step.

    Attributes:
        latent_sampler: How `predict` samples the latents of numbered images.
        others: Generators of the same classes and images that take turns with this one in `predict`, and in a row of
            the report of `test`.
        objectives_class: Computes the objective of each update; a subclass may set one that adds terms.

    Raises:
        UsageError: A network has no weights, the networks disagree, or an option is out of range.
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
        discriminator_frozen_layers: int = 0,
        share_fakes: bool = True,
        generator_clip_norm: float | None = None,
        discriminator_clip_norm: float | None = None,
        generator_accumulation: int = 1,
        discriminator_accumulation: int = 1,
        ema_half_life: float | None = None,
        ema_ramp_up: float | None = 0.05,
        compile: Compiled = "none",
        cuda_graph: bool = False,
        steps_per_call: StepsPerCall = "auto",
    ) -> None:
        super().__init__()
        check_positive("discriminator_steps", discriminator_steps)
        check_positive("generator_accumulation", generator_accumulation)
        check_positive("discriminator_accumulation", discriminator_accumulation)
        check_positive("ema_half_life", ema_half_life)
        if ema_ramp_up is not None and ema_ramp_up <= 0:
            raise UsageError(
                f"ema_ramp_up: expected a number above 0, got {ema_ramp_up}; give one, or none for no ramp-up"
            )
        check_steps_per_call(steps_per_call)
        if compile not in COMPILED:
            raise UsageError(f"compile: expected {', '.join(COMPILED)}, got {compile}; give one of them")
        check_has_weights("generator", generator)
        check_has_weights("discriminator", discriminator)
        check_agreement("discriminator", discriminator, "generator", generator)
        check_classifier(discriminator, auxiliary_classifier)
        freeze_layers("discriminator_frozen_layers", discriminator, discriminator_frozen_layers)
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.generator_ema = None if ema_half_life is None else averaged_copy(generator)
        self.loss = loss
        self.auxiliary_classifier = auxiliary_classifier
        self.penalties = penalties or []
        # Batch statistics of real and generated images must not mix, so a discriminator with them takes two passes.
        joint_pass = not uses_batch_statistics(discriminator)
        self.objectives = self.objectives_class(loss, self.penalties, auxiliary_classifier, joint_pass)
        self.latents = latents
        self.class_names = tuple(map(str, range(generator.num_classes)))
        self.latent_sampler = LatentSampler()
        sizes = (generator.latent_dim, generator.num_classes)
        with_interpolation = any(penalty.needs_interpolation for penalty in self.penalties)
        self.input_sampler = InputSampler(*sizes, latents, fake_labels, augmentations or [], with_interpolation)
        self.seed: int | None = None
        self.discriminator_steps = discriminator_steps
        self.discriminator_frozen_layers = discriminator_frozen_layers
        self.share_fakes = share_fakes
        self.accumulation: dict[Role, int] = {
            "generator": generator_accumulation,
            "discriminator": discriminator_accumulation,
        }
        self.ema = MovingAverage(ema_half_life, ema_ramp_up)
        self.scalars = Scalars(self)
        self.optimization = Optimization(
            self,
            {"generator": generator_optimizer, "discriminator": discriminator_optimizer},
            {"generator": generator_scheduler, "discriminator": discriminator_scheduler},
            {"generator": generator_clip_norm, "discriminator": discriminator_clip_norm},
            has_own=type(self).configure_optimizers is not ConditionalGAN.configure_optimizers,
        )
        self.calls = Calls(self, steps_per_call)
        self.compilation = Compilation(self, self.optimization, self.scalars, compile, cuda_graph)
        self.checkpointing = Checkpointing(self, self.optimization, self.compilation, self.ema, self.scalars)
        self._save_config()

    # ---- the training step -------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Runs one step, and further ones while nothing has to happen between them; see `steps_per_call`."""
        self.calls.start()
        self.run_step(batch, batch_idx)
        while self.calls.goes_on():
            self.scalars.stopwatch.start()
            self.run_step(*self.calls.next_batch())

    def run_step(self, batch: Any, batch_idx: int) -> None:
        """Runs `discriminator_steps` updates of the discriminator, then one of the generator."""
        loader, world_size = self.trainer.train_dataloader, self.trainer.world_size
        images, labels = self.batches.take(batch, batch_idx, loader, self.device, world_size)
        if not len(images):
            return
        assert self.seed is not None, "setup has fixed it"
        self.scalars.stopwatch.start()
        step = self.global_step
        # For dropout, and other random numbers inside networks.
        seed_global_rng(self.seed, NETWORKS, step, self.global_rank, device=self.device)
        inputs = self.input_sampler.sample(images, labels, self.seed, step, self.discriminator_steps, self.share_fakes)
        penalties = self.objectives.active_penalties(step)
        continues = self.calls.continues
        is_graph = self.compilation.run_step(inputs, penalties, continues)  # the whole step, where possible
        if not is_graph:
            fake = None
            for part in inputs.discriminator:
                keep_graph = part is inputs.generator and not self.accumulates
                fake = self.update_discriminator(part, penalties, keep_graph)
            self.update_generator(inputs.generator, fake)
        self.optimization.finish_step()
        self.checkpointing.note_step()
        images_of_update = len(inputs.generator.real) * world_size
        self.ema.update(self.generator_ema, self.generator, images_of_update, is_same=continues and is_graph)
        self.scalars.count_images(len(images) * world_size)
        every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every_n_steps and self.global_step % every_n_steps == 0:
            self.batches.raise_faults()
            self.scalars.report(**self.optimization.skipped_scalars())
        self.scalars.stopwatch.stop()

    def update_discriminator(self, inputs: UpdateInputs, penalties: Penalties, keep_graph: bool) -> Tensor | None:
        """Returns the generated images if their graph is kept for the generator's update."""
        self.optimization.zero_grad("discriminator")
        parts = inputs.split(self.accumulation["discriminator"])
        for part in parts:
            with torch.set_grad_enabled(keep_graph):
                fake = self.input_sampler.generate_fakes(self.generator, part)
            objective, means = self.objectives.of_discriminator(self.discriminator, part, fake.detach(), penalties)
            self.scalars.add(means)
            self.manual_backward(objective / len(parts))
        self.optimization.step("discriminator")
        return fake if keep_graph else None

    def update_generator(self, inputs: UpdateInputs, fake: Tensor | None) -> None:
        """Backpropagates through `fake` if given, else generates images."""
        self.optimization.zero_grad("generator")
        parts = inputs.split(self.accumulation["generator"])
        with frozen(self.discriminator):
            for part in parts:
                made = fake if fake is not None else self.input_sampler.generate_fakes(self.generator, part)
                objective, means = self.objectives.of_generator(self.discriminator, part, made)
                self.scalars.add(means)
                self.manual_backward(objective / len(parts))
        self.optimization.step("generator")

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Computes gradients of this process's images; `Optimization.step` averages them over processes."""
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            super().manual_backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the gradient of the network that is about to be updated."""
        self.optimization.clip(optimizer)

    # ---- before, around and after the steps of a fit -----------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Adds the callback that lets a run resume at its position in the data, and lets early stopping resume."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            is_stopping = isinstance(callback, EarlyStopping) and callback.monitor.startswith("val_")
            if is_stopping and self.trainer.enable_validation:
                check_after_validation(callback)
        return [] if any(isinstance(one, KeepsDataPosition) for one in callbacks) else [KeepsDataPosition()]

    def setup(self, stage: str) -> None:
        """Sets the seed, prepares strategy and networks, and adopts the data module's class names, if there is one."""
        # A resumed run loads its seed from the checkpoint later; a second fit of the same Trainer keeps its seed.
        if self.seed is None or (stage == "fit" and not self.trainer.global_step):
            seed, images_seen = seed_of_process(), self.ema.images_seen
            if images_seen:  # a different seed, so that no latents repeat
                seed = rng_at(seed, images_seen).initial_seed()
            self.seed = self.trainer.strategy.broadcast(seed)
        networks = self.generator, self.discriminator
        self.batches = TrainingBatches(*networks, self.discriminator_steps, self.accumulation)
        self.input_sampler.set_rank(self.trainer.global_rank, self.trainer.world_size)
        prepare_strategy(self.trainer.strategy)
        if stage == "fit":
            self.compilation.prepare()
        data = getattr(self.trainer, "datamodule", None)
        for role in ROLES:
            check_agreement(role, getattr(self, role), "data", data)
        named = usable_names("data", getattr(data, "class_names", None), self.num_classes)
        self.class_names = named or self.class_names

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds an optimizer and, if configured, a scheduler for the generator and for the discriminator."""
        return self.optimization.configure()

    def on_fit_start(self) -> None:
        """Validates optimizers and schedulers, and what a checkpoint is about to restore of them."""
        self.optimization.check()
        self.checkpointing.begin()

    def on_train_start(self) -> None:
        """Starts the counters, and decides whether steps run as graphs."""
        self.scalars.begin()
        self.optimization.begin()
        self.compilation.begin()
        self.calls.begin()

    def on_train_epoch_start(self) -> None:
        """Starts the stopwatch of `images_per_second`; Lightning calls this after the callbacks."""
        self.scalars.stopwatch.start()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lets `ModelCheckpoint(train_time_interval=…)` save, and starts the stopwatch after the callbacks."""
        save_by_time(self.trainer)  # in manual optimization it would never save
        if not self.trainer.is_last_batch:
            self.scalars.stopwatch.start()

    def on_validation_start(self) -> None:
        """Stops the stopwatch: scores, images and checkpoints of a validation are not training."""
        self.scalars.stopwatch.stop()

    def on_validation_epoch_end(self) -> None:
        """Logs held-out losses and scores, before a checkpoint counts the rows of the log."""
        if self.is_fitting and not self.trainer.sanity_checking:
            self.scalars.report_validation()

    def on_validation_end(self) -> None:
        """Restarts the stopwatch, unless an epoch has ended."""
        if not self.trainer.sanity_checking and not self.trainer.is_last_batch:
            self.scalars.stopwatch.start()

    def on_train_epoch_end(self) -> None:
        """Checks the batches whose check was deferred, since it makes a GPU wait."""
        self.batches.raise_faults()

    def on_train_end(self) -> None:
        """Logs how many updates were skipped, and packs what a spawned process returns with the weights."""
        self.optimization.log_skipped()
        self.checkpointing.end()

    # ---- outside training --------------------------------------------------------------------------------------------

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Calls the averaged generator, or the only one: latents (N, latent_dim), labels (N,) -> images in [-1, 1]."""
        return cast(Tensor, self.chosen_generator(ema=True)(latents, labels))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs both losses on held-out images, `val_discriminator_loss` and `val_generator_loss`.

        With several loaders, the losses of each are logged under names ending in `/dataloader_idx_0`, and so on.
        """
        images, labels = self.batches.check(batch, "validation", batch_idx)
        self._report_losses("val", images, labels, VALIDATION, batch_idx, *_unless_first(dataloader_idx))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `test_discriminator_loss` and `test_generator_loss` on the test split; see `validation_step`."""
        images, labels = self.batches.check(batch, "test", batch_idx)
        self._report_losses("test", images, labels, TEST, batch_idx, *_unless_first(dataloader_idx))

    def _report_losses(self, prefix: str, images: Tensor, labels: Tensor, *address: int) -> None:
        networks = self.generator, self.discriminator
        losses = held_out_losses(self.loss, networks, self.input_sampler, images, labels, self._rng(*address))
        self.scalars.report_losses(prefix, len(images), **losses)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Generates one image per label: returns images (N, C, H, W) in [-1, 1], and the labels as int64.

        Args:
            batch: Labels with the numbers of the images within their classes, shape (N, 2), for the latents of
                `latent_sampler`; or labels alone, shape (N,), for arbitrary latents. May be the only element of a list.
            batch_idx: The number of the batch.
            dataloader_idx: The number of the loader, if there are several.
        """
        given = self.batches.check_prediction(batch, batch_idx)
        with torch.autocast(self.device.type, enabled=False):  # with the precision of a direct call of `generate`
            if given.ndim == 2:
                labels, numbers = given.unbind(dim=1)
                return self.generate_numbered(labels, numbers, self.latent_sampler), labels
            rng = self._rng(PREDICTION, batch_idx, *_unless_first(dataloader_idx))
            return self.generate(given, self.input_sampler.sample_latents(len(given), rng)), given

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the seed, the counters, the data, and the means not logged yet."""
        self.checkpointing.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the seed, counters and means of the run; Lightning loads the weights afterwards."""
        self.checkpointing.load(checkpoint)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Returns the weights and, in a spawned process, what it returns with them."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state if args or kwargs else self.checkpointing.pack(state)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loads weights, and what a spawned process returned with them."""
        return super().load_state_dict(self.checkpointing.unpack(state_dict), *args, **kwargs)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Builds the module of a checkpoint, without importing modules or calling functions that the file names.

        Args:
            checkpoint_path: A file, a URL, or an open file.
            map_location: Where to load its tensors; see `torch.load`. By default, the device they were saved from.
            hparams_file: Not supported: a checkpoint contains how its module is built.
            strict: Whether the weights must match those of the module exactly.
            weights_only: Has no effect: a file that would run code is always refused.
            **kwargs: Arguments of the module that replace those of the checkpoint.

        Raises:
            UsageError: The checkpoint names classes from modules that are not imported, or classes other than networks,
                losses, optimizers and the like: its author would choose what code runs.
        """
        if hparams_file is not None:
            raise UsageError(
                "hparams_file: expected none, since the checkpoint records how its module is built, got "
                f"{hparams_file}; give arguments by name"
            )
        return build_from(cls, load_plain(checkpoint_path, map_location), strict, kwargs)

    def _save_config(self) -> None:
        """Saves what rebuilds this module as hyperparameters, in the format of Lightning's command line."""
        if self.unserializable:
            names = ", ".join(self.unserializable)
            rank_zero_warn(
                f"{type(self).__name__}: the checkpoint cannot record how {names} was built; give {names} to "
                "load_from_checkpoint too, or build it from serializable parts, such as functools.partial(Adam, "
                "lr=1e-3) for an optimizer"
            )
        self.save_hyperparameters({INSTANTIATOR_KEY: INSTANTIATOR, **self.init_args}, logger=False)

    # ---- used by the parts -------------------------------------------------------------------------------------------

    @property
    def attached_trainer(self) -> Trainer | None:
        """The Trainer that runs this module, if any."""
        return self._trainer

    @property
    def is_fitting(self) -> bool:
        """Whether a Trainer is fitting this module now."""
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    @property
    def accumulates(self) -> bool:
        """Whether the batch of an update is split."""
        return set(self.accumulation.values()) != {1}

    @property
    def reported(self) -> dict[str, float]:
        """The scalars most recently passed to the loggers."""
        return self.scalars.reported

    def _rng(self, *address: int) -> torch.Generator:
        assert self.seed is not None, "the seed is known once a Trainer runs"
        return rng_at(self.seed, *address, device=self.device)


def _unless_first(dataloader_idx: int) -> tuple[int, ...]:
    """Returns the part of an rng address that identifies one of several loaders; most runs have one."""
    return (dataloader_idx,) if dataloader_idx else ()
