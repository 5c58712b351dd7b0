"""What a module keeps of a fit: for the next one, for a checkpoint, and from processes of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from helpers import spawned_fit
from helpers.commands import Forked
from helpers.processes import with_helpers
from helpers.quiet import quiet_trainer
from helpers.seen_latents import fit, gan
from lightning_cgan import ConditionalGAN


def load() -> ConditionalGAN:
    return ConditionalGAN.load_from_checkpoint("last.ckpt")


def are_same(one: list[Tensor], other: list[Tensor]) -> bool:
    assert len(one) == len(other)
    return all(map(torch.equal, one, other))


def met_again(one: list[Tensor], other: list[Tensor]) -> int:
    return len({tuple(row.tolist()) for part in one for row in part} & {tuple(r.tolist()) for p in other for r in p})


def test_seeds_decide_what_a_loaded_module_trains_with() -> None:
    torch.manual_seed(7)
    fit(gan())
    modules = [load() for _ in range(3)]
    runs = []
    for seed, module in zip((1, 1, 2), modules, strict=True):
        torch.manual_seed(seed)
        runs.append(fit(module))
    assert are_same(runs[0], runs[1])
    assert not are_same(runs[0], runs[2])


@pytest.mark.parametrize("reseeds", [True, False])
@pytest.mark.parametrize("loads", [True, False])
def test_a_second_fit_meets_no_latents_again(reseeds: bool, loads: bool) -> None:
    """Nor does one of a new process, which has the same seed where nobody sets one."""
    torch.manual_seed(3)
    module = gan()
    first = fit(module)
    if loads:
        module = load()
    if reseeds:
        torch.manual_seed(3)
    second = fit(module)
    if reseeds:
        torch.manual_seed(3)
    third = fit(module)
    assert met_again(first, second) == met_again(first, third) == met_again(second, third) == 0


def test_a_first_fit_has_the_seed_as_it_is() -> None:
    module = gan()
    torch.manual_seed(5)
    fit(module)
    assert module.seed == 5
    assert load().seed == 5


def test_a_resumed_fit_has_the_seed_of_its_checkpoint() -> None:
    torch.manual_seed(5)
    module = gan()
    whole = fit(module, steps=6)
    torch.manual_seed(5)
    fit(gan(), steps=3)
    torch.manual_seed(9)
    resumed = gan()
    rest = fit(resumed, steps=6, ckpt_path="last.ckpt")
    assert resumed.seed == 5
    assert are_same(rest, whole[3:])
    torch.manual_seed(9)
    second = load()  # a second fit can be resumed as well
    whole = fit(second, steps=4)
    seed = second.seed
    torch.manual_seed(10)
    again = gan()
    assert len(fit(again, steps=6, ckpt_path="last.ckpt")) == 2
    assert again.seed == seed
    assert again.ema.images_seen == (6 + 6) * 8


def test_a_module_that_was_never_in_a_run_can_be_saved_and_loaded() -> None:
    module, trainer = gan(ema_half_life=10.0), quiet_trainer(1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint("new.ckpt")
    loaded = ConditionalGAN.load_from_checkpoint("new.ckpt")
    assert loaded.seed is None
    assert loaded.ema.images_seen == 0
    for value, other in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    torch.manual_seed(4)
    fit(loaded)
    assert loaded.seed == 4


def test_processes_bring_back_what_belongs_to_the_weights() -> None:
    with Forked("ddp_fork", work=spawned_fit.main) as process:
        shown = process.wait()
    assert process.returncode == 0, shown
    assert "came home" in shown


@pytest.mark.ci
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_of_a_program_bring_back_what_belongs_to_the_weights(strategy: str) -> None:
    command = [sys.executable, spawned_fit.__file__, strategy]
    done = subprocess.run(command, env=with_helpers(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "came home" in done.stdout
