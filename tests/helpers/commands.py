"""Command lines in processes of their own.

A process that is typed imports the package, which takes longer than most tests. So there is a server that has it
imported, and forks for a command line. Where a test is about what happens while a process starts, or the Trainer starts
further ones, the process has to be typed.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["lightning_cgan.cli.main"])


class Command:
    """A command line that runs beside the test, in its folder and environment.

    Args:
        arguments: What stands behind the program's name.
        largest_file: The most bytes that the process may write to a file.
    """

    pid: int

    def __init__(self, *arguments: str, largest_file: int | None = None) -> None:
        self._shown = b""  # on stdout and stderr, and not yet asked for
        self._reader = self._start(arguments, largest_file)

    def _start(self, arguments: tuple[str, ...], largest_file: int | None) -> int:
        """Starts the process, and returns the descriptor of what it shows."""
        raise NotImplementedError

    @property
    def returncode(self) -> int | None:
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def readline(self, seconds: float = 200) -> str:
        """The next line that is shown; what there is, where the process ends in it."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._shown and self._read(deadline):
            pass
        line, end, self._shown = self._shown.partition(b"\n")
        return (line + end).decode()

    def wait(self, seconds: float = 200) -> str:
        """Waits for the end, and returns what has been shown since."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        while self.returncode is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self._shown.decode()

    def _read(self, deadline: float) -> bool:
        assert select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))[0], self._shown.decode()
        found = os.read(self._reader, 65536)
        self._shown += found
        return bool(found)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class Typed(Command):
    """`python -m lightning_cgan …`."""

    def _start(self, arguments: tuple[str, ...], largest_file: int | None) -> int:
        command = [sys.executable, "-m", "lightning_cgan", *arguments]
        limit = None if largest_file is None else lambda: _limit_files(largest_file)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limit)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._process.communicate()


def command_line(*arguments: str) -> None:
    """What a process that is typed does."""
    sys.argv = ["lightning_cgan", *arguments]
    from lightning_cgan.__main__ import main

    main()


class Forked(Command):
    """The same from where the package has been imported.

    Args:
        arguments: As of a `Command`.
        largest_file: The same.
        work: What is called with the arguments, if not the command line: a function that can be imported.
        variables: Further variables of the environment.
    """

    def __init__(
        self,
        *arguments: str,
        largest_file: int | None = None,
        work: Callable[..., None] = command_line,
        **variables: str,
    ) -> None:
        self._work, self._variables = work, variables
        super().__init__(*arguments, largest_file=largest_file)

    def _start(self, arguments: tuple[str, ...], largest_file: int | None) -> int:
        self._pipe, writer = _fork.Pipe(duplex=False)
        environment = {**os.environ, **self._variables}
        given = (self._work, arguments, os.getcwd(), environment, writer, largest_file)
        self._process = _fork.Process(target=_run, args=given)
        self._process.start()
        writer.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        return self._pipe.fileno()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._process.join()
        self._pipe.close()


# How a process may begin: forked in all runs of the tests, typed where they may take long.
BEGINNINGS = [pytest.param(Forked, id="forked"), pytest.param(Typed, id="typed", marks=pytest.mark.ci)]


def _limit_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _run(
    work: Callable[..., None],
    arguments: tuple[str, ...],
    folder: str,
    environment: dict[str, str],
    writer: Connection,
    largest_file: int | None,
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(writer.fileno(), stream)
    writer.close()
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if largest_file is not None:
        _limit_files(largest_file)
    work(*arguments)
