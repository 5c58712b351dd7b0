"""The commands of docs/clusters.md, shortened, and without the cluster; test_cluster.py and test_ray.py disturb runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.run_files import last_of

pytestmark = pytest.mark.cluster

PAGE = (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
SHORT = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--samples.columns", "1"]


def test_the_page_has_each_way() -> None:
    programs = [re.sub(r"^\w+=\w+ ", "", command).split()[0] for command in COMMANDS]
    assert programs == ["scripts/torchrun.sh"] * 2 + ["sbatch"] * 2 + ["pip", "python"]
    assert COMMANDS[-1] == "python scripts/ray_train.py"  # test_ray.py


@pytest.mark.parametrize("command", COMMANDS[:4])
def test_command(command: str, tmp_path: Path, mnist_folder: str) -> None:
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "srun").write_text('#!/bin/sh\nexec "$@"\n')  # one task
    (tmp_path / "srun").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PROCESSES": "1", "LIGHTNING_CGAN_DATA": mnist_folder}
    words = shlex.split(command, comments=True)
    if words[0] == "sbatch":
        words = ["bash", *words[words.index("scripts/slurm.sbatch") :]]
    elif "=" in words[0]:
        variable, _, value = words.pop(0).partition("=")
        environment[variable] = value
    done = subprocess.run([*words, *SHORT], env=environment, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("runs/*/*")
    assert last_of(folder)["global_step"] == 2
    assert ("world_size=2" in done.stderr or "2 processes" in done.stderr) == (environment["PROCESSES"] == "2")
