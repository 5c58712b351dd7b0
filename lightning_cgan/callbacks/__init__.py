"""Callbacks that save, score, plot and monitor a run."""

from lightning_cgan.callbacks.checkpoints import Checkpoints
from lightning_cgan.callbacks.curves import Curves, plot_curves
from lightning_cgan.callbacks.page import RunPage
from lightning_cgan.callbacks.predictions import PredictionWriter
from lightning_cgan.callbacks.progress import ProgressBar
from lightning_cgan.callbacks.report import Report
from lightning_cgan.callbacks.samples import SampleGrid
from lightning_cgan.callbacks.save_config import SaveConfig
from lightning_cgan.callbacks.scores import BestCheckpoint, Scores
from lightning_cgan.callbacks.summary import Summary
from lightning_cgan.callbacks.training_alarms import TrainingAlarms

__all__ = [
    "BestCheckpoint",
    "Checkpoints",
    "Curves",
    "PredictionWriter",
    "ProgressBar",
    "Report",
    "RunPage",
    "SampleGrid",
    "SaveConfig",
    "Scores",
    "Summary",
    "TrainingAlarms",
    "plot_curves",
]
