"""Networks and modules of a user's own, with terms of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader

from helpers.own_parts import DarkGAN, OwnGenerator
from helpers.quiet import quiet_trainer
from helpers.run_files import assert_same, fit_and_save, last_row
from lightning_cgan import Hinge, MLPDiscriminator, MLPGenerator


class WiderGenerator(MLPGenerator):
    """A user's own network that hands on what it does not know."""

    def __init__(self, factor: int = 2, **options: Any) -> None:
        super().__init__(hidden=[16 * factor], **options)


def test_arguments_that_are_handed_on_load(tmp_path: Path) -> None:
    sizes = {"num_classes": 10, "image_channels": 1, "image_size": 8}
    module = DarkGAN(generator=WiderGenerator(3, **sizes), discriminator=MLPDiscriminator(**sizes), loss=Hinge())
    path = fit_and_save(module, tmp_path / "a.ckpt")
    again = DarkGAN.load_from_checkpoint(path)
    assert_same(module, again)
    assert again.generator(torch.zeros(2, again.generator.latent_dim), torch.arange(2)).shape == (2, 1, 8, 8)
    assert any(parameter.shape[0] == 48 for parameter in again.generator.parameters())
    with pytest.warns(UserWarning, match="cannot record how args was built"):
        DarkGAN(MLPGenerator(**sizes), MLPDiscriminator(**sizes), Hinge())


def test_own_term_has_its_gradient_and_is_logged(tmp_path: Path) -> None:
    """Where the term is all that matters, its gradient moves the weights: that of the mean brightness, by hand."""
    generator, discriminator = OwnGenerator(2, 1, 4, brightness=0.0), MLPDiscriminator(2, 1, 4)
    for parameter in discriminator.parameters():
        torch.nn.init.zeros_(parameter)  # says the same of every image
    step = partial(SGD, lr=0.5)
    module = DarkGAN(
        generator=generator,
        discriminator=discriminator,
        loss=Hinge(),
        generator_optimizer=step,
        discriminator_optimizer=partial(SGD, lr=0.0),
    )
    drawn: list[Tensor] = []
    generator.register_forward_hook(lambda network, inputs, images: drawn.append(images.detach()))
    logger = CSVLogger(tmp_path, name="", version="")
    loader = DataLoader([(torch.zeros(1, 4, 4), 0)] * 4, batch_size=4)  # type: ignore[arg-type]
    quiet_trainer(1, logger=logger, log_every_n_steps=1).fit(module, loader)
    slope = (1 - drawn[0].square()).mean()  # of tanh
    assert generator.brightness.item() == pytest.approx(-0.5 * 3.0 * slope.item(), rel=1e-5)
    assert float(last_row(tmp_path)["brightness"]) == pytest.approx(drawn[0].mean().item(), abs=1e-6)


def test_a_network_of_squares_refuses_rectangles(fails: Callable[..., str]) -> None:
    network = ("--model.generator", "helpers.own_parts.OwnGenerator", "--model.generator.brightness", "0.1")
    size = ("--data.image_size", "[24, 40]", "--trainer.accelerator", "cpu")
    assert fails("fit", "--config", "digits", *network, *size) == (
        "error: --data.image_size: expected one number, since a custom network takes square images alone (image_size: "
        "int), got [24, 40]; give --data.image_size 24, or let the network take int | tuple[int, int]"
    )
