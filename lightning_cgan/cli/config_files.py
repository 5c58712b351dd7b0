"""Reading config files as UTF-8, and expanding `~` in option values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jsonargparse
from jsonargparse import Namespace

from lightning_cgan.cli.renamed import with_new_names

_Path: Any = jsonargparse.Path  # type: ignore[attr-defined]  # in all releases, but not declared as public
_read = _Path.read_text


@contextmanager
def read_as_utf8() -> Iterator[None]:
    """Makes jsonargparse read files as UTF-8, with or without a byte order mark, instead of in the system encoding.

    Former names of options, from earlier versions of the package, are converted to the current ones.
    """

    def read_text(path: Any) -> str:
        if not os.path.isfile(path.absolute):  # a URL or standard input
            return with_new_names(str(_read(path)))
        with open(path.absolute, encoding="utf-8-sig") as file:
            return with_new_names(file.read())

    with mock.patch.object(_Path, "read_text", read_text):
        yield


def expand_homes(config: Namespace | dict[str, object]) -> None:
    """Expands `~` or `~user` at the start of config values to the home directory, in place.

    A shell expands `~` only at the start of a word: neither in `--runs_dir=~/runs` nor in a config file. Lists of
    strings are not changed, since they contain names.
    """
    for key, value in config.items(branches=False) if isinstance(config, Namespace) else list(config.items()):
        if isinstance(value, str) and value.startswith("~"):
            config[key] = os.path.expanduser(value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, (Namespace, dict)):
                expand_homes(part)
