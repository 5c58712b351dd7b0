"""Runs a command, and stops it with SIGTERM when the process that started this one closes its pipe or dies.

It is a program of its own, which imports next to nothing: `python supervisor.py DESCRIPTOR COMMAND…`. The command
inherits the descriptor, a locked file, so the lock is held until the last of both processes has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType


def main(descriptor: int, command: list[str]) -> int:
    """Returns the exit code of the command, as a shell does: 128 plus the number of the signal that ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor])

    def stop(*_: int | FrameType | None) -> None:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)

    def watch() -> None:
        os.read(0, 1)  # unlike sys.stdin, nothing that Python closes at its end
        stop()

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), sys.argv[2:]))
