"""`PretrainedGenerator`, a trained generator in the Hugging Face Hub's layout for PyTorch modules."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from typing_extensions import Self

from lightning_cgan.core.building import build
from lightning_cgan.core.class_names import check_names
from lightning_cgan.core.errors import UsageError, extra, printable, reason_of
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import Distribution
from lightning_cgan.networks.sampler import Sampler

with extra("hub"):
    from huggingface_hub import PyTorchModelHubMixin


# The machine-readable part of model cards
ON_THE_HUB: dict[str, Any] = {
    "library_name": "lightning_cgan",
    "pipeline_tag": "unconditional-image-generation",  # the closest of the Hub's tasks
    "tags": ["gan", "conditional-gan", "image-generation", "pytorch-lightning"],
}


class PretrainedGenerator(Sampler, PyTorchModelHubMixin, **copy.deepcopy(ON_THE_HUB)):
    """A trained generator, as `export` writes it to a folder.

    `PretrainedGenerator.from_pretrained(place)` loads it from such a folder or from a repository on the Hugging Face
    Hub; `save_pretrained` and `push_to_hub` write one. See `huggingface_hub.PyTorchModelHubMixin`.

    Example:
        >>> sizes = {"num_classes": 10, "image_channels": 1, "image_size": 28}
        >>> network = {"class_path": "lightning_cgan.MLPGenerator", "init_args": sizes}
        >>> pretrained = PretrainedGenerator(network)
        >>> pretrained.generate([0, 0, 9], seed=0).shape
        torch.Size([3, 1, 28, 28])
        >>> picture = pretrained.sheet([0, 9], count=4, seed=0)  # a PIL image, which a notebook displays

    Args:
        generator: The config of the network, in plain values: its `class_path` and its `init_args`. A custom class must
            be imported first: loading a file imports nothing, since that would run code of its author.
        latents: The distribution of the latents in training.
        class_names: The name of each class; their numbers if not given.

    Raises:
        UsageError: `generator` names a class that is not a generator or whose module is not imported, or `latents` or
            `class_names` do not fit.
    """

    def __init__(
        self,
        generator: Mapping[str, Any],
        latents: Distribution = "normal",
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.generator = build(generator, Generator, "config.json")
        self.generator_ema = None
        self.latents = latents
        names = list(map(str, range(self.num_classes))) if class_names is None else class_names
        are_names = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        if latents not in ("normal", "uniform") or not are_names or len(names) != self.num_classes:
            expected = f"normal or uniform latents and {self.num_classes} class names"
            got = printable(f"{latents} and {names}", 100)
            raise UsageError(f"config.json: expected {expected}, got {got}; export the generator again")
        check_names("config.json", names)
        self.class_names = tuple(names)
        self.eval()

    @classmethod
    def _from_pretrained(cls, **options: Any) -> Self:
        try:
            with redirect_stdout(None):  # the mixin prints that it loads
                return cast(Self, super()._from_pretrained(**options))
        except (OSError, UsageError):
            raise
        except Exception as error:  # weights of another network raise many kinds of errors
            expected = "expected the weights of the generator that config.json describes"
            raise UsageError(
                f"model.safetensors: {expected}, got others ({reason_of(error)}); export it again"
            ) from error

    def forward(self, labels: Tensor, latents: Tensor) -> Tensor:
        """Generates images: labels (N,) and latents (N, latent_dim) -> images (N, C, H, W) in [-1, 1]."""
        return cast(Tensor, self.generator(latents, labels))


def read_folder(folder: Path) -> PretrainedGenerator:
    """Reads a folder that `save_pretrained` has written."""
    try:
        if not (folder / "config.json").is_file():
            raise FileNotFoundError("no config.json")
        return PretrainedGenerator.from_pretrained(folder)
    except UsageError:
        raise
    except Exception as error:  # a broken file raises many kinds of errors
        expected = "expected a folder that export wrote"
        raise UsageError(f"source: {expected}, got {folder} ({reason_of(error)}); name another") from error
