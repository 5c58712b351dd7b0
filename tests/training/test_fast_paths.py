"""What makes a step fast changes nothing: each switch against the slow way; `test_compilation.py` has the graphs."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from helpers.pairs import PAIRS, built, largest_difference, mlp, train
from helpers.quiet import quiet_trainer
from lightning_cgan import R1, ConditionalGAN, DigitsData, NonSaturating
from lightning_cgan.networks.base import discriminate
from lightning_cgan.objectives.inputs import UpdateInputs
from lightning_cgan.objectives.objectives import Objectives
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.scalars import Scalars


def some_round(count: int = 6) -> UpdateInputs:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(count, 1, 8, 8, generator=generator) * 2 - 1
    latents = torch.randn(count, 4, generator=generator)
    labels = torch.arange(count) % 10
    return UpdateInputs(real, labels, latents, labels.flip(0), torch.empty(count, 0), torch.empty(count, 0))


def gradients(objective: torch.Tensor, network: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(objective, list(network.parameters())))


@pytest.mark.parametrize("pair", [name for name in PAIRS if name != "dcgan"])  # which has dropout
def test_one_pass_for_real_and_fake_is_two(pair: str) -> None:
    generator, discriminator = built(PAIRS[pair])
    discriminator.eval()  # spectral norm moves in each pass
    inputs = some_round()
    fake = generator(inputs.latents, inputs.fake_labels).detach()
    found = {}
    for joint in (True, False):
        objectives = Objectives(NonSaturating(), [R1(1.0)], None, joint_pass=joint)
        objective, means = objectives.of_discriminator(discriminator, inputs, fake, objectives.active_penalties(0))
        found[joint] = objective, means, gradients(objective, discriminator)
    assert torch.allclose(found[True][0], found[False][0], atol=1e-6)
    for name, mean in found[False][1].items():
        assert torch.allclose(found[True][1][name], mean, atol=1e-6), name
    for one, other in zip(found[True][2], found[False][2], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("pair", ["dcgan", "resnet", "r3gan"])
def test_the_order_in_memory_changes_nothing(pair: str) -> None:
    fast = built(PAIRS[pair])
    slow = built(PAIRS[pair])
    for network in slow:
        for parameter in network.parameters():
            parameter.data = torch.empty(parameter.shape).copy_(parameter)
    assert any(not weight.is_contiguous() for network in fast for weight in network.parameters())
    assert all(weight.is_contiguous() for network in slow for weight in network.parameters())
    inputs, results = some_round(), []
    for generator, discriminator in (fast, slow):
        generator.double()
        discriminator.double().eval()
        images = generator(inputs.latents.double(), inputs.fake_labels)
        logits = discriminate(discriminator, images, inputs.fake_labels).logits
        results.append([images, logits, *gradients(logits.square().sum(), generator)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_convolutions_hand_on_the_order_in_memory() -> None:
    _, discriminator = built(PAIRS["dcgan"])
    orders = []
    for layer in discriminator.convolutions:  # type: ignore[union-attr]
        layer.register_forward_hook(
            lambda _, __, maps: orders.append(maps.is_contiguous(memory_format=torch.channels_last))
        )
    discriminator(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64))
    assert orders
    assert all(orders)


def test_shared_fakes_are_fakes_made_again() -> None:
    """Accumulation makes the images again from the same latents."""
    sgd = {f"{role}_optimizer": partial(SGD, lr=0.05) for role in ("generator", "discriminator")}
    shared, again = (train(built(mlp), steps=4, generator_accumulation=parts, **sgd) for parts in (1, 2))
    assert largest_difference(shared, again) < 1e-6


def test_running_means_are_means() -> None:
    means = Scalars(ConditionalGAN(*built(mlp), NonSaturating()))
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value, dtype=torch.float64), "logits": torch.tensor(-value)})
    means.add({"loss": torch.tensor(1.0)})
    state = means.state_dict()
    again = Scalars(ConditionalGAN(*built(mlp), NonSaturating()))
    again.load_state_dict(state)
    again.add({"loss": torch.tensor(0.0)})
    assert means.pop()["loss"] == 2.5
    popped = again.pop()
    assert (popped["loss"], popped["logits"]) == (2.0, -3.0)


@pytest.mark.ci
@pytest.mark.parametrize("compile", ["none", "step"])
def test_memory_stays_flat(monkeypatch: pytest.MonkeyPatch, compile: str) -> None:
    monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)
    counts = []

    class Counting(ConditionalGAN):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step in (118, 282):  # at the same place of an epoch of 82, after validation
                gc.collect()
                # not the stand-ins that compilers leave behind
                tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, nn.Parameter)]
                tensors = [tensor for tensor in tensors if all(isinstance(size, int) for size in tensor.shape)]
                counts.append((len(tensors), sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors)))

    adam = {f"{role}_optimizer": torch.optim.Adam for role in ("generator", "discriminator")}
    torch.manual_seed(0)
    module = Counting(*built(mlp), NonSaturating(), ema_half_life=100.0, compile=compile, **adam)  # type: ignore[arg-type]
    quiet_trainer(283).fit(module, DigitsData(batch_size=16))
    assert counts[0] == counts[1]
