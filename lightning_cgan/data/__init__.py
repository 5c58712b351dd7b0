"""Labelled images as Lightning data modules."""

from lightning_cgan.data.base import LabelledImages
from lightning_cgan.data.digits import DigitsData
from lightning_cgan.data.loader import InMemoryLoader, ShufflingLoader
from lightning_cgan.data.mnist import FashionMNISTData, KMNISTData, MNISTData

__all__ = [
    "DigitsData",
    "FashionMNISTData",
    "InMemoryLoader",
    "KMNISTData",
    "LabelledImages",
    "MNISTData",
    "ShufflingLoader",
]
