"""What a module keeps of a fit: for the next one, for a checkpoint, and from processes of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from quiet import quiet_trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_cgan import ConditionalGAN, MLPDiscriminator, MLPGenerator, NonSaturating

IMAGES = torch.linspace(-1, 1, 48 * 64).reshape(48, 1, 8, 8)


def gan(**options: Any) -> ConditionalGAN:
    networks = MLPGenerator(3, 1, 8, latent_dim=4, hidden=(8,)), MLPDiscriminator(3, 1, 8, hidden=(8,))
    return ConditionalGAN(*networks, NonSaturating(), **options)


def fit(module: ConditionalGAN, steps: int = 3, **options: Any) -> list[Tensor]:
    """The latents of a fit."""
    seen: list[Tensor] = []
    hook = module.generator.register_forward_hook(lambda network, inputs, output: seen.append(inputs[0].clone()))
    loader: DataLoader[Any] = DataLoader(TensorDataset(IMAGES, torch.arange(48) % 3), batch_size=8)
    trainer = quiet_trainer(steps)
    trainer.fit(module, loader, **options)
    trainer.save_checkpoint("last.ckpt")
    hook.remove()
    return seen


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
    assert again.images_seen == (6 + 6) * 8


def test_a_module_that_was_never_in_a_run_can_be_saved_and_loaded() -> None:
    module, trainer = gan(ema_half_life=10.0), quiet_trainer(1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint("new.ckpt")
    loaded = ConditionalGAN.load_from_checkpoint("new.ckpt")
    assert loaded.seed is None
    assert loaded.images_seen == 0
    for value, other in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    torch.manual_seed(4)
    fit(loaded)
    assert loaded.seed == 4


SPAWNED = """
import sys
import torch
from lightning import Trainer
from test_further_fits import IMAGES, fit, gan
from torch.utils.data import DataLoader, TensorDataset
from lightning_cgan import ConditionalGAN

if __name__ == "__main__":
    torch.manual_seed(6)
    module = gan(ema_half_life=50.0)
    loader = DataLoader(TensorDataset(IMAGES, torch.arange(48) % 3), batch_size=4)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=5, devices=2, strategy=sys.argv[1], log_every_n_steps=3, **quiet)
    names = list(module.state_dict())
    trainer.fit(module, loader)
    assert list(module.state_dict()) == names
    assert (module.seed, module.images_seen) == (6, 40), (module.seed, module.images_seen)
    assert {role: int(count) for role, count in module.skipped_steps.items()} == {"generator": 0, "discriminator": 0}
    assert module.running_means.counts["generator_loss"] == 2  # since alternation 3
    trainer.save_checkpoint("home.ckpt")
    assert not any("lightning_cgan" in name for name in torch.load("home.ckpt", weights_only=True)["state_dict"])
    loaded = ConditionalGAN.load_from_checkpoint("home.ckpt")
    assert (loaded.seed, loaded.images_seen) == (6, 40)
    for value, other in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    torch.manual_seed(6)
    assert fit(module) and module.seed != 6
    print("came home")
"""


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_bring_back_what_belongs_to_the_weights(strategy: str, tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{SPAWNED}")
    done = subprocess.run([sys.executable, str(script), strategy], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "came home" in done.stdout
