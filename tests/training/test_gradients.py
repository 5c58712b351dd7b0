"""Losses and gradients that are not finite: the update is left out, counted, and past a limit the run ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import SGD, Adam, RMSprop
from torch.utils.data import DataLoader

from helpers.paths import DIGITS
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating
from lightning_cgan.cli.main import main
from lightning_cgan.training.compilation import Compilation
from lightning_cgan.training.gradients import are_finite, skip_nonfinite_step

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": partial(Adam, lr=0.01),
    "fused adam": partial(Adam, lr=0.01, fused=True),
    "fused sgd": partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1, fused=True),
    "rmsprop": partial(RMSprop, lr=0.01),
}


class History(Callback):
    """Everything that lasts, after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, dict[str, Tensor]]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        state: dict[str, dict[str, Tensor]] = {}
        for number, role in enumerate(("generator", "discriminator")):
            weights = {name: value.detach().clone() for name, value in getattr(pl_module, role).state_dict().items()}
            moments = trainer.optimizers[number].state_dict()["state"]
            kept = {
                f"{place}.{name}": torch.as_tensor(v).clone() for place in moments for name, v in moments[place].items()
            }
            state[role] = {**weights, **kept}
        self.states.append(state)


def batches(*broken: int, count: int = 4) -> DataLoader[Any]:
    chance = torch.Generator().manual_seed(0)
    images = [torch.rand(8, 1, 8, 8, generator=chance) for _ in range(count)]
    for number in broken:
        images[number][3, 0, 2, 2] = 1.01
    return DataLoader([(batch, torch.arange(8) % 10) for batch in images], batch_size=None)


class Fragile(MLPDiscriminator):
    """Is NaN where a pixel is above 1."""

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return super().forward(torch.where(images > 1, math.nan, images), labels)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind", [*OPTIMIZERS, "graph"])
def test_an_update_with_nan_is_left_out_and_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel of the third batch makes the discriminator NaN; the generator does not see it."""
    optimizer = OPTIMIZERS.get(kind, OPTIMIZERS["adam"])
    networks = MLPGenerator(10, 1, 8, hidden=[16]), Fragile(10, 1, 8, hidden=[16])
    options: dict[str, Any] = {f"{role}_optimizer": optimizer for role in ("generator", "discriminator")}
    if kind == "graph":
        options["compile"] = "step"
        monkeypatch.setattr(Compilation, "has_compiler", lambda self: False)
    module = ConditionalGAN(*networks, NonSaturating(), **options)
    history = History()
    quiet_trainer(4, callbacks=[history], precision="32-true").fit(module, batches(2))
    assert (module.compilation.fused_step is not None) == (kind == "graph")
    first, second, third, fourth = (state["discriminator"] for state in history.states)
    assert not same(first, second)
    assert same(second, third)
    assert not same(third, fourth)
    assert not same(history.states[1]["generator"], history.states[2]["generator"])
    assert all(value.isfinite().all() for state in history.states for part in state.values() for value in part.values())
    assert {role: int(count) for role, count in module.optimization.skipped_steps.items()} == {
        "generator": 0,
        "discriminator": 1,
    }


@pytest.mark.parametrize("bad", [math.nan, 1.0])
def test_an_optimizer_that_goes_on_from_another_run_is_no_longer_fused(bad: float) -> None:
    weight = torch.ones(3, requires_grad=True)
    plain, fused = Adam([weight], lr=0.1), Adam([weight], lr=0.1, fused=True)
    fused.load_state_dict(plain.state_dict())
    weight.grad = torch.full((3,), bad)
    with skip_nonfinite_step(fused) as is_skipped:
        fused.step()
    assert bool(is_skipped) == math.isnan(bad)
    expected = 1.0 if math.isnan(bad) else 0.9  # Adam's first step has the length of its rate
    assert weight.tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_finite(value: float) -> None:
    gradients = [torch.full((3,), 1e30), torch.zeros(2, 2), torch.tensor(-1.0)]
    assert are_finite(gradients)
    gradients[1][0, 1] = value
    assert not are_finite(gradients)
    gradients[0][0] = -value  # infinities that would cancel out
    assert not are_finite(gradients)


def test_a_run_that_makes_no_updates_any_more_ends_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    calls: list[int] = []
    real = NonSaturating.discriminator

    def breaks(self: NonSaturating, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        calls.append(1)
        return real(self, real_logits, fake_logits) * (math.nan if len(calls) > 10 else 1.0)

    monkeypatch.setattr(NonSaturating, "discriminator", breaks)
    config = DIGITS
    options = ["--trainer.log_every_n_steps", "2", "--checkpoints.every_n_train_steps", "2", "--alarms.patience", "3"]
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", config, "--trainer.accelerator", "cpu", "--trainer.max_steps", "40", *options])
    assert ended.value.code == 1
    shown = capfd.readouterr().err
    assert any("discriminator_loss: not a finite number" in str(warning.message) for warning in recwarn)
    (told,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert told.startswith("error: Step 16: no update of the discriminator was made since step 10: ")
    assert "; the last good checkpoint is " in told
    assert told.endswith("checkpoints/last.ckpt")
    (file,) = tmp_path.glob("runs/digits/*/checkpoints/last.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
