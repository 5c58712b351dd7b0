"""Generators and discriminators, in plain PyTorch."""

from lightning_cgan.networks.base import Discriminator, DiscriminatorOutput, Generator, discriminate
from lightning_cgan.networks.conditioning import ConditionalDiscriminator
from lightning_cgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lightning_cgan.networks.mlp import MLPDiscriminator, MLPGenerator
from lightning_cgan.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from lightning_cgan.networks.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
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
]
