"""Labelled images as Lightning data modules."""

from lightning_cgan.data.arrays import ArrayData
from lightning_cgan.data.base import LabelledImages
from lightning_cgan.data.digits import DigitsData
from lightning_cgan.data.image_folder import ImageFolderData
from lightning_cgan.data.loader import OrderedLoader, ShufflingLoader
from lightning_cgan.data.torchvision_sets import FashionMNISTData, KMNISTData, MNISTData

__all__ = [
    "ArrayData",
    "DigitsData",
    "FashionMNISTData",
    "ImageFolderData",
    "KMNISTData",
    "LabelledImages",
    "MNISTData",
    "OrderedLoader",
    "ShufflingLoader",
]
