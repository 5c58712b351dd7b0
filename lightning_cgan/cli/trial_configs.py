"""The configs of the trials of a search, parsed before the first of them runs."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from typing import Any

from lightning_cgan.cli.console import one_line_errors
from lightning_cgan.cli.main import CLI
from lightning_cgan.core.errors import UsageError
from lightning_cgan.runs.folder import name_of
from lightning_cgan.search.space import Varied

# Options without which a run has no scores, and the values that a search cannot have
_NEEDED: dict[str, tuple[Any, ...]] = {
    "scores.images": (0,),
    "trainer.logger": (False,),
    "trainer.enable_checkpointing": (False,),
    "trainer.fast_dev_run": (True,),
    "trainer.barebones": (True,),
    "trainer.limit_val_batches": (0, 0.0),
}
_OF_TRIAL = ("config", "name", "runs_dir", "ckpt_path")


class _Parsed(CLI):
    """A `fit` that is parsed and built, but does not run."""

    typed: dict[str, Any]  # the config as given, before the machine's defaults are filled in

    def parse_arguments(self, parser: Any, args: Any) -> None:
        super().parse_arguments(parser, args)
        self.typed = json.loads(self._parser("fit").dump(self.config["fit"], skip_none=False, format="json"))

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing."""

    def build(self, args: list[str]) -> None:
        """Parses other arguments with the same parser, and builds the networks and the data module."""
        self.parse_arguments(self.parser, args)
        self.before_instantiate_classes()
        self.parser.instantiate_classes(self.config)


class TrialConfigs:
    """The config that all trials share.

    Args:
        fit_options: The options of `fit` that the user gave.

    Attributes:
        name: The name of the config.
        base: The config without what each trial has of its own, as plain values.
        outside: What a config has in place of the name and the folder of a trial.
    """

    def __init__(self, fit_options: Sequence[str]) -> None:
        self.fit_options = list(fit_options)
        with _quiet():
            self._cli = _Parsed(["fit", *self.fit_options])
        typed = deepcopy(self._cli.typed)
        self.name = name_of(map(str, self._cli.config["fit"].config or ()))
        self.outside = {"name": typed["name"] or self.name, "runs_dir": typed["runs_dir"]}
        self.base = {key: value for key, value in typed.items() if key not in _OF_TRIAL}
        self._check_scores(typed)

    def _check_scores(self, typed: dict[str, Any]) -> None:
        for option, refused in _NEEDED.items():
            group, _, name = option.partition(".")
            value = typed[group][name]
            if any(value is one or (value == one and type(value) is type(one)) for one in refused):
                got = json.dumps(value)
                raise UsageError(f"--{option}: expected a run that has scores and keeps them, got {got}; omit it")

    def check(self, space: Sequence[Varied], file: str) -> None:
        """Parses the config with each value of each option, of a range with both ends.

        Raises:
            UsageError: There is no such option, or it does not accept a value.
        """
        for varied in space:
            for value in varied.extremes:
                with _quiet(), _as_error_of(file):
                    self._cli.build(["fit", *self.fit_options, f"--{varied.name}={value}"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what the building of each of many configs would print again."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            # It is another command that stands in `sys.argv`.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _as_error_of(file: str) -> Iterator[None]:
    """Raises usage errors, also those that the parser prints itself, as errors of the space."""
    said = StringIO()
    try:
        with redirect_stderr(said), one_line_errors():
            yield
    except SystemExit as ended:
        (*_, message) = said.getvalue().strip().splitlines()
        raise UsageError(f"--space: {file}: {message.removeprefix('error: ')}") from ended
