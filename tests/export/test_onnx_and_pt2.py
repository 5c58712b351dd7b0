"""A generator for others makes the same images, and what stands beside it is right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from helpers.marks import ci_but_for
from lightning_cgan import (
    ConditionalGAN,
    DCGANGenerator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    PretrainedGenerator,
    R3GANGenerator,
    ResNetGenerator,
    UsageError,
)
from lightning_cgan.core.serialization import to_config
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import check_images, write_onnx, write_program

NAMES = ("cat", "T-shirt/top", "Ä")

Fails = Callable[..., str]

GENERATORS: dict[str, Callable[[], Generator]] = {
    "mlp": lambda: MLPGenerator(3, 3, 8, 4, (16,)),
    "mlp with an embedding": lambda: MLPGenerator(3, 1, 5, 4, (16,), batch_norm=True, label_embedding=2),
    "dcgan": lambda: DCGANGenerator(3, 3, 8, 4, channels=(8, 4)),
    "dcgan with conditional batch norm": lambda: DCGANGenerator(
        3, 1, 8, 4, channels=(8, 4), negative_slope=0.2, conditional_batch_norm=True, label_embedding=2
    ),
    "resnet": lambda: ResNetGenerator(3, 1, 8, 4, channels=(8, 4, 4)),
    "r3gan": lambda: R3GANGenerator(3, 1, 8, 4, channels=(8, 4)),
    "r3gan with an embedding": lambda: R3GANGenerator(3, 3, 16, 4, channels=(8, 8, 4), label_embedding=2),
}


def trained(make: Callable[[], Generator]) -> Generator:
    """Every weight and every statistic is of use, as behind a training."""
    network = make().eval().requires_grad_(False)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point():
            tensor.normal_(std=0.4)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return network


def metadata_of(network: Generator) -> ExportMetadata:
    return ExportMetadata(NAMES, network.latent_dim, network.image_channels, network.image_size, "uniform", "1.2.3")


def inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.arange(count).flip(0) % 3, torch.randn(count, 4)


@pytest.mark.parametrize("name", ci_but_for(GENERATORS, "dcgan with conditional batch norm"))
def test_onnx_makes_the_images_of_the_generator(name: str, tmp_path: Path) -> None:
    network = trained(GENERATORS[name])
    write_onnx(network, metadata_of(network), tmp_path / "x.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    onnx.checker.check_model(onnx.load("x.onnx"), full_check=True)
    session = onnxruntime.InferenceSession("x.onnx")
    for count in (1, 7):
        labels, latents = inputs(count)
        (images,) = session.run(None, {"labels": labels.numpy(), "latents": latents.numpy()})
        expected = network(latents, labels)
        assert images.shape == expected.shape
        assert expected.std() > 0.01
        torch.testing.assert_close(torch.from_numpy(images), expected, atol=1e-4, rtol=0)
    (output,) = session.get_outputs()
    described = [(value.name, value.type, value.shape[1:]) for value in (*session.get_inputs(), output)]
    assert described[:2] == [("labels", "tensor(int64)", []), ("latents", "tensor(float)", [4])]
    size = network.image_size
    assert described[2] == ("images", "tensor(float)", [network.image_channels, size, size])
    assert isinstance(output.shape[0], str)  # any number
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert (metadata["latents"], metadata["lightning_cgan"]) == ("uniform", "1.2.3")
    assert ExportMetadata.from_texts(metadata) == metadata_of(network)


@pytest.mark.parametrize("name", GENERATORS)
def test_program_makes_the_images_of_the_generator(name: str, tmp_path: Path) -> None:
    network = trained(GENERATORS[name])
    write_program(network, metadata_of(network), tmp_path / "x.pt2")
    texts = {"lightning_cgan.json": ""}
    program = torch.export.load("x.pt2", extra_files=texts).module()
    for count in (1, 7):
        labels, latents = inputs(count)
        torch.testing.assert_close(program(labels, latents), network(latents, labels), atol=1e-4, rtol=0)
    assert ExportMetadata.from_texts(json.loads(texts["lightning_cgan.json"])) == metadata_of(network)


@pytest.mark.parametrize("name", GENERATORS)
def test_pretrained_makes_exactly_the_images_of_the_module(name: str) -> None:
    network = trained(GENERATORS[name])
    sizes = (3, network.image_channels, network.image_size)
    module = ConditionalGAN(network, MLPDiscriminator(*sizes), NonSaturating(), latents="uniform")
    written = PretrainedGenerator(to_config(network), "uniform", NAMES)
    written.generator.load_state_dict(network.state_dict())
    written.save_pretrained("x")
    read = PretrainedGenerator.from_pretrained("x")
    assert (read.class_names, read.latents, read.training) == (NAMES, "uniform", False)
    labels, latents = inputs(7)
    assert torch.equal(read(labels, latents), module.eval()(latents, labels))
    assert torch.equal(read.generate(labels, latents), module.generate(labels, latents))
    assert torch.equal(read.generate([2, 0, 1], seed=3), module.generate([2, 0, 1], seed=3))
    mixture = torch.tensor([[0.2, 0.3, 0.5]])
    assert torch.equal(read.generate(mixture, latents[:1]), module.generate(mixture, latents[:1]))


def test_a_file_that_makes_others_is_told() -> None:
    network = nn.Module()
    network.forward = lambda labels, latents: torch.zeros(len(labels), 1, 8, 8)  # type: ignore[assignment, misc]
    metadata = ExportMetadata(("a", "b"), 4, 1, 8, "normal", "0")
    check_images(network, network, metadata)

    def makes(image: Callable[[int], Tensor]) -> str:
        with pytest.raises(UsageError) as caught:
            check_images(network, lambda labels, _: image(len(labels)), metadata)
        return str(caught.value)

    assert "got a difference of nan" in makes(lambda n: torch.full((n, 1, 8, 8), math.nan if n > 1 else 0.0))
    assert "got a difference of 0.1" in makes(lambda n: torch.full((n, 1, 8, 8), 0.1))
    message = "expected images of shape (3, 1, 8, 8), got a file that makes (1, 1, 8, 8); export to a folder"
    assert message in makes(lambda _: torch.zeros(1, 1, 8, 8))
