"""`PretrainedGenerator`, a trained generator in the Hugging Face Hub's layout for PyTorch modules."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor
from typing_extensions import Self

from lightning_cgan.core.building import build
from lightning_cgan.core.class_names import check_names
from lightning_cgan.core.errors import UsageError, printable, reason_of
from lightning_cgan.export.shipped_generators import find_generator, is_bare
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import Distribution
from lightning_cgan.networks.sampler import Sampler

# The machine-readable part of model cards
ON_THE_HUB: dict[str, Any] = {
    "library_name": "lightning_cgan",
    "pipeline_tag": "unconditional-image-generation",  # the closest of the Hub's tasks
    "tags": ["gan", "conditional-gan", "image-generation", "pytorch-lightning"],
}


class PretrainedGenerator(Sampler, PyTorchModelHubMixin, **copy.deepcopy(ON_THE_HUB)):
    """A trained generator, as `export` writes it to a folder, or as it comes with the package.

    `from_pretrained` loads one; `save_pretrained` writes it to a folder, and `push_to_hub` to a repository on the
    Hugging Face Hub. See `huggingface_hub.PyTorchModelHubMixin`.

    Examples:
        >>> pretrained = PretrainedGenerator.from_pretrained("mnist")
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
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Loads a generator, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder that `export` wrote, else the name of a generator that comes with
                the package (`mnist`, `fashion_mnist` or `digits`), else a repository on the Hugging Face Hub, such as
                `somebody/mnist`.
            options: Those of `huggingface_hub.PyTorchModelHubMixin.from_pretrained`, such as `revision`.

        Raises:
            UsageError: There is none of that name, or its files do not describe a generator.
        """
        place = str(pretrained_model_name_or_path)
        if is_bare(place):  # repositories on the Hub have two parts
            place = str(find_generator(place, "from_pretrained"))
        return super().from_pretrained(place, **options)

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
