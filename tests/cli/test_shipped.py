"""Every shipped config runs, and says nothing that the classes say already."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import lightning_cgan
from helpers.marks import ci_but_for
from helpers.paths import CONFIGS
from helpers.run_files import FILES
from lightning_cgan.cli.main import main

SHIPPED = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("config", ci_but_for((of.stem for of in SHIPPED), "digits", "images", "mnist"))
def test_config_runs(run: Callable[..., Path], config: str) -> None:
    folder = run(
        *("--data", "DigitsData", "--data.batch_size", "16", "--trainer.max_steps", "3"),
        *("--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "1", "--curves.every_n_seconds", "1"),
        config=config,
    )
    assert folder.parent.name == config
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    assert {f.name for f in folder.iterdir()} == FILES
    assert Image.open(folder / "curves.png").size == (800, 1200)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        yield from nodes(child)


RATES = {  # of the generator and of the discriminator
    "digits": (0.001, 0.001),
    "fashion_mnist": (0.004, 0.002),
    "images": (0.002, 0.002),
    "mnist": (0.004, 0.002),
    "mnist_dcgan": (0.0001, 0.0001),
    "mnist_mlp": (0.001, 0.001),
    "mnist_mlp_batchnorm": (0.0001, 0.0001),
    "mnist_quick": (0.002, 0.002),
    "mnist_r3gan": (0.0005, 0.0005),
    "mnist_resnet_4_9": (0.0002, 0.0002),
}
CONSTANT = {"mnist_dcgan", "mnist_mlp", "mnist_mlp_batchnorm", "mnist_resnet_4_9"}
WITH_OVERLAYS = [*((of.stem, None) for of in SHIPPED), ("mnist", "longer"), ("fashion_mnist", "longer")]


@pytest.mark.parametrize("configs", ci_but_for(WITH_OVERLAYS, ("mnist", "longer"), ("mnist_dcgan", None)))
def test_max_steps_alone_is_a_shorter_run_of_the_same_shape(
    configs: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear decay by hand: a whole rate in step 1, 501 thousandths of it in step 500, and the last one in step 1,000."""
    seen: list[list[float]] = []

    def no_training(module: Any, *_: Any) -> None:
        """A step that moves nothing, and takes no time."""
        seen.append([optimizer.param_groups[0]["lr"] for optimizer in module.trainer.optimizers])
        module.optimization.optimizer_of("generator").step()
        module.optimization.finish_step()

    monkeypatch.setattr(lightning_cgan.ConditionalGAN, "training_step", no_training)
    monkeypatch.setattr(lightning_cgan.SampleGrid, "on_train_batch_end", lambda *_: None)
    config, overlay = configs
    laid_over = ["--config", f"with/{overlay}"] if overlay else []
    short = ["--trainer.max_steps", "1000", "--data", "DigitsData", "--data.batch_size", "16"]
    bare = [f"--trainer.{what}=false" for what in ("logger", "enable_checkpointing")]
    main(["fit", "--config", config, *laid_over, *short, *bare, "--trainer.limit_val_batches=0"])
    assert len(seen) == 1000
    for network, rate in enumerate(RATES[config]):
        rates = [pair[network] for pair in seen]
        if config in CONSTANT:
            assert set(rates) == {rate}
            continue
        assert [rates[0], rates[499], rates[999]] == pytest.approx([rate, 0.501 * rate, 0.001 * rate], rel=1e-9)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
        reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1000)
        for got in rates:
            assert got == optimizer.param_groups[0]["lr"]  # to the last bit
            optimizer.step()
            reference.step()


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_the_decay_is_named_on_the_command_line(built: Callable[..., dict[str, Any]], network: str) -> None:
    options = ("--data", "DigitsData", "--data.image_size", "16", f"--model.{network}_scheduler", "LinearDecay")
    module = built("mnist_resnet_4_9.yaml", *options)["model"]
    described = {"class_path": "lightning_cgan.LinearDecay", "init_args": {}}
    assert module.hparams[f"{network}_scheduler"] == described


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{}", "LinearDecy"], "{}: expected the name of a class, got LinearDecy; did you mean LinearDecay?"),
        (["{}.total_iters", "soon"], "{}.total_iters: expected int or null, got soon"),
        (["{}.total_iters", "0"], "{}.total_iters: expected 1 or more, got 0; give a positive number"),
        (["{}.power", "2"], "{}.power: LinearDecay has no such option; it takes total_iters, last_epoch"),
        (
            ["--trainer.max_steps", "-1", "--trainer.max_epochs", "-1"],
            "{}: expected a run with an end for LinearDecay, got --trainer.max_steps -1 and --trainer.max_epochs -1; "
            "give --trainer.max_steps, or total_iters",
        ),
    ],
)
def test_what_is_wrong_with_the_decay_is_told(fails: Callable[..., str], options: list[str], message: str) -> None:
    scheduler = "--model.generator_scheduler"
    found = fails("fit", "--config", "digits", *(option.format(scheduler) for option in options))
    assert found.startswith(f"error: {message.format(scheduler)}")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["mnist_best", "fashion_mnist_best"])
def test_a_name_of_former_days_leads_to_todays(fails: Callable[..., str], name: str) -> None:
    today = name.removesuffix("_best")
    for typed in (name, f"configs/{name}.yaml"):
        message = fails("fit", "--config", typed)
        assert message.startswith("error: --config: no such file: ")
        assert message.endswith(f"{typed}; it is now --config {today} --config with/longer")


def test_configs_of_our_own_systems_state_no_defaults() -> None:
    """The four historical ones may: there a value that happens to be a default is part of the description."""
    for config in SHIPPED:
        if config.stem not in ("mnist", "mnist_quick", "fashion_mnist", "digits", "images", "mnist_r3gan"):
            continue
        for node in nodes(yaml.safe_load(config.read_text())):
            cls = getattr(lightning_cgan, str(node.get("class_path")), None)
            if cls is not None:
                parameters = inspect.signature(cls.__init__).parameters  # not of __new__, as Python 3.11.2 looks
                for name, value in node.get("init_args", {}).items():
                    assert parameters[name].default != value, f"{config.name}: {name} is the default"
