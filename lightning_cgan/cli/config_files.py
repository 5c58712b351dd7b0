"""Config files as text of any language, and the home that `~` in options stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jsonargparse
from jsonargparse import Namespace

from lightning_cgan.cli.renamed import with_new_names

_Path: Any = jsonargparse.Path  # type: ignore[attr-defined]  # there in all releases, but not declared to be
_read = _Path.read_text


@contextmanager
def read_as_utf8() -> Iterator[None]:
    """Lets jsonargparse read files as UTF-8, with or without a byte order mark; it takes the encoding of the system.

    What an earlier version of the package wrote is read as well.
    """

    def read_text(path: Any) -> str:
        if not os.path.isfile(path.absolute):  # an address, or standard input
            return with_new_names(str(_read(path)))
        with open(path.absolute, encoding="utf-8-sig") as file:
            return with_new_names(file.read())

    with mock.patch.object(_Path, "read_text", read_text):
        yield


def expand_homes(config: Namespace | dict[str, object]) -> None:
    """Puts the home of a user in the place of `~` or `~user` where a value of a config begins with it.

    A shell does so where `~` begins a word, and nobody does in `--runs_dir=~/runs`, nor in a config file. Lists of
    texts stay as they are: they hold names.
    """
    for key, value in config.items(branches=False) if isinstance(config, Namespace) else list(config.items()):
        if isinstance(value, str) and value.startswith("~"):
            config[key] = os.path.expanduser(value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, (Namespace, dict)):
                expand_homes(part)
