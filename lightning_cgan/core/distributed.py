"""Communication between the processes of a run, in plain `torch.distributed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm

from lightning_cgan.core.compat import foreach
from lightning_cgan.core.errors import UsageError

_copy_each_ = foreach("copy_")


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Replaces buffers that depend on a process's own images, such as batch statistics, by their mean."""
    average_tensors([buffer for buffer in network.buffers() if buffer.is_floating_point()])


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the whole batch, of which each of n processes has every n-th row."""
    shares = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, rows)
    return torch.stack(shares, dim=1).flatten(0, 1)


def agree(rows: int, fault: str, device: torch.device) -> list[int]:
    """The number of rows in each process; the `fault` of one, an error message, is raised as `UsageError` in all."""
    own = torch.tensor([[rows, bool(fault)]], device=device)
    counts, is_wrong = gather_rows(own).T.tolist()
    if any(is_wrong):
        said: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(said, fault)
        raise UsageError(next(filter(None, said)))
    return cast(list[int], counts)


@torch.no_grad()
def average_tensors(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors by their means over all processes, in one all-reduce."""
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    _copy_each_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with statistics over all processes, for devices that PyTorch's own does not support.

    It accepts features of any number of dimensions; `BatchNorm2d` is merely the nearest public base class.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalises features, shape (N, C, …)."""
        if not self.training:
            return batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        other_axes = [0, *range(2, features.ndim)]
        shape = [1, -1, *[1] * (features.ndim - 2)]
        count = features.new_tensor([features.numel() / features.shape[1]])
        total = all_reduce(torch.cat([features.sum(other_axes), count]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = features - mean.view(shape)
        variance = all_reduce(centred.square().sum(other_axes)) / count
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalized: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        tracked = cast(Tensor, self.num_batches_tracked)
        tracked += 1
        weight = self.momentum if self.momentum is not None else 1 / tracked.item()
        cast(Tensor, self.running_mean).lerp_(mean, weight)
        cast(Tensor, self.running_var).lerp_(variance, weight)
