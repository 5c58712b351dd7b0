"""The loops that `fit` is compared with; see __main__.py."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor

from lightning_cgan.core.images import signed_from_pixels
from lightning_cgan.core.rng import rng_at
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.networks.base import discriminate, frozen
from lightning_cgan.networks.latents import sample_latents
from lightning_cgan.objectives.inputs import StepInputs, UpdateInputs
from lightning_cgan.training.contract import ROLES
from lightning_cgan.training.ema import ema_decay, update_ema
from lightning_cgan.training.fused_step import FusedStep, StepParts

Step = Callable[[], None]


def bare_loop(
    module: ConditionalGAN, pixels: Tensor, labels: Tensor, batch_size: int, autocast: Any, as_graph: bool
) -> Step:
    """The step of `module` by hand."""
    generator, discriminator = copies(module)
    average = copy.deepcopy(generator).requires_grad_(False) if module.ema.half_life else None
    build = module.optimization.optimizer_factories
    optimizers = [build[role](net.parameters()) for role, net in roles(generator, discriminator)]
    generator_optimizer, discriminator_optimizer = optimizers
    input_sampler, objectives = module.input_sampler, module.objectives
    batches = from_memory(pixels, labels, batch_size)
    fused_step = None
    if as_graph and module.compilation.fused_step is not None:
        compiles = module.compilation.fused_step.compiles
        skipped = {role: torch.zeros((), dtype=torch.int64, device=pixels.device) for role in ROLES}
        parts = StepParts(generator, discriminator, objectives, input_sampler, *optimizers)
        fused_step = FusedStep(skipped, compiles, module.compilation.cuda_graph)
    count = 0

    def step() -> None:
        nonlocal count
        real, real_labels = next(batches)
        inputs = input_sampler.sample_update(rng_at(0, count, device=real.device), real, real_labels)
        penalties = objectives.active_penalties(count)
        with autocast():
            if fused_step is not None:
                fused_step.run(parts, StepInputs([inputs], inputs), penalties)
            else:
                fake = generator(inputs.latents, inputs.fake_labels)
                discriminator_optimizer.zero_grad()
                objectives.of_discriminator(discriminator, inputs, fake.detach(), penalties)[0].backward()
                discriminator_optimizer.step()
                generator_optimizer.zero_grad()
                with frozen(discriminator):
                    objectives.of_generator(discriminator, inputs, fake)[0].backward()
                generator_optimizer.step()
        if average is not None:
            decay = ema_decay(batch_size, count * batch_size, module.ema.half_life, module.ema.ramp_up)
            update_ema(average, generator, decay)
        count += 1

    return step


def plain_loop(module: ConditionalGAN, batches: Iterator[tuple[Tensor, Tensor]], reads_losses: bool) -> Step:
    """The step as one writes it without a thought for speed."""
    generator, discriminator = copies(module)
    put_channels_outermost(generator)
    put_channels_outermost(discriminator)
    generator_optimizer, discriminator_optimizer = (
        type(module.optimization.optimizer_factories[role](nn.Linear(1, 1).parameters()))(net.parameters(), lr=1e-4)
        for role, net in roles(generator, discriminator)
    )
    count = 0

    def latents_for(images: Tensor) -> Tensor:
        return sample_latents((len(images), generator.latent_dim), module.latents, None).to(images.device)

    def step() -> None:
        nonlocal count
        real, labels = next(batches)
        ones, zeros = torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
        discriminator_optimizer.zero_grad()
        latents = latents_for(real)
        fake = generator(latents, labels).detach()
        real_loss = binary_cross_entropy_with_logits(discriminate(discriminator, real, labels).logits, ones)
        fake_loss = binary_cross_entropy_with_logits(discriminate(discriminator, fake, labels).logits, zeros)
        loss = real_loss + fake_loss
        for penalty in module.penalties:
            if count % penalty.interval == 0:
                interpolation, uniforms = torch.rand(len(real), 1), torch.empty(len(real), 0)
                inputs = UpdateInputs(real, labels, latents, labels, interpolation, uniforms)
                loss = loss + penalty.interval * penalty(discriminator, inputs, fake)
        loss.backward()
        discriminator_optimizer.step()
        generator_optimizer.zero_grad()
        fake = generator(latents_for(real), labels)
        generator_loss = binary_cross_entropy_with_logits(discriminate(discriminator, fake, labels).logits, ones)
        generator_loss.backward()
        generator_optimizer.step()
        count += 1
        if reads_losses:
            loss.item(), generator_loss.item()

    return step


def put_channels_outermost(network: nn.Module) -> None:
    """Undoes the package's order in memory: weights as PyTorch makes them, and features that follow."""
    for parameter in network.parameters():
        parameter.data = torch.empty(parameter.shape, device=parameter.device).copy_(parameter)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


def roles(generator: nn.Module, discriminator: nn.Module) -> tuple[tuple[Any, nn.Module], ...]:
    """The networks by their names in a module."""
    return ("generator", generator), ("discriminator", discriminator)


def copies(module: ConditionalGAN) -> tuple[Any, Any]:
    """The networks once more, as they are now."""
    return copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)


def from_memory(pixels: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches cut out of memory at random."""
    while True:
        chosen = torch.randint(len(labels), (batch_size,), device=labels.device)
        yield signed_from_pixels(pixels.index_select(0, chosen)), labels[chosen]


def from_files(data: Any, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as tutorials load them; of the kept classes, which a tutorial would filter in some such way."""
    how = Compose([ToTensor(), Normalize(0.5, 0.5)])
    dataset = data.dataset(str(data.data_dir), transform=how, download=True)  # unpacks archives that are there
    classes = torch.tensor(data.kept)
    kept = torch.isin(dataset.targets, classes)
    dataset.data, dataset.targets = dataset.data[kept], torch.searchsorted(classes, dataset.targets[kept])
    while True:
        yield from DataLoader(dataset, batch_size, shuffle=True, drop_last=True)


def to(device: torch.device, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Takes batches to a device."""
    for images, labels in batches:
        yield images.to(device), labels.to(device)
