"""The metadata of an exported generator: what generating images needs besides the network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, cast, get_args

from torch import Tensor
from typing_extensions import Self

from lightning_cgan.core.class_names import check_names
from lightning_cgan.core.images import ImageSize, height_and_width, image_shape_of, image_size_of
from lightning_cgan.networks.latents import Distribution, LatentSampler
from lightning_cgan.networks.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class ExportMetadata:
    """Describes the classes, images and latents of a generator; `lightning_cgan` is the version that exported it."""

    class_names: tuple[str, ...]
    latent_dim: int
    image_channels: int
    image_size: ImageSize
    latents: Distribution
    lightning_cgan: str

    @classmethod
    def of(cls, sampler: Sampler) -> Self:
        """The metadata of a trained module, or of an exported generator."""
        network = sampler.generator
        sizes = (network.latent_dim, network.image_channels, network.image_size)
        return cls(sampler.class_names, *sizes, sampler.latents, version("lightning_cgan"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return image_shape_of(self.image_channels, self.image_size)

    def sample_latents(self, label: int, count: int, latent_sampler: LatentSampler) -> Tensor:
        """The latents of the first images of a class, shape (count, latent_dim), the same that `generate` uses."""
        return latent_sampler.first([label], count, self.latent_dim, self.latents)

    def to_texts(self) -> dict[str, str]:
        """All values as strings; other types are encoded as JSON."""
        values = dataclasses.asdict(self)
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """Reads the result of `to_texts`; other strings are a ValueError."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not names <= texts.keys():
            raise ValueError(f"its metadata lack {', '.join(sorted(names - texts.keys()))}")
        height, width = height_and_width(json.loads(texts["image_size"]))
        numbers: dict[str, Any] = {name: int(texts[name]) for name in ("latent_dim", "image_channels")}
        numbers["image_size"] = image_size_of(height, width)
        class_names = json.loads(texts["class_names"])
        are_names = isinstance(class_names, list) and len(class_names) > 0
        if (
            texts["latents"] not in get_args(Distribution)
            or not are_names
            or min(numbers["latent_dim"], numbers["image_channels"]) < 1
        ):
            raise ValueError("its metadata are invalid")
        check_names("its metadata", map(str, class_names))
        latents = cast(Distribution, texts["latents"])
        return cls(tuple(map(str, class_names)), **numbers, latents=latents, lightning_cgan=texts["lightning_cgan"])
