r"""Kills runs, resumes each by the documented command, and compares the result with that of an uninterrupted run.

    python scripts/kill_test.py --kills 30 --busy
    python scripts/kill_test.py --kills 30 --busy --at epoch-end
    python scripts/kill_test.py --kills 30 --busy --at early-stopping
    python scripts/kill_test.py --kills 30 --busy "--fit=--model.compile step"
    python scripts/kill_test.py --kills 10 --processes 2
    python scripts/kill_test.py --kills 3 --processes 2 --then 1 && python scripts/kill_test.py --kills 3 --then 2

A checkpoint is written in each step, so that many runs are killed while they save. With `--at epoch-end`, checkpoints
are written only at the ends of epochs, and every other run is not killed but ends there. With `--at early-stopping`, a
callback ends each run, which then resumes without that callback. Weights, moving average, states of optimizers and
schedulers, and the table of scalars must be equal to the last bit. Each run chooses its number of CPU threads when it
begins; the uninterrupted run uses the same number (`--threads`).

A run that resumes with another number of processes must end within 1e-5 of the uninterrupted one. Sums are added in
another order there, which Adam would amplify, so these runs use SGD. They also have no dropout, since each process
samples its own.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DIGITS = Path(__file__).parent.parent / "configs" / "digits.yaml"
SCORES = ["--trainer.check_val_every_n_epoch", "1"]
EPOCH = 20  # steps
COMMON = [
    *("--trainer.log_every_n_steps", "3", "--trainer.accelerator", "cpu"),
    # A decay that follows the run would be another one in a run that is to end early.
    *("--model.generator_scheduler.total_iters", "3000", "--model.discriminator_scheduler.total_iters", "3000"),
]
DROPOUT = ["--model.discriminator.dropout", "0.3"]
WITHOUT_ROUNDING = [  # no batch statistics, no dropout, no division by roots
    *("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator"),
    *("--model.generator_optimizer", "torch.optim.SGD", "--model.generator_optimizer.lr", "0.05"),
    *("--model.discriminator_optimizer", "torch.optim.SGD", "--model.discriminator_optimizer.lr", "0.05"),
    *("--trainer.precision", "32-true"),
]


# Another program, which wants a core now and then, for as long as this one lives.
BUSY = """
import os, random, time
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + random.random() * 2
    while time.monotonic() < end:
        pass
    time.sleep(random.random() * 2)
"""


def main() -> None:
    """Makes the undisturbed run, then kills the others one after the other; exit code 1 if one ends differently."""
    options = _options()
    rng = random.Random(options.seed)
    is_elastic = options.then != options.processes
    every = EPOCH if options.at == "epoch-end" else 1
    changes = [*COMMON, *SCORES, "--checkpoints.every_n_train_steps", str(every), "--runs_dir", str(options.out)]
    changes += WITHOUT_ROUNDING if is_elastic else DROPOUT
    changes += shlex.split(options.fit)
    to_the_end = ["--trainer.max_steps", str(options.steps)]
    options.out.mkdir(parents=True, exist_ok=True)
    same = 0
    with _busy_machine() if options.busy else nullcontext():
        _finish(_fit("whole", [*changes, *to_the_end], options.processes))
        for number in range(options.kills):
            name = f"killed-{number}"
            if options.at == "early-stopping" or (options.at == "epoch-end" and number % 2):
                how = _end_early(name, changes, options, rng)
            else:
                how = _kill(name, [*changes, *to_the_end], options, rng)
            _finish(_fit(name, [*changes, *to_the_end, "--ckpt_path", "last"], options.then))
            whole = options.out / "whole" if is_elastic else _whole_with_threads_of(name, changes + to_the_end, options)
            found = _differences(whole, options.out / name, 1e-5 if is_elastic else 0.0)
            same += not found
            print(f"{name}: {how}: {'; '.join(found) or 'ended the same'}", flush=True)
    print(f"{same} of {options.kills} runs ended {'within 1e-5' if is_elastic else 'the same to the last bit'}")
    sys.exit(same < options.kills)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kills runs at random moments, and resumes them.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--then", type=int, help="the number of processes after resuming; by default the same")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", choices=("any-moment", "epoch-end", "early-stopping"), default="any-moment")
    parser.add_argument("--busy", action="store_true", help="run another program that wants a core now and then")
    parser.add_argument("--fit", default="", help="more options of fit")
    parser.add_argument("--out", type=Path, default=Path("kill_test"))
    options = parser.parse_args()
    options.then = options.then or options.processes
    return options


@contextmanager
def _busy_machine() -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        program.kill()
        program.wait()


def _fit(name: str, changes: list[str], processes: int) -> subprocess.Popen[bytes]:
    """Starts a run as a user types it, who does not set a number of threads."""
    many = ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"] if processes > 1 else []
    command = [sys.executable, "-m", "lightning_cgan", "fit", "--config", str(DIGITS), "--name", name, *changes, *many]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    environment.pop("OMP_NUM_THREADS", None)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload,no-any-return]


def _finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=3600)
    if process.returncode:
        sys.exit(f"error: a run ended with {process.returncode}: {errors.decode()[-2000:]}")


def _whole_with_threads_of(name: str, changes: list[str], options: argparse.Namespace) -> Path:
    """An undisturbed run with as many threads as another one; it is made where there is none."""
    threads = {run: _last_checkpoint(run)["lightning_cgan"]["numerics"]["threads"] for run in _wholes(options.out)}
    wanted = _last_checkpoint(options.out / name)["lightning_cgan"]["numerics"]["threads"]
    found = next((run for run in threads if threads[run] == wanted), None)
    if found is None:
        found = options.out / f"whole-{len(threads)}"
        _finish(_fit(found.name, [*changes, "--threads", str(wanted[0])], options.processes))
    return found


def _wholes(out: Path) -> list[Path]:
    return sorted(out.glob("whole*"))


def _end_early(name: str, changes: list[str], options: argparse.Namespace, rng: random.Random) -> str:
    """Makes a run that ends with an epoch before the last, by `max_epochs` or by a callback."""
    epochs = 1 + rng.randrange(max(1, (options.steps - 1) // EPOCH))
    if options.at == "epoch-end":
        _finish(
            _fit(name, [*changes, "--trainer.max_steps", "-1", "--trainer.max_epochs", str(epochs)], options.processes)
        )
        return f"ended after epoch {epochs}"
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_generator_loss"]
    if epochs == 1:
        stop += ["--trainer.callbacks.divergence_threshold=-1e9"]  # as soon as it is looked at
    else:  # after so many looks at what is never enough better
        stop += ["--trainer.callbacks.min_delta=1e9", f"--trainer.callbacks.patience={epochs - 1}"]
    _finish(_fit(name, [*changes, *stop, "--trainer.max_steps", str(options.steps)], options.processes))
    steps = _last_checkpoint(options.out / name)["global_step"]
    assert steps == epochs * EPOCH, f"stopped after {steps} steps"
    return f"stopped by a score after epoch {epochs}"


def _kill(name: str, changes: list[str], options: argparse.Namespace, rng: random.Random) -> str:
    """Kills all processes of a run at once, at a moment of its steps; now and then before the first."""
    while True:
        process = _fit(name, changes, options.processes)
        folder = options.out / name
        if rng.random() < 0.9:  # else while it starts
            _wait_for_rows(process, folder, rng.randrange(_count_rows(options.out / "whole")))
            time.sleep(rng.random() * 0.3)
        else:
            time.sleep(rng.random() * 5)
        is_over = process.poll() is not None
        if not is_over:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not is_over:
            break
        shutil.rmtree(folder)  # it was faster: once more
    leftovers = len(list(folder.glob("*/checkpoints/.*.unfinished")))
    is_saved = any(folder.glob("*/checkpoints/last.ckpt"))
    where = f"behind step {_last_checkpoint(folder)['global_step']}" if is_saved else "before its first checkpoint"
    return f"killed {where}{', while saving' if leftovers else ''}"


def _wait_for_rows(process: subprocess.Popen[bytes], folder: Path, rows: int) -> None:
    while process.poll() is None and not (list(folder.glob("*/checkpoints/last.ckpt")) and _count_rows(folder) >= rows):
        time.sleep(0.01)


def _count_rows(name: Path) -> int:
    return max((len(file.read_bytes().splitlines()) - 1 for file in name.glob("*/metrics.csv")), default=0)


def _folder_of(run: Path) -> Path:
    return max(run.iterdir(), key=lambda folder: folder.stat().st_mtime)  # one killed at its start has left nothing


def _last_checkpoint(run: Path) -> dict[str, Any]:
    return dict(torch.load(_folder_of(run) / "checkpoints" / "last.ckpt", weights_only=True))


def _differences(expected: Path, got: Path, tolerance: float) -> list[str]:
    left, right = _folder_of(expected), _folder_of(got)
    states = [_last_checkpoint(run) for run in (expected, got)]
    if tolerance:  # another number of processes
        for state in states:
            del state["lightning_cgan"]["numerics"]
    names = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "lightning_cgan")
    found = [text for name in names for text in _differing(name, *(state[name] for state in states), tolerance)]
    return [*found[:3], *_differing("metrics.csv", _rows(left), _rows(right), tolerance * 100)][:4]


def _rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: float(value) for name, value in row.items() if value and name != "images_per_second"} for row in rows
    ]


def _differing(name: str, left: Any, right: Any, tolerance: float) -> list[str]:
    """Where two nested values differ, by name."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [text for key in left for text in _differing(f"{name}.{key}", left[key], right[key], tolerance)]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [text for key, pair in pairs for text in _differing(f"{name}.{key}", *pair, tolerance)]
    if isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape:
        gap = (left.double() - right.double()).abs().max().item() if left.numel() else 0.0
        return [] if gap <= tolerance else [f"{name} by {gap:.1e}"]
    if isinstance(left, float) and isinstance(right, float):
        return [] if math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance) else [f"{name}: {left}, {right}"]
    return [] if left == right else [f"{name}: {str(left)[:60]}, {str(right)[:60]}"]


if __name__ == "__main__":
    main()
