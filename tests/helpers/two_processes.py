"""Runs that `test_distributed.py` makes with one and with two processes; torchrun starts this file, for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader

import lightning_cgan as cgan
from helpers.quiet import quiet_trainer
from lightning_cgan.training.compilation import has_compiler_for_cpu

LOSSES = ("NonSaturating", "Saturating", "LeastSquares", "Hinge", "Wasserstein", "RelativisticPairing")


def networks(**options: Any) -> dict[str, Any]:
    """A pair without batch statistics."""
    generator = cgan.MLPGenerator(10, 1, 8, latent_dim=4, hidden=(16,))
    return {"generator": generator, "discriminator": cgan.DCGANDiscriminator(10, 1, 8, channels=(4, 8), **options)}


def normalized() -> dict[str, Any]:
    generator = cgan.DCGANGenerator(10, 1, 8, latent_dim=4, channels=(8, 4), conditional_batch_norm=True)
    return {**networks(), "generator": generator}


def _runs() -> dict[str, Callable[[], dict[str, Any]]]:
    """By name, the options of the module."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {}
    for loss in LOSSES:
        make_loss = getattr(cgan, loss)
        for accumulation in (1, 4):
            accumulated = {"generator_accumulation": accumulation, "discriminator_accumulation": accumulation}
            name = loss if accumulation == 1 else f"{loss}-accumulated"
            runs[name] = lambda make=make_loss, more=accumulated: {
                "loss": make(),
                "penalties": [cgan.R1(0.5, interval=2), cgan.WassersteinGradientPenalty(1.0)],
                **more,
            }
    plain = runs["NonSaturating"]
    for strategy in ("auto", "ddp_find_unused_parameters_true", "ddp_static_graph"):
        runs[strategy] = plain
    runs["steps"] = lambda: {**plain(), "discriminator_steps": 3, "share_fakes": False, "fake_labels": "uniform"}
    runs["empirical"] = lambda: {**plain(), "fake_labels": "empirical", "discriminator_clip_norm": 0.1}
    runs["augmented"] = lambda: {
        **plain(),
        "augmentations": [cgan.Translation(), cgan.Cutout(), cgan.Color()],
        "ema_half_life": 100.0,
    }
    runs["classifier"] = lambda: {
        **plain(),
        **networks(conditioning="classifier"),
        "auxiliary_classifier": cgan.AuxiliaryClassifier(0.5),
    }
    runs["spectral_norm"] = lambda: {**plain(), **networks(spectral_norm=True)}
    runs["sync_batchnorm"] = lambda: {**plain(), **normalized(), "ema_half_life": 100.0}
    if has_compiler_for_cpu():
        runs["compiled"] = lambda: {**plain(), "compile": "networks"}
    runs["float16"] = lambda: {"loss": cgan.NonSaturating(), "penalties": [OverflowInLastProcess()]}
    return runs


class OverflowInLastProcess(cgan.GradientPenalty):
    """Nothing, but in the second step one process has a gradient that no scale survives."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(self, discriminator: Any, *_: Any) -> torch.Tensor:
        self.calls += 1
        is_last = not dist.is_initialized() or dist.get_rank() + 1 == dist.get_world_size()
        weight = next(discriminator.parameters())
        return (3e38 if self.calls == 2 and is_last else 0.0) * (weight.sum() - weight.sum().detach())


RUNS = _runs()
FEW = ("NonSaturating", "sync_batchnorm", "steps")


def build(options: dict[str, Any]) -> cgan.ConditionalGAN:
    optimizers = {f"{role}_optimizer": partial(SGD, lr=0.1) for role in ("generator", "discriminator")}
    return cgan.ConditionalGAN(**{**networks(), **optimizers, **options})


def fit(module: cgan.ConditionalGAN, devices: int, strategy: Any = "ddp", steps: int = 4, **options: Any) -> Trainer:
    trainer = quiet_trainer(
        steps,
        devices=devices,
        strategy=strategy if devices > 1 or options.get("num_nodes", 1) > 1 else "auto",
        log_every_n_steps=0,
        **options,
    )
    trainer.fit(module, cgan.DigitsData(batch_size=16))
    return trainer


def train(name: str, devices: int, **options: Any) -> dict[str, Any]:
    """Four steps of one run: the weights before and after, and the means of the scalars."""
    torch.manual_seed(0)
    module = build(RUNS[name]())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    strategies = {"auto": "auto", "ddp_static_graph": DDPStrategy(static_graph=True)}
    strategy = strategies.get(name, name if name.startswith("ddp_") else "ddp")
    means: dict[str, float] = {}
    module.on_train_end = lambda: means.update(  # type: ignore[method-assign]
        (key, float(value.mean())) for key, value in module.scalars.state_dict()["sums"].items()
    )
    if name == "float16":
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    fit(module, devices, strategy, sync_batchnorm=name == "sync_batchnorm", **options)
    skipped = {role: int(count) for role, count in module.optimization.skipped_steps.items()}
    return {"before": before, "weights": module.state_dict(), "means": means, "skipped": skipped}


def processes_agree(devices: int) -> dict[str, Any]:
    """The buffers of networks whose statistics differ from process to process."""
    results = {}
    for name, options in {"batch_norm": normalized(), "spectral_norm": networks(spectral_norm=True)}.items():
        torch.manual_seed(0)
        module = build({"loss": cgan.Hinge(), **options, "ema_half_life": 100.0})
        fit(module, devices)
        results[name] = module.state_dict()
    return results


def validate(devices: int) -> dict[str, float]:
    """Losses on 119 held-out images in batches of 118: the last batch has a share for the first process alone."""
    torch.manual_seed(0)
    module = build({"loss": cgan.Hinge(), "fake_labels": "empirical"})
    trainer = fit(module, devices, steps=1)
    data = cgan.DigitsData(batch_size=118, validation_fraction=119 / 1437)
    (losses,) = trainer.validate(module, datamodule=data, verbose=False)
    return dict(losses)


def scored(devices: int) -> dict[str, float]:
    """The scores of generated images in a judge's eyes."""
    torch.manual_seed(0)
    module = build({"loss": cgan.Hinge()})
    trainer = fit(module, devices, steps=1, callbacks=[cgan.Scores(images=100)])
    (logged,) = trainer.validate(module, datamodule=cgan.DigitsData(batch_size=16), verbose=False)
    return {name: float(logged[name]) for name in ("val_gan_test", "val_judge_fid", "val_diversity")}


def what_is_seen(devices: int) -> dict[str, torch.Tensor]:
    """The real images and labels, latents and labels of the fakes, of two steps."""
    torch.manual_seed(0)
    seen: dict[str, list[torch.Tensor]] = {"images": [], "labels": [], "latents": [], "fake_labels": []}
    module = build({"loss": cgan.Hinge(), "fake_labels": "uniform"})
    sample_update = module.input_sampler.sample_update

    def watch(*arguments: Any) -> Any:
        inputs = sample_update(*arguments)
        for kind, rows in zip(seen, (inputs.real, inputs.labels, inputs.latents, inputs.fake_labels), strict=True):
            seen[kind].append(rows)
        return inputs

    module.input_sampler.sample_update = watch  # type: ignore[method-assign]
    fit(module, devices, steps=2)
    return {kind: torch.cat(rows) for kind, rows in seen.items()}


Batch = tuple[Tensor, Tensor]


def own_batches(sizes: list[int], rank: int, label: int | None = None) -> list[Batch]:
    """What a loader of one's own gives a process; its last label, if another is given, is that."""
    chance = torch.Generator().manual_seed(rank)
    images = torch.rand(sum(sizes), 1, 8, 8, generator=chance) * 2 - 1
    labels = torch.randint(10, (sum(sizes),), generator=chance)
    if label is not None:
        labels[-1] = label
    return list(zip(images.split(sizes), labels.split(sizes), strict=True))


def interleaved(first: list[Batch], second: list[Batch]) -> list[Batch]:
    """The batches of one process that two share out: each has every second row, and no more than the other."""
    batches = []
    for pairs in zip(first, second, strict=True):
        fewest = min(len(labels) for _, labels in pairs)
        columns = zip(*((images[:fewest], labels[:fewest]) for images, labels in pairs), strict=True)
        batches.append(tuple(torch.stack(column, 1).flatten(0, 1) for column in columns))
    return batches  # type: ignore[return-value]


UNEQUAL = {"short": ([6, 6, 5], [6, 6, 4]), "empty": ([6, 2, 4], [6, 0, 6])}


def unequal(devices: int) -> dict[str, Any]:
    """The weights after an epoch of a loader that gives the two processes unequal shares of a batch."""
    results = {}
    for name, sizes in UNEQUAL.items():
        batches = [own_batches(*arguments) for arguments in zip(sizes, (0, 1), strict=True)]
        own = batches[int(os.environ["RANK"])] if devices > 1 else interleaved(*batches)
        for fake_labels in ("empirical", "real"):
            torch.manual_seed(0)
            module = build({"loss": cgan.Hinge(), "fake_labels": fake_labels, "discriminator_steps": 2})
            trainer = fit_own(module, own, devices)
            results[f"{name}, {fake_labels}"] = {"weights": module.state_dict(), "steps": trainer.global_step}
    return results


def fit_own(module: cgan.ConditionalGAN, batches: list[Batch], devices: int) -> Trainer:
    strategy = "ddp" if devices > 1 else "auto"
    options: dict[str, Any] = {"devices": devices, "strategy": strategy, "use_distributed_sampler": False}
    trainer = quiet_trainer(-1, max_epochs=1, **options)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def refused() -> str:
    """What is said where the second process alone is given a label that is no class."""
    rank = dist.get_rank()
    try:
        fit_own(build({"loss": cgan.Hinge()}), own_batches([4, 4], rank, label=13 if rank else None), devices=2)
    except cgan.UsageError as error:
        return str(error)
    return "trained"


def main(folder: str, what: str = "all") -> None:
    torch.set_num_threads(1)
    if what == "nodes":
        results: dict[str, Any] = train("NonSaturating", devices=1, num_nodes=2)["weights"]
    elif what == "few":
        results = {name: train(name, devices=2) for name in FEW}
        results["seen"] = what_is_seen(devices=2)
    else:
        results = {name: train(name, devices=2) for name in RUNS}
        results["processes_agree"] = processes_agree(devices=2)
        results["validated"] = validate(devices=2)
        results["scored"] = scored(devices=2)
        results["seen"] = what_is_seen(devices=2)
        results["unequal"] = unequal(devices=2)
        results["refused"] = refused()
    assert dist.get_world_size() == 2
    torch.save(results, Path(folder) / f"{dist.get_rank()}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
