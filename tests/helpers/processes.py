"""Programs that tests start."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers.paths import SCRIPTS, TESTS


def with_helpers(**variables: str) -> dict[str, str]:
    """The environment of a process that imports `helpers`."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def script(name: str, *arguments: str, **variables: str) -> str:
    """Runs a script as a user does, who sets no number of threads, and returns what it prints."""
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    environment = {**os.environ, "WANDB_MODE": "disabled", **variables}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
