"""What is trained, in one line."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.nn.parameter import is_lazy


class Summary(Callback):
    """Says which networks a run has, and how large they are.

    Lightning's own is a table that counts the moving average as a network, and operations only where a module has an
    example of its input: zeros, here.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says it."""
        parts = [_in_words(role, getattr(pl_module, role, None)) for role in ("generator", "discriminator")]
        rank_zero_info("; ".join(filter(None, parts)))


def _in_words(role: str, network: nn.Module | None) -> str:
    if network is None:
        return ""
    count = sum(parameter.numel() for parameter in network.parameters() if not is_lazy(parameter))
    return f"{role.capitalize()}: {type(network).__name__}, {count:,} parameters"
