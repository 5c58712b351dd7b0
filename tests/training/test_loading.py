"""Checkpoints that hold less than a module, other options, or what this release of PyTorch does not know."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LinearLR, PolynomialLR

from helpers.pairs import mlp
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DigitsData, MLPDiscriminator, NonSaturating, UsageError
from lightning_cgan.core.serialization import to_config

Run = Callable[..., Path]


def gan(**options: Any) -> ConditionalGAN:
    return ConditionalGAN(*mlp(), NonSaturating(), **options)


def saved(module: ConditionalGAN, path: Path) -> Path:
    trainer = quiet_trainer(1)
    trainer.fit(module, DigitsData())
    trainer.save_checkpoint(path)
    return path


def test_what_is_missing_may_be_missing(tmp_path: Path) -> None:
    module = gan()
    path = saved(module, tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"expected generator_ema.\S+ of shape"):
        ConditionalGAN.load_from_checkpoint(path, ema_half_life=100.0)
    for positional in (False, True):
        given: Any = ((None, None, False), {}) if positional else ((), {"strict": False})
        again = ConditionalGAN.load_from_checkpoint(path, *given[0], ema_half_life=100.0, **given[1])
        assert again.ema.half_life == 100.0
        assert again.generator_ema is not None
        labels = torch.arange(10)  # the average begins at the trained weights: not at any others
        assert torch.equal(again.generate(labels, seed=1), module.generate(labels, seed=1))


def test_what_is_too_much_may_be_too_much(tmp_path: Path) -> None:
    path = saved(gan(ema_half_life=100.0), tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="the checkpoint: skipped generator_ema.+, which this model does not have"):
        again = ConditionalGAN.load_from_checkpoint(path, strict=False, ema_half_life=None)
    assert again.generator_ema is None
    with pytest.raises(UsageError, match="expected generator_ema"):
        ConditionalGAN.load_from_checkpoint(path, ema_half_life=None)


def test_other_shapes_are_refused_all_the_same(tmp_path: Path) -> None:
    path = saved(gan(), tmp_path / "a.ckpt")
    wider = MLPDiscriminator(10, 1, 8, hidden=(17,))
    with pytest.raises(UsageError, match=r"expected discriminator.\S+ of shape \(1, 17\)"):
        ConditionalGAN.load_from_checkpoint(path, strict=False, discriminator=wider)


class Longer(ConditionalGAN):
    """A user's own module with a part that checkpoints of its base do not have."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.extra = nn.Linear(2, 2)
        self.strict_loading = False


def test_a_module_that_says_so_itself_goes_on_with_less(tmp_path: Path) -> None:
    path = saved(gan(), tmp_path / "a.ckpt")
    module = Longer(generator=mlp()[0], discriminator=mlp()[1], loss=NonSaturating(), ema_half_life=50.0)
    trainer = quiet_trainer(2, accelerator="cpu")
    module.configure_optimizers()
    trainer.fit(module, DigitsData(), ckpt_path=path)
    assert trainer.global_step == 2


@pytest.mark.parametrize("name", ["last", "by_epoch"])
def test_weights_alone_are_no_run_to_go_on_with(name: str, tmp_path: Path) -> None:
    only = ModelCheckpoint(tmp_path, "by_epoch", save_weights_only=True, save_last=True)
    module = gan()
    quiet_trainer(-1, max_epochs=1, callbacks=[only], enable_checkpointing=True).fit(module, DigitsData())
    with pytest.raises(UsageError) as refused:
        quiet_trainer(50).fit(gan(), DigitsData(), ckpt_path=tmp_path / f"{name}.ckpt")
    assert str(refused.value) == (
        "--ckpt_path: expected a checkpoint to resume from, got one with weights only (save_weights_only); name "
        "another, or start a run with these weights: load_from_checkpoint, then fit without ckpt_path"
    )
    begun = ConditionalGAN.load_from_checkpoint(tmp_path / f"{name}.ckpt")  # the remedy
    quiet_trainer(1).fit(begun, DigitsData())


class NewerSGD(SGD):
    """An optimizer with an argument that older releases do not know."""

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), sign: bool = False
    ) -> None:
        super().__init__(params, lr=lr)


@pytest.mark.parametrize(
    ("value", "init_args"),
    [
        (partial(NewerSGD, lr=0.5, betas=[0.9, 0.99], sign=False), {"lr": 0.5}),
        (partial(NewerSGD, lr=1e-3, sign=True), {"sign": True}),
        (partial(NewerSGD, betas=(0.0, 0.99)), {"betas": [0.0, 0.99]}),
        (partial(NewerSGD, sign=0), {"sign": 0}),
        (partial(PolynomialLR, total_iters=7, power=1.0, last_epoch=-1), {"total_iters": 7}),
        (partial(PolynomialLR, total_iters=5), {}),
        (partial(LinearLR, total_iters=9, start_factor=0.5), {"total_iters": 9, "start_factor": 0.5}),
        (partial(Adam, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=None, foreach=True), {"foreach": True}),
    ],
)
def test_only_what_differs_from_the_defaults_is_described(value: Any, init_args: dict[str, Any]) -> None:
    assert to_config(value)["init_args"] == init_args


def test_a_checkpoint_of_the_command_line_loads_where_optimizers_take_less(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = ("--model.discriminator_scheduler.total_iters", "3000")
    folder = run("--trainer.max_steps", "1", "--model.generator_optimizer.eps", "1e-7", *length)
    path = folder / "checkpoints" / "last.ckpt"
    described = torch.load(path, weights_only=True)["hyper_parameters"]
    assert described["generator_optimizer"]["init_args"] == {"betas": [0.5, 0.99], "eps": 1e-7, "fused": True}
    assert described["generator_scheduler"] == {"class_path": "lightning_cgan.LinearDecay", "init_args": {}}
    assert described["discriminator_scheduler"]["init_args"] == {"total_iters": 3000}

    class OlderAdam(Adam):
        """Without `weight_decay` and all that came later."""

        def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, *, fused: bool | None = None) -> None:  # fmt: skip
            super().__init__(params, lr=lr, betas=betas, eps=eps, fused=fused)

    OlderAdam.__name__ = OlderAdam.__qualname__ = "Adam"
    OlderAdam.__module__ = "torch.optim.adam"
    for module in (torch.optim, sys.modules["torch.optim.adam"]):
        monkeypatch.setattr(module, "Adam", OlderAdam)
    again = ConditionalGAN.load_from_checkpoint(path)
    configured: Any = again.configure_optimizers()
    optimizer = configured[0]["optimizer"]
    assert type(optimizer) is OlderAdam
    assert (optimizer.defaults["eps"], tuple(optimizer.defaults["betas"])) == (1e-7, (0.5, 0.99))
