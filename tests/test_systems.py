"""The four systems that the package grew from, each against its description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cgan import ConditionalGAN, NonSaturating

Built = Callable[..., dict[str, Any]]
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh)
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, *ACTIVATIONS)


def trace(network: nn.Module, *inputs: Tensor) -> list[tuple[Any, ...]]:
    """What happens to the inputs, in order: each layer with the shape of its output, and its settings."""
    seen: list[tuple[Any, ...]] = []

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        kind = next(layer.__name__ for layer in LAYERS if isinstance(module, layer))
        settings: list[Any] = []
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            settings = [module.kernel_size, module.stride]
        if isinstance(module, nn.LeakyReLU):
            settings = [module.negative_slope]
        if isinstance(module, nn.Dropout):
            settings = [module.p]
        seen.append((kind, tuple(output.shape[1:]), *settings))

    handles = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, LAYERS)]
    network(*inputs)
    for handle in handles:
        handle.remove()
    return seen


def system(built: Built, config: str) -> tuple[ConditionalGAN, Any, Any]:
    parts = built(config)
    return parts["model"], parts["datamodule"], parts["trainer"]


def traces(model: ConditionalGAN, num_classes: int = 10) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    labels = torch.arange(2) % num_classes
    of_generator = trace(model.generator, torch.randn(2, model.generator.latent_dim), labels)
    return of_generator, trace(model.discriminator, torch.rand(2, 1, 28, 28) * 2 - 1, labels)


def assert_adam(model: ConditionalGAN, lr: float, betas: Sequence[float]) -> None:
    for configured in model.configure_optimizers():  # type: ignore[union-attr]
        optimizer = configured["optimizer"]  # type: ignore[index,call-overload]
        assert type(optimizer) is torch.optim.Adam
        assert optimizer.defaults["lr"] == lr
        assert tuple(optimizer.defaults["betas"]) == tuple(betas)
        assert optimizer.defaults["weight_decay"] == 0
        assert "lr_scheduler" not in configured


def assert_he_normal(network: nn.Module) -> None:
    """Weights normal with standard deviation 1 / sqrt(fan-in / 2), biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            assert torch.count_nonzero(layer.bias) == 0
            scaled = layer.weight.detach() * (layer.in_features / 2) ** 0.5
            if scaled.numel() > 1000:
                assert scaled.std().item() == pytest.approx(1, abs=0.06)
                assert scaled.mean().item() == pytest.approx(0, abs=0.06)
                # of a normal distribution: 68.3 % within one deviation, 95.4 % within two
                assert (scaled.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.03)
                assert (scaled.abs() < 2).float().mean().item() == pytest.approx(0.954, abs=0.02)


def test_mlp(built: Built) -> None:
    model, data, trainer = system(built, "mnist_mlp.yaml")
    of_generator, of_discriminator = traces(model)
    assert model.generator.latent_dim == 100
    assert model.generator.layers[0].in_features == 110
    assert of_generator == [("Linear", (128,)), ("ReLU", (128,)), ("Linear", (784,)), ("Sigmoid", (784,))]
    assert model.discriminator.layers[0].in_features == 794
    assert of_discriminator == [("Linear", (128,)), ("ReLU", (128,)), ("Linear", (1,))]
    assert_he_normal(model)
    assert_adam(model, lr=1e-3, betas=(0.9, 0.999))
    assert type(model.loss) is NonSaturating
    assert not model.penalties
    assert (model.latents, model.input_sampler.fake_labels, data.batch_size) == ("uniform", "real", 64)
    assert (trainer.max_steps, trainer.log_every_n_steps) == (100_000, 1000)
    samples = next(callback for callback in trainer.callbacks if type(callback).__name__ == "SampleGrid")
    assert (samples.every_n_steps, samples.labels, samples.columns, samples.rows) == (1000, [7], 4, 4)


def test_mlp_batchnorm(built: Built) -> None:
    model, data, trainer = system(built, "mnist_mlp_batchnorm.yaml")
    of_generator, of_discriminator = traces(model)
    assert model.generator.latent_dim == 100
    hidden = [[("Linear", (width,)), ("ReLU", (width,)), ("BatchNorm1d", (width,))] for width in (256, 512)]
    assert of_generator == [*hidden[0], *hidden[1], ("Linear", (784,)), ("Sigmoid", (784,))]
    hidden = [[("Linear", (width,)), ("ReLU", (width,))] for width in (512, 256)]
    assert of_discriminator == [*hidden[0], *hidden[1], ("Linear", (1,))]
    assert_adam(model, lr=1e-4, betas=(0.9, 0.999))
    assert type(model.loss) is NonSaturating
    assert (model.latents, model.input_sampler.fake_labels, data.batch_size) == ("normal", "uniform", 128)
    assert trainer.max_epochs == 100
    samples = next(callback for callback in trainer.callbacks if type(callback).__name__ == "SampleGrid")
    assert (samples.labels, samples.columns, samples.rows) == (None, 1, 1)


def test_resnet_4_9(built: Built) -> None:
    model, data, _ = system(built, "mnist_resnet_4_9.yaml")
    assert data.class_names == ("4", "9")
    assert data.num_classes == model.generator.num_classes == model.discriminator.num_classes == 2
    of_generator, of_discriminator = traces(model, num_classes=2)
    convolutions = [entry for entry in of_generator if entry[0] == "Conv2d"]
    # two blocks of two 3 x 3 convolutions beside a 1 x 1 shortcut, then the image
    assert [entry[2] for entry in convolutions] == [(3, 3), (3, 3), (1, 1)] * 2 + [(3, 3)]
    assert convolutions[-1][1] == (1, 28, 28)
    convolutions = [entry for entry in of_discriminator if entry[0] == "Conv2d"]
    assert [entry[2] for entry in convolutions] == [(3, 3), (3, 3), (1, 1)] * 3
    assert [entry[1][1] for entry in convolutions] == [28, 28, 14, 14, 14, 7, 7, 7, 7]
    assert type(model.loss) is NonSaturating
    assert_adam(model, lr=2e-4, betas=(0.5, 0.999))


def test_dcgan(built: Built) -> None:
    model, data, trainer = system(built, "mnist_dcgan.yaml")
    of_generator, of_discriminator = traces(model)
    assert (model.generator.latent_dim, model.latents, model.input_sampler.fake_labels) == (100, "normal", "real")
    assert of_generator == [
        ("Linear", (7 * 7 * 256,)),
        ("BatchNorm2d", (256, 7, 7)),
        ("ConvTranspose2d", (128, 7, 7), (5, 5), (1, 1)),
        ("BatchNorm2d", (128, 7, 7)),
        ("LeakyReLU", (128, 7, 7), 0.3),
        ("ConvTranspose2d", (64, 14, 14), (5, 5), (2, 2)),
        ("BatchNorm2d", (64, 14, 14)),
        ("LeakyReLU", (64, 14, 14), 0.3),
        ("ConvTranspose2d", (1, 28, 28), (5, 5), (2, 2)),
    ]
    inputs = torch.randn(3, 100), torch.arange(3)
    before_tanh: list[Tensor] = []
    model.generator.convolutions[-1].register_forward_hook(lambda *call: before_tanh.append(call[2]))
    assert torch.equal(model.generator(*inputs), torch.tanh(before_tanh[0]))
    assert model.generator.project.in_features == model.discriminator.convolutions[0].in_channels + 99 == 110
    assert of_discriminator == [
        ("Conv2d", (64, 14, 14), (5, 5), (2, 2)),
        ("LeakyReLU", (64, 14, 14), 0.3),
        ("Dropout", (64, 14, 14), 0.3),
        ("Conv2d", (128, 7, 7), (5, 5), (2, 2)),
        ("LeakyReLU", (128, 7, 7), 0.3),
        ("Dropout", (128, 7, 7), 0.3),
        ("Linear", (1,)),
    ]
    assert data.batch_size == 256
    assert type(model.loss) is NonSaturating
    assert_adam(model, lr=1e-4, betas=(0.9, 0.999))
    # a picture and both losses after every epoch of 55,000 images
    samples = next(callback for callback in trainer.callbacks if type(callback).__name__ == "SampleGrid")
    assert samples.every_n_steps == trainer.log_every_n_steps == 55_000 // 256
