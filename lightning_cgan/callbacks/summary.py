"""A one-line summary of the networks."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.nn.parameter import is_lazy


class Summary(Callback):
    """Logs the classes of the networks and their numbers of parameters.

    Lightning's own summary is a table that counts the moving average as a network. Its counts of operations would all
    be zero, since they need a module with an example of its input.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the summary."""
        parts = [_in_words(role, getattr(pl_module, role, None)) for role in ("generator", "discriminator")]
        rank_zero_info("; ".join(filter(None, parts)))


def _in_words(role: str, network: nn.Module | None) -> str:
    if network is None:
        return ""
    count = sum(parameter.numel() for parameter in network.parameters() if not is_lazy(parameter))
    return f"{role.capitalize()}: {type(network).__name__}, {count:,} parameters"
