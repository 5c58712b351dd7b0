"""Record a function of tensors as a graph, optionally compiled or as a CUDA graph."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_cgan.core.compat import compile_graph, foreach, version_of
from lightning_cgan.core.errors import FusionError
from lightning_cgan.training.graph_dependencies import Dependencies

Run = Callable[..., Sequence[Tensor]]

_copy_each_ = foreach("copy_")


def record(
    function: Run,
    inputs: Sequence[Tensor],
    persistent: int,
    dependencies: Dependencies,
    compiles: bool,
    cuda_graph: bool,
) -> Run:
    """Records a function of tensors without side effects.

    The first `persistent` inputs are the same tensors in every call, and the function may write to them.
    """
    devices = [inputs[0].device] if inputs[0].is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        with _without_side_effects(dependencies):
            graph: Run = make_fx(function)(*(tensor.clone() for tensor in inputs))  # copies: recording runs it
        with without_autocast(inputs[0].device.type):
            if compiles:
                graph = compile_graph(graph, [tensor.clone() for tensor in inputs])
                graph(*(tensor.clone() for tensor in inputs))  # so that a kernel that cannot be compiled fails here
            return _CudaGraph(graph, inputs, persistent) if cuda_graph and inputs[0].is_cuda else graph


class _CudaGraph:
    """A function of tensors as a CUDA graph, whose kernels are launched together."""

    def __init__(self, run: Run, inputs: Sequence[Tensor], persistent: int) -> None:
        self.per_step = [tensor.clone() for tensor in inputs[persistent:]]
        # One kernel copies all tensors of a type.
        self._alike: defaultdict[torch.dtype, list[int]] = defaultdict(list)
        for place, tensor in enumerate(self.per_step):
            if tensor.numel():
                self._alike[tensor.dtype].append(place)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm-up on copies: libraries choose kernels, and `compile` compiles
            for mode in ("default", "error"):  # then refuse what waits for the GPU, before a capture fails with it
                with _synchronizing(mode):
                    run(*(tensor.clone() for tensor in inputs))
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        # Not `torch.cuda.graph`: after an error, it raises another one, and stays on its stream.
        with torch.cuda.stream(stream):
            self.graph.capture_begin(capture_error_mode="thread_local")  # other threads, such as of loaders, go on
            try:
                self.results = run(*inputs[:persistent], *self.per_step)
            except BaseException:
                with suppress(RuntimeError):  # it tells only that there was an error
                    self.graph.capture_end()
                raise
            self.graph.capture_end()

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """Runs the graph; the next call overwrites the results."""
        given = tensors[-len(self.per_step) :]
        for places in self._alike.values():
            _copy_each_([self.per_step[place] for place in places], [given[place] for place in places])
        self.graph.replay()
        return self.results


@contextmanager
def _synchronizing(mode: str) -> Iterator[None]:
    """Sets temporarily what PyTorch does when an operation waits for a GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Disables autocast if it is enabled: the casts of a recorded graph are part of it."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@contextmanager
def as_tensors(varying: Sequence[tuple[dict[str, Any], str]], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Replaces numbers by tensors temporarily; the code within must not set them."""
    numbers = [attributes[name] for attributes, name in varying]
    versions = list(map(version_of, tensors))
    try:
        for (attributes, name), tensor in zip(varying, tensors, strict=True):
            attributes[name] = tensor
        yield
        for (attributes, name), tensor, version in zip(varying, tensors, versions, strict=True):
            if attributes[name] is not tensor or version_of(tensor) != version:
                raise FusionError(f"{name} changes in each pass")
    finally:
        for (attributes, name), number in zip(varying, numbers, strict=True):
            attributes[name] = number


@contextmanager
def _without_side_effects(dependencies: Dependencies) -> Iterator[None]:
    """Undoes changes made by Python code, which a graph would not repeat, and raises a `FusionError` for them."""
    values, rng_state, numpy_rng_state = dependencies.constant_values(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        changed = None if dependencies.hold() else dependencies.difference()
        if random.getstate() != rng_state or repr(np.random.get_state()) != repr(numpy_rng_state):
            changed = "the state of Python's or NumPy's random numbers"
            random.setstate(rng_state)
            np.random.set_state(numpy_rng_state)
        if changed is not None:
            dependencies.restore()
            for tensor, value in values:
                tensor.detach().copy_(value)
    if changed is not None:
        raise FusionError(f"{changed} changes in each pass")
