"""Generators and discriminators, in plain PyTorch."""

from lightning_cgan.networks.base import Discriminator, Generator
from lightning_cgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lightning_cgan.networks.mlp import MLPDiscriminator, MLPGenerator
from lightning_cgan.networks.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Discriminator",
    "Generator",
    "MLPDiscriminator",
    "MLPGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
]
