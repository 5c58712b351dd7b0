"""The parser of all commands, with one-line errors that suggest the most similar name; and the commands without a run.

It does not import Lightning: `generate` starts in half the time without it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from lightning_cgan.cli.config_files import expand_homes, read_as_utf8
from lightning_cgan.cli.console import command
from lightning_cgan.cli.label_options import MODE, with_classes
from lightning_cgan.cli.messages import one_line
from lightning_cgan.cli.options import options_of, with_switches
from lightning_cgan.cli.shipped import check_keys, given_configs, with_shipped
from lightning_cgan.core.compat import actions_of

# The commands in addition to Lightning's: functions whose arguments are the options, imported when called
FUNCTIONS = {
    "generate": "lightning_cgan.cli.generate",
    "invert": "lightning_cgan.cli.invert",
    "export": "lightning_cgan.cli.export",
    "demo": "lightning_cgan.cli.demo",
    "search": "lightning_cgan.cli.search",
}
# The parameter that gets the options which a function does not know itself
OTHER_OPTIONS = "fit_options"


class OneLineParser(ArgumentParser):
    """A parser of command lines and config files, with one-line errors on stderr and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without abbreviations, a misspelt option is an error.
        super().__init__(*args, **{"allow_abbrev": False, "parser_mode": MODE, **kwargs})
        self.given: Sequence[str] = ()  # the command line, for error messages

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Parses like its base class, and accepts names of shipped configs and switches without a value.

        `--config mnist` is the shipped config if there is no file of that name. Switches are `--overwrite` or
        `--no_ema`. A config that is not text is a usage error.
        """
        given = sys.argv[1:] if args is None else args
        if isinstance(given, list):
            self.given = given
            for file in given_configs(given):
                check_keys(file)
            given = with_classes(with_switches(with_shipped(given), self))
        try:
            with read_as_utf8():
                config = super().parse_args(given, *others, **kwargs)
            expand_homes(config)
            return config
        except UnicodeDecodeError as error:
            self.error(f"Problems parsing config: {error}", error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the error in one line, and exits."""
        if not self.exit_on_error:
            super().error(message, ex)  # in a nested parser; the outer one reports it
        parser = getattr(ex, "subcommand_parser", None) or self
        sys.stderr.write(f"error: {one_line(message, parser, getattr(parser, 'given', ()))}\n")
        raise SystemExit(2)


def call_function(arguments: Sequence[str]) -> None:
    """Calls the function of a command in `FUNCTIONS`; parameters without a default are positional arguments.

    Raises:
        SystemExit: As `cli.main.main`.
    """
    name, *options = arguments
    with command():
        function = getattr(import_module(FUNCTIONS[name]), name)
        parser = OneLineParser(prog=f"python -m lightning_cgan {name}", description=None)
        _add_arguments(parser, function)
        others: dict[str, Any] = {}
        if OTHER_OPTIONS in inspect.signature(function).parameters:
            options, others[OTHER_OPTIONS] = _divided(options, parser)
        function(**parser.instantiate_classes(parser.parse_args(options)).as_dict(), **others)


def _add_arguments(parser: OneLineParser, function: Callable[..., None]) -> None:
    """Adds the arguments of a function; a positional one that is a list takes one or more words."""
    lists = {
        name: hint
        for name, hint in inspect.signature(function).parameters.items()
        if hint.default is hint.empty and str(hint.annotation).startswith("list[")
    }
    documented = ArgumentParser(exit_on_error=False)
    documented.add_function_arguments(function, as_positional=True)
    parser.add_function_arguments(function, as_positional=True, skip={*lists, OTHER_OPTIONS})
    for action in actions_of(documented):
        if action.dest in lists:
            parser.add_argument(action.dest, nargs="+", type=str, help=action.help)


def _divided(args: Sequence[str], parser: ArgumentParser) -> tuple[list[str], list[str]]:
    """The arguments that a parser of options knows, with their values, and the others."""
    known = {*options_of(parser), "-h"}
    own: list[str] = []
    others: list[str] = []
    belongs = others  # where a value goes: to its option
    for arg in with_switches(args, parser):
        if arg.startswith("-") and not _is_number(arg):
            belongs = own if arg.partition("=")[0] in known else others
        belongs.append(arg)
        if "=" in arg:
            belongs = others
    return own, others


def _is_number(arg: str) -> bool:
    with suppress(ValueError):
        return bool(float(arg)) or True
    return False
