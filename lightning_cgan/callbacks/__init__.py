"""What watches a run and leaves something for people to see."""

from lightning_cgan.callbacks.checkpoints import Checkpoints
from lightning_cgan.callbacks.curves import Curves, draw_curves
from lightning_cgan.callbacks.predictions import PredictionWriter
from lightning_cgan.callbacks.progress import ProgressBar
from lightning_cgan.callbacks.samples import SampleGrid

__all__ = ["Checkpoints", "Curves", "PredictionWriter", "ProgressBar", "SampleGrid", "draw_curves"]
