"""What docs/from_your_own_loop.md claims, of its own code; test_readme.py runs each of its snippets."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader

from helpers.pages import blocks, run_snippet, write_modules
from helpers.paths import ROOT
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN
from lightning_cgan.cli.main import main

PAGE = ROOT / "docs" / "from_your_own_loop.md"
BY_HAND, TRAIN_BY_HAND, NETWORKS, _, GAN, TRAIN_GAN, RESUME, CALLBACKS = range(8)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_modules(PAGE, tmp_path, monkeypatch)


def difference(one: LightningModule, other: LightningModule) -> float:
    """The largest difference between the weights of two modules."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    assert list(one.state_dict()) == list(other.state_dict())
    return max(float((value - other_value).abs().max()) for (_, value), (_, other_value) in pairs)


def fit_both(steps: int, **options: Any) -> tuple[LightningModule, ConditionalGAN, LightningModule]:
    """Trains both modules with the same weights, batches and latents; returns them, and one that was not trained."""
    from by_hand import HandWrittenGAN, digits
    from digit_gan import build

    loader = DataLoader(digits().dataset, batch_size=64)
    gan = build()
    hand = HandWrittenGAN(copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator))
    before = copy.deepcopy(hand)
    latents: list[Tensor] = []
    hook = gan.generator.register_forward_hook(lambda network, inputs, images: latents.append(inputs[0].clone()))
    optimizers = options.pop("optimizers", None)
    if optimizers is not None:
        hand.configure_optimizers = lambda: optimizers(hand)
        gan.configure_optimizers = lambda: optimizers(gan)
    trainer = quiet_trainer(steps, **_fresh(options))
    trainer.fit(gan, loader)
    hook.remove()
    assert (trainer.global_step, len(latents)) == (steps, steps)
    remaining = iter(latents)
    hand.latents = lambda count: next(remaining)
    trainer = quiet_trainer(2 * steps, **_fresh(options))
    trainer.fit(hand, loader)
    assert next(remaining, None) is None
    return hand, gan, before


def _fresh(options: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in options.items()}


def test_both_modules_make_the_same_updates() -> None:
    hand, gan, before = fit_both(20, precision="64-true")
    assert difference(hand, gan) < 1e-12
    assert difference(hand, before) > 0.01


def test_the_networks_are_those_of_the_loop_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_snippet(PAGE, TRAIN_BY_HAND, monkeypatch)
    from by_hand import HandWrittenGAN
    from digit_gan import build
    from digit_networks import Critic, Painter

    weights = torch.load("by_hand.ckpt", weights_only=True)["state_dict"]
    for module in (HandWrittenGAN(Painter(10, 1, 8), Critic(10, 1, 8)), build()):
        module.load_state_dict(weights)
        latents, labels = torch.randn(5, 32), torch.tensor([0, 3, 3, 9, 7])
        images = module.generator(latents, labels)
        assert torch.equal(images, seen["gan"].generator(latents, labels))
        assert torch.equal(module.discriminator(images, labels), seen["gan"].discriminator(images, labels))


def test_what_goes_wrong_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_snippet(PAGE, TRAIN_BY_HAND, monkeypatch)
    trainer = seen["trainer"]
    assert (trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx + 1) == (100, 50)
    assert [scheduler.get_last_lr() for scheduler in seen["gan"].lr_schedulers()] == [[0.002], [0.002]]
    with pytest.raises(TypeError, match="'generator' and 'discriminator'"):
        type(seen["gan"]).load_from_checkpoint("by_hand.ckpt")


def test_what_the_module_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_snippet(PAGE, TRAIN_GAN, monkeypatch)
    trainer = seen["trainer"]
    assert (trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx + 1) == (100, 100)
    for optimizer in trainer.optimizers:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.002 * 0.99**100)
    loaded = ConditionalGAN.load_from_checkpoint("digits.ckpt")
    assert difference(loaded, trainer.lightning_module) == 0
    assert loaded.sheet([3, 7], count=8).size == (8 * 58 + 2, 2 * 58 + 2)
    average, weights = loaded.generator_ema, loaded.generator
    assert average is not None
    assert (average.layers[0].weight - weights.layers[0].weight).abs().max() > 1e-4
    assert torch.equal(loaded.generate([3], seed=0), average(loaded.sample_latents(1, seed=0), torch.tensor([3])))


def test_half_precision_changes_the_clipping_by_hand_alone() -> None:
    def sgd(module: Any) -> list[SGD]:
        return [SGD(network.parameters(), lr=0.1) for network in (module.generator, module.discriminator)]

    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    moved = {}
    for precision, plugins in {"32": [], "16": [MixedPrecision("16-mixed", "cpu", scaler)]}.items():
        torch.manual_seed(0)
        hand, gan, before = fit_both(5, optimizers=sgd, plugins=plugins)
        moved[precision] = difference(hand, before), difference(gan, before)
    assert moved["32"][0] == pytest.approx(moved["32"][1], rel=1e-4)
    assert moved["16"][1] == pytest.approx(moved["32"][1], rel=0.01)
    assert moved["16"][0] < moved["32"][0] / 100


@pytest.mark.ci
def test_two_processes_stop_the_loop_by_hand() -> None:
    """Those of the module are in test_distributed.py."""
    from by_hand import Critic, HandWrittenGAN, Painter, digits

    trainer = quiet_trainer(4, devices=2, strategy="ddp_spawn")
    with pytest.raises(Exception, match="parameters that were not used in producing the loss"):
        trainer.fit(HandWrittenGAN(Painter(), Critic()), digits())


def test_a_stop_changes_the_loop_by_hand() -> None:
    from by_hand import Critic, HandWrittenGAN, Painter, digits

    made = []
    for stops in ((20,), (10, 20)):
        torch.manual_seed(1)
        for steps in stops:
            gan = HandWrittenGAN(Painter(), Critic())
            trainer = quiet_trainer(steps)
            trainer.fit(gan, digits(), ckpt_path="half.ckpt" if steps > stops[0] else None)
            trainer.save_checkpoint("half.ckpt")
            assert trainer.global_step == steps
        made.append(gan)
    assert difference(*made) > 1e-3


def test_a_stop_does_not_change_a_run_with_the_data_module(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_snippet(PAGE, RESUME, monkeypatch)
    torch.manual_seed(1)
    whole = seen["build"]()
    trainer = quiet_trainer(60)
    torch.manual_seed(1)
    trainer.fit(whole, seen["data"])
    # The first module of the snippet was built with the seed, too.
    assert difference(whole, seen["gan"]) == 0
    seen["data"].setup("test")
    held_out = {len(seen["data"].in_order(split).labels) for split in ("validation", "test")}
    assert min(held_out) > 100


@pytest.mark.ci
def test_callbacks_leave_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run_snippet(PAGE, CALLBACKS, monkeypatch)["trainer"]
    folder = Path(trainer.log_dir)
    made = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {"samples.gif", "curves.png", "index.html", "metrics.csv", "samples/00000100.png"}
    assert expected | {"checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= made
    assert "val_judge_fid" in trainer.callback_metrics


@pytest.mark.ci
def test_the_config_and_the_commands() -> None:
    commands = [shlex.split(line)[3:] for line in "".join(blocks(PAGE, "bash")).splitlines()]
    assert [words[0] for words in commands] == ["fit", "fit", "generate"]
    short = ["--trainer.max_steps", "20", "--trainer.accelerator", "cpu"]
    for number, words in enumerate(commands[:2]):
        main([*words, *short, "--name", str(number)])
    (last,) = Path("runs/1").glob("*/checkpoints/last.ckpt")
    main([str(last) if word == "runs/…/last.ckpt" else word for word in commands[2]])
    assert Image.open("sheet.png").size == (8 * 58 + 2, 2 * 58 + 2)
    saved = torch.load(last, weights_only=True)["hyper_parameters"]
    assert saved["generator"]["class_path"] == "digit_networks.Painter"
    assert saved["generator"]["init_args"]["width"] == 512
    assert saved["loss"]["class_path"] == "lightning_cgan.Hinge"
    assert saved["generator_clip_norm"] == 1.0


def test_the_page_is_short() -> None:
    prose = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    assert len(prose.split()) < 900
