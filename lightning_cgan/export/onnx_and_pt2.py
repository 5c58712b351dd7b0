"""A generator as one file, ONNX or a PyTorch program (`.pt2`), which maps labels and latents to images."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_cgan.core.errors import UsageError, extra, reason_of
from lightning_cgan.core.rng import rng_at
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import sample_latents
from lightning_cgan.networks.sampler import in_batches

Make = Callable[[Tensor, Tensor], Tensor]  # labels (N,) int64 and latents (N, latent_dim) to images (N, C, H, W)

TOLERANCE = 1e-4
_METADATA = "lightning_cgan.json"


class _LabelsFirst(nn.Module):
    """A generator whose inputs have the order and the names that the files use."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, labels: Tensor, latents: Tensor) -> Tensor:
        return cast(Tensor, self.generator(latents, labels))


def write_onnx(generator: Generator, metadata: ExportMetadata, file: Path) -> None:
    """Writes an ONNX file with metadata that maps `labels` (N,) int64 and `latents` (N, latent_dim) to `images`."""
    with extra("onnx"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    network = _LabelsFirst(generator).eval()
    with _exporting(generator):
        program = torch.onnx.export(
            network,
            _examples(metadata, 2),
            input_names=["labels", "latents"],
            output_names=["images"],
            dynamic_shapes=dict.fromkeys(("labels", "latents"), _any_number()),
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "only the older exporter returns none"
    program.model.metadata_props.update(metadata.to_texts())
    program.save(file, external_data=False)
    check_images(network, read_onnx(file)[1], metadata)


def read_onnx(file: Path) -> tuple[ExportMetadata, Make]:
    """Reads a file that `write_onnx` has written."""
    with extra("onnx"):
        import onnxruntime
    with _reading(file):
        session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
        metadata = ExportMetadata.from_texts(session.get_modelmeta().custom_metadata_map)

    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return in_batches(run, labels, latents)

    def run(labels: Tensor, latents: Tensor) -> Tensor:
        (images,) = session.run(["images"], {"labels": labels.numpy(), "latents": latents.numpy()})
        return torch.from_numpy(images)

    with _reading(file):
        found = make(torch.tensor([0, len(metadata.class_names) - 1]), torch.zeros(2, metadata.latent_dim)).shape
        if found != (2, *metadata.image_shape):
            raise ValueError(f"its images, {tuple(found)}, do not match its metadata")
    return metadata, make


def _any_number() -> dict[int, Any]:
    """The shape of inputs whose first dimension, the number of images, may be any."""
    from torch.export import Dim  # imports sympy, which takes a second that reading a file need not wait

    return {0: Dim("batch", max=2**31)}  # without a bound, PyTorch 2.7 fails on the largest integer


def write_program(generator: Generator, metadata: ExportMetadata, file: Path) -> None:
    """Writes a PyTorch program with `torch.export.save` that maps labels (N,) and latents (N, latent_dim) to images."""
    network = _LabelsFirst(generator).eval()
    with _exporting(generator):
        program = torch.export.export(network, _examples(metadata, 2), dynamic_shapes=(_any_number(),) * 2)
        buffer = BytesIO()  # PyTorch requires the suffix .pt2, which a temporary file lacks
        torch.export.save(program, buffer, extra_files={_METADATA: json.dumps(metadata.to_texts())})
    file.write_bytes(buffer.getvalue())
    check_images(network, read_program(file)[1], metadata)


def read_program(file: Path) -> tuple[ExportMetadata, Make]:
    """Reads a file that `write_program` has written; trust its source, since such a file can run code."""
    texts = {_METADATA: ""}
    with _reading(file):
        with _silence("torch.export"):
            program = torch.export.load(BytesIO(file.read_bytes()), extra_files=texts)
        metadata, network = ExportMetadata.from_texts(json.loads(texts[_METADATA] or "{}")), program.module()

    @torch.no_grad()
    def make(labels: Tensor, latents: Tensor) -> Tensor:
        return cast(Tensor, network(labels, latents))

    return metadata, make


@torch.no_grad()
def check_images(network: nn.Module, make: Make, metadata: ExportMetadata) -> None:
    """Refuses a file whose images differ from its network's, for a batch of one and for a batch of all classes."""
    for count in (1, len(metadata.class_names) + 1):
        labels, latents = _examples(metadata, count)
        found, expected = make(labels, latents), network(labels, latents)
        if found.shape != expected.shape:
            shapes = f"images of shape {tuple(expected.shape)}, got a file that makes {tuple(found.shape)}"
            raise UsageError(f"--out: expected {shapes}; export to a folder, which is exact")
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE:  # also true of NaN
            wanted = f"expected the exported file to make the generator's images within {TOLERANCE:g}"
            raise UsageError(
                f"--out: {wanted}, got a difference of {difference:.2g}; export to a folder, which is exact"
            )


def _examples(metadata: ExportMetadata, count: int) -> tuple[Tensor, Tensor]:
    """Labels (N,) of all classes in turn, and latents (N, latent_dim)."""
    labels = torch.arange(count) % len(metadata.class_names)
    return labels, sample_latents((count, metadata.latent_dim), metadata.latents, rng_at(count))


@contextmanager
def _exporting(generator: Generator) -> Iterator[None]:
    """Silences PyTorch during an export, and reports an error in one line."""
    try:
        with _silence("torch.onnx"):
            yield
    except Exception as error:  # networks raise many kinds of errors
        raise UsageError(
            f"--out: expected a generator that PyTorch can export, got {type(generator).__name__} "
            f"({reason_of(error)}); export to a folder, which keeps the network as it is"
        ) from error


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a broken file raises many kinds of errors
        expected = "expected a file that export wrote"
        raise UsageError(f"source: {expected}, got {file} ({reason_of(error)}); name another") from error


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Silences warnings and a logger, but no exceptions."""
    logger = logging.getLogger(name)
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled
