"""`ConditionalGAN` is put together of objects that it holds: no hook of Lightning's is cut over several classes."""

from __future__ import annotations

import ast
import inspect
import textwrap

from lightning.pytorch import LightningModule
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks

from helpers.paths import PACKAGE
from lightning_cgan import ConditionalGAN
from lightning_cgan.core.serialization import ConfigMixin
from lightning_cgan.networks.sampler import Sampler


def hooks() -> set[str]:
    """What Lightning calls of a module, by name."""
    steps = {"training_step", "validation_step", "test_step", "predict_step", "manual_backward", "backward"}
    configures = {
        name for name in vars(LightningModule) if name.startswith(("configure_", "optimizer_", "lr_scheduler"))
    }
    of_mixins = {name for kind in (ModelHooks, DataHooks, CheckpointHooks) for name in vars(kind)}
    return {name for name in steps | configures | of_mixins if not name.startswith("_")}


def test_the_classes_that_the_module_is_made_of() -> None:
    mro = ConditionalGAN.__mro__
    assert mro[:4] == (ConditionalGAN, ConfigMixin, Sampler, LightningModule)
    assert [kind.__module__.partition(".")[0] for kind in mro].count("lightning_cgan") == 3


def test_each_hook_stands_in_one_class() -> None:
    """Also those that a class could mix in later: every class of the package that is no callback or data module."""
    found: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).parts[0] in ("callbacks", "data", "cli", "evaluation"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not any("Callback" in ast.unparse(base) for base in node.bases):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and inner.name in hooks():
                        found.setdefault(inner.name, []).append(node.name)
    assert found["on_train_start"] == ["ConditionalGAN"]
    assert len(found) > 15
    assert {name: classes for name, classes in found.items() if classes != ["ConditionalGAN"]} == {}


def test_the_training_step_is_on_one_screen() -> None:
    """With both updates: 60 lines that a reader sees at once."""
    methods = (ConditionalGAN.run_step, ConditionalGAN.update_discriminator, ConditionalGAN.update_generator)
    sources = [textwrap.dedent(inspect.getsource(method)) for method in methods]
    first = inspect.getsourcelines(methods[0])[1]
    lines, last = inspect.getsourcelines(methods[-1])
    assert last + len(lines) - first <= 60
    assert "self.update_discriminator(" in sources[0]
    assert "self.update_generator(" in sources[0]
