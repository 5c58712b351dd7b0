"""Adam as one operation of a graph, against its formula; test_graph_changes.py compares runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cgan.training import fused_adam

adam_, has_nonfinite = torch.ops.lightning_cgan.adam_, torch.ops.lightning_cgan.has_nonfinite
RATE, BETA1, BETA2, EPS, DECAY = 0.01, 0.5, 0.99, 1e-6, 0.1
NUMBERS = torch.tensor([BETA1, BETA2, EPS, DECAY], dtype=torch.float64)


def operands(dtype: torch.dtype) -> dict[str, Any]:
    """Tensors of two weights after three steps; one has another order in memory than its gradient and moments."""
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    weights = [random(5), random(2, 3, 4, 4).to(memory_format=torch.channels_last)]
    gradients = [random(5), random(2, 3, 4, 4)]
    averages = [random(5), random(2, 3, 4, 4)]
    squares = [random(5).square(), random(2, 3, 4, 4).square()]
    steps = [torch.tensor(3.0) for _ in weights]
    return {"w": weights, "g": gradients, "m": averages, "v": squares, "t": steps}


def step(tensors: dict[str, Any], is_bad: float, is_decoupled: bool) -> None:
    adam_(*tensors.values(), torch.tensor(RATE, dtype=torch.float64), NUMBERS, torch.tensor(is_bad), is_decoupled)


@pytest.mark.parametrize("is_decoupled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_is_that_of_the_paper(dtype: torch.dtype, is_decoupled: bool) -> None:
    tensors = operands(dtype)
    before = {name: [tensor.double().clone() for tensor in column] for name, column in tensors.items()}
    step(tensors, 0.0, is_decoupled)
    for index in range(2):
        w, g, m, v, t = (column[index] for column in before.values())
        if is_decoupled:  # Loshchilov & Hutter 2019, algorithm 2, with the rate as the schedule's multiplier
            w = w - RATE * DECAY * w
        else:  # an L2 penalty
            g = g + DECAY * w
        t = t + 1
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        w = w - RATE * (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPS)
        for name, expected in {"w": w, "m": m, "v": v, "t": t}.items():
            torch.testing.assert_close(tensors[name][index].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_skipped_step_changes_nothing() -> None:
    tensors = operands(torch.float32)
    tensors["g"][1][0, 0, 0, 0] = torch.nan
    before = {name: [tensor.clone() for tensor in column] for name, column in tensors.items() if name != "g"}
    step(tensors, 1.0, False)
    for name, column in before.items():
        for tensor, expected in zip(tensors[name], column, strict=True):
            assert torch.equal(tensor, expected)


def test_no_operation_reads_a_tensor_of_the_device() -> None:
    """Else a GPU would have to be waited for, and a CUDA graph could not be recorded."""

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(str(function))
            return function(*args, **(kwargs or {}))

    called: list[str] = []
    tensors, rate = operands(torch.float32), torch.tensor(RATE, dtype=torch.float64)
    with Names():
        is_bad = fused_adam.has_nonfinite(tensors["g"])
        fused_adam.adam_(*tensors.values(), rate, NUMBERS, is_bad, False)
    assert "aten._fused_adam_.tensor_lr" in called
    assert "aten._local_scalar_dense.default" not in called


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_one_gradient_that_is_not_finite_is_found(value: float) -> None:
    gradients = [torch.full((3,), 3e38), torch.zeros(2, 2).t(), torch.ones(1, dtype=torch.float64).expand(4)]
    kept = [gradient.clone() for gradient in gradients]
    assert has_nonfinite(gradients).item() == 0
    assert all(map(torch.equal, gradients, kept))
    gradients[1][0, 1] = value
    assert has_nonfinite(gradients).item() == 1


def test_compiled_graphs_may_contain_the_operations() -> None:
    tensors = operands(torch.float32)
    torch.library.opcheck(has_nonfinite.default, (tensors["g"],))
    rate, is_bad = torch.tensor(RATE, dtype=torch.float64), torch.tensor(0.0)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        adam_.default, (*tensors.values(), rate, NUMBERS, is_bad, False), test_utils=tests, rtol=1e-5, atol=1e-6
    )
