"""Class-conditional GANs on PyTorch Lightning: choose a label, get an image of it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

# Imported on first access, so that `import lightning_cgan` alone does not import PyTorch.
_HOMES = {
    "lightning_cgan.objectives.augmentations": ("Augmentation", "Color", "Cutout", "Translation"),
    "lightning_cgan.callbacks": (
        "BestCheckpoint",
        "Checkpoints",
        "Curves",
        "PredictionWriter",
        "ProgressBar",
        "Report",
        "RunPage",
        "SampleGrid",
        "Scores",
        "TrainingAlarms",
    ),
    "lightning_cgan.runs.checkpoint_io": ("AtomicCheckpointIO",),
    "lightning_cgan.data": (
        "ArrayData",
        "DigitsData",
        "FashionMNISTData",
        "ImageFolderData",
        "KMNISTData",
        "LabelledImages",
        "MNISTData",
    ),
    "lightning_cgan.core.errors": ("UsageError",),
    "lightning_cgan.objectives.losses": (
        "AdversarialLoss",
        "AuxiliaryClassifier",
        "Hinge",
        "LeastSquares",
        "NonSaturating",
        "RelativisticPairing",
        "Saturating",
        "Wasserstein",
    ),
    "lightning_cgan.module": ("ConditionalGAN",),
    "lightning_cgan.networks": (
        "ConditionalDiscriminator",
        "DCGANDiscriminator",
        "DCGANGenerator",
        "Discriminator",
        "DiscriminatorOutput",
        "Generator",
        "MLPDiscriminator",
        "MLPGenerator",
        "R3GANDiscriminator",
        "R3GANGenerator",
        "ResNetDiscriminator",
        "ResNetGenerator",
        "discriminate",
    ),
    "lightning_cgan.networks.inversion": ("Inversion",),
    "lightning_cgan.objectives.objectives": ("Objectives",),
    "lightning_cgan.objectives.penalties": (
        "GradientPenalty",
        "R1",
        "R2",
        "WassersteinGradientPenalty",
        "image_gradients",
    ),
    "lightning_cgan.export.initialization": ("initialize_from",),
    "lightning_cgan.export.pretrained": ("PretrainedGenerator",),
    "lightning_cgan.objectives.inputs": ("UpdateInputs",),
    "lightning_cgan.training.schedules": ("LinearDecay",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = version("lightning_cgan")
__all__ = ["__version__", *sorted(_HOME_OF)]


_RENAMED = {
    "Judgement": "DiscriminatorOutput",
    "Monitor": "TrainingAlarms",
    "Round": "UpdateInputs",
    "judge": "discriminate",
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:  # `from … import` discards the message of an AttributeError
        raise ImportError(f"{name} of {__name__!r} is called {_RENAMED[name]} now")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
