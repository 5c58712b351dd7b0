"""The Parzen-window log-likelihood of the first papers on GANs.

Breuleux, Bengio & Vincent 2011; the measure of Goodfellow et al. 2014 (arXiv:1406.2661) and of Mirza & Osindero 2014
(arXiv:1411.1784). It says little of how images look (Theis et al. 2016, arXiv:1511.01844), and is here for comparison
with those papers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_cgan.evaluation.precise import in_float64

_ROWS = 500
_WIDTHS = 10


def parzen_window(fakes: Tensor, validation: Tensor, test: Tensor) -> dict[str, float]:
    """Puts a Gaussian on each generated image; the width is the one that real held-out images find likeliest.

    Args:
        fakes: Generated images, shape (N, …), in [0, 1].
        validation: Real images that choose the width, shape (K, …), in [0, 1].
        test: Real images that are measured, shape (M, …), in [0, 1].

    Returns:
        The `mean` log-likelihood of a test image, in nats, its standard `error`, and the `width`.
    """
    widths = torch.logspace(-1, 0, _WIDTHS).tolist()
    width = max(widths, key=lambda candidate: float(log_likelihoods(fakes, validation, candidate).mean()))
    found = log_likelihoods(fakes, test, width)
    return {"mean": found.mean().item(), "error": (found.std() / math.sqrt(len(found))).item(), "width": width}


def log_likelihoods(centres: Tensor, images: Tensor, width: float) -> Tensor:
    """The logarithm of the density of a mixture of Gaussians at each image, shape (M,), in nats, in float64.

    Args:
        centres: The means of the Gaussians, shape (N, …).
        images: Where to measure, shape (M, …).
        width: The standard deviation of each Gaussian.
    """
    centres = centres.flatten(1)
    constant = math.log(len(centres)) + centres.shape[1] * math.log(width * math.sqrt(2 * math.pi))
    parts = [
        (-0.5 * (in_float64(torch.cdist(rows, centres)) / width) ** 2).logsumexp(1)
        for rows in images.flatten(1).split(_ROWS)
    ]
    return torch.cat(parts) - constant
