"""The Parzen-window log-likelihood of the first papers on GANs.

Introduced by Breuleux, Bengio & Vincent 2011; used by Goodfellow et al. 2014 (arXiv:1406.2661) and by Mirza & Osindero
2014 (arXiv:1411.1784). It says little about how images look (Theis et al. 2016, arXiv:1511.01844), and is included for
comparison with those papers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_cgan.evaluation.neighbours import in_float64

_ROWS = 500
_WIDTHS = 10


def parzen_window(fakes: Tensor, validation: Tensor, test: Tensor) -> dict[str, float]:
    """The log-likelihood of test images under a mixture with a Gaussian at each generated image.

    The width of the Gaussians is the one with the highest likelihood of the validation images. Images are in [0, 1].

    Returns:
        The `mean` log-likelihood of a test image, in nats, its standard `error`, and the `width`.
    """
    widths = torch.logspace(-1, 0, _WIDTHS).tolist()
    width = max(widths, key=lambda candidate: float(log_likelihoods(fakes, validation, candidate).mean()))
    found = log_likelihoods(fakes, test, width)
    return {"mean": found.mean().item(), "error": (found.std() / math.sqrt(len(found))).item(), "width": width}


def log_likelihoods(centres: Tensor, images: Tensor, width: float) -> Tensor:
    """The log-density at each image, shape (M,), in nats, in float64, of Gaussians of one width around the centres."""
    centres = centres.flatten(1)
    constant = math.log(len(centres)) + centres.shape[1] * math.log(width * math.sqrt(2 * math.pi))
    parts = [
        (-0.5 * (in_float64(torch.cdist(rows, centres)) / width) ** 2).logsumexp(1)
        for rows in images.flatten(1).split(_ROWS)
    ]
    return torch.cat(parts) - constant
