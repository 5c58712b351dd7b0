"""A trained generator alone, in the layout that the Hugging Face Hub has for PyTorch modules."""

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
from lightning_cgan.core.errors import UsageError, extra, printable
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.latents import Distribution
from lightning_cgan.networks.sampler import Sampler

with extra("hub"):
    from huggingface_hub import PyTorchModelHubMixin


# What model cards tell programs.
ON_THE_HUB: dict[str, Any] = {
    "library_name": "lightning_cgan",
    "pipeline_tag": "unconditional-image-generation",  # of the Hub's tasks the nearest
    "tags": ["gan", "conditional-gan", "image-generation", "pytorch-lightning"],
}


class PretrainedGenerator(Sampler, PyTorchModelHubMixin, **copy.deepcopy(ON_THE_HUB)):
    """A generator that has been trained: what `export` writes to a folder.

    `PretrainedGenerator.from_pretrained(place)` builds it from such a folder, or from a repository on the Hugging Face
    Hub; `save_pretrained` and `push_to_hub` write one. See `huggingface_hub.PyTorchModelHubMixin`.

    Args:
        generator: How the network is built, in plain values: its `class_path` and its `init_args`. A class of your own
            must have been imported: a file of others' imports nothing, since that would run code.
        latents: The distribution of the latents that it was trained with.
        class_names: The name of each class; their numbers if not given.

    Raises:
        UsageError: The description names a class of a module that nobody has imported, or none of a generator.
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
            expected = f"normal or uniform latents and {self.num_classes} names of classes"
            got = printable(f"{latents} and {names}", 100)
            raise UsageError(f"config.json: expected {expected}, got {got}; export the generator again")
        check_names("config.json", names)
        self.class_names = tuple(names)
        self.eval()

    @classmethod
    def _from_pretrained(cls, **options: Any) -> Self:
        try:
            return cast(Self, super()._from_pretrained(**options))
        except (OSError, UsageError):
            raise
        except Exception as error:  # weights of another network fail in many ways
            reason = printable(f"{type(error).__name__}: {' '.join(str(error).split())}", 200)
            expected = "expected the weights of the generator that config.json describes"
            raise UsageError(f"model.safetensors: {expected}, got others ({reason}); export it again") from error

    def forward(self, labels: Tensor, latents: Tensor) -> Tensor:
        """Makes images: labels (N,) and latents (N, latent_dim) -> images (N, C, H, W) in [-1, 1]."""
        return cast(Tensor, self.generator(latents, labels))


def read_folder(folder: Path) -> PretrainedGenerator:
    """Reads a folder that `save_pretrained` has written, without a word.

    Raises:
        UsageError: The folder is another.
    """
    try:
        if not (folder / "config.json").is_file():
            raise FileNotFoundError("no config.json")
        with redirect_stdout(None):  # where the mixin says that it loads
            return PretrainedGenerator.from_pretrained(folder)
    except UsageError:
        raise
    except Exception as error:  # a broken file fails in many ways
        expected, reason = "expected a folder that export wrote", f"{type(error).__name__}: {error}"
        raise UsageError(f"source: {expected}, got {folder}, which is none ({reason}); name another") from error
