"""Checks of the parsed options of a run that jsonargparse does not make."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_cgan.cli.hints import plain
from lightning_cgan.cli.options import signature_of
from lightning_cgan.core.compat import actions_of, type_of
from lightning_cgan.core.errors import UsageError, check_positive

# The options of networks that the data determine
LINKED = [
    f"model.{network}.init_args.{attribute}"
    for network in ("generator", "discriminator")
    for attribute in ("num_classes", "image_channels", "image_size")
]
_MOST_THREADS = 1024  # PyTorch crashes with many more


def check_options(parser: LightningArgumentParser, config: Namespace, groups: Iterable[str]) -> None:
    """Refuses values that jsonargparse accepts, but the classes of a run do not.

    The `groups` are options that consist of further options.
    """
    for group in groups:
        given = config.get(group)
        if not isinstance(given, Namespace) and group != "progress_bar":  # it has no options
            got = "null" if given is None else repr(given)
            raise UsageError(f"--{group}: expected options, got {got}; omit it for their defaults")
    check_positive("--threads", config.threads)
    if (config.threads or 1) > _MOST_THREADS:
        raise UsageError(f"--threads: expected at most {_MOST_THREADS}, got {config.threads}; give a smaller number")
    check_positive("--trainer.check_val_every_n_epoch", config.trainer.check_val_every_n_epoch)
    _refuse_nulls(parser, config)
    # Lightning's options for a single optimizer, their neutral values, and the suffixes of our options
    options = (("gradient_clip_val", 0, "clip_norm"), ("accumulate_grad_batches", 1, "accumulation"))
    for option, neutral, ours in options:
        if config.trainer[option] not in (None, neutral):
            raise UsageError(
                f"--trainer.{option}: expected to be omitted, got {config.trainer[option]}; set it for each network, "
                f"with --model.generator_{ours} and --model.discriminator_{ours}"
            )
    for target in LINKED:
        if (given := config.get(target)) is not None:
            raise UsageError(
                f"--{target.replace('.init_args', '')}: expected to be omitted, got {given}; it is taken from the data "
                "(--data.image_size and --data.classes change it)"
            )


def _refuse_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuses null for options that need a value."""
    for action in actions_of(parser):
        hint, name = type_of(action), action.dest
        if hint is not None and name in config:
            if config[name] is None and action.default is not None:
                _refuse_null(name, hint)
            _refuse_nulls_of_classes(name, config[name])


def _refuse_nulls_of_classes(name: str, value: Any) -> None:
    for index, part in enumerate(value) if isinstance(value, list) else ():
        _refuse_nulls_of_classes(f"{name}.{index}", part)
    if isinstance(value, Namespace) and "class_path" in value and value.get("init_args"):
        parameters = signature_of(value.class_path)
        for key, given in value.init_args.items():
            # Parameters without a default are linked to the data, and not known yet.
            if given is None and key in parameters and parameters[key].default not in (None, inspect.Parameter.empty):
                _refuse_null(f"{name}.{key}", parameters[key].annotation)
            _refuse_nulls_of_classes(f"{name}.{key}", given)


def _refuse_null(name: str, hint: Any) -> None:
    text = plain(str(hint))
    if hint is not inspect.Parameter.empty and not any(part in text for part in ("null", "Optional", "Any")):
        raise UsageError(f"--{name}: expected {text}, got null; omit it for its default")
