"""The run of a trial: `fit` in a process of its own, whose scores are reported while it trains."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lightning_cgan.callbacks.series import Points, read_series
from lightning_cgan.runs.folder import newest_checkpoint
from lightning_cgan.search import supervisor
from lightning_cgan.search.locks import try_lock
from lightning_cgan.search.study import SCORE, ClaimedTrial

_SECONDS_BETWEEN_LOOKS = 0.3
_STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM)} | {
    128 + signal.Signals[name] for name in ("SIGUSR1",) if hasattr(signal, name)
}


@dataclass(frozen=True)
class Outcome:
    """How the run of a trial has ended.

    Attributes:
        pruned: Whether it was stopped because of its scores.
        code: The exit code of `fit`.
        reason: What `fit` said last, for a run that failed.
        seconds: The time that all processes of the trial have taken, those before an interruption included.
    """

    pruned: bool
    code: int
    reason: str
    seconds: float

    @property
    def has_ended(self) -> bool:
        """Whether the run has reached its end, or is not to."""
        return self.pruned or self.code == 0

    @property
    def stopped_from_outside(self) -> bool:
        """Whether a signal stopped the run, which can be resumed."""
        return not self.pruned and self.code in _STOPPED


def command_of(trial: ClaimedTrial, fit_options: Sequence[str]) -> list[str]:
    """The arguments of `fit` for a trial, those that can be typed after `python -m lightning_cgan`."""
    # `--model.loss` resets `--model.loss.…`, so it has to come first.
    ordered = sorted(trial.values.items(), key=lambda pair: pair[0].count("."))
    sampled = [f"--{name}={value}" for name, value in ordered]
    where = ["--runs_dir", str(trial.folder.parent), "--name", trial.folder.name, "--ckpt_path", "last"]
    return ["fit", *fit_options, *sampled, *where]


def run_folder_of(folder: Path) -> Path | None:
    """The folder of the run in the folder of a trial, if it has begun."""
    found = newest_checkpoint(str(folder.parent), folder.name)
    if found is not None:
        return found.parents[1]
    return max((child for child in folder.iterdir() if child.is_dir()), default=None)


class TrialRun:
    """Runs a trial to its end, or until it is pruned or the search is stopped.

    Args:
        trial: The trial.
        fit_options: The options that the user gave for `fit`.
        must_stop: How often the user has asked to stop: the first time, the run saves a checkpoint and ends; the second
            time, it ends at once.
    """

    def __init__(self, trial: ClaimedTrial, fit_options: Sequence[str], must_stop: Callable[[], int]) -> None:
        self.trial = trial
        self.command = command_of(trial, fit_options)
        self.must_stop = must_stop
        self._told = len(trial.reported())
        self._size = -1  # of the table of scalars at the last look

    def run(self) -> Outcome:
        """Runs `fit`, and reports its scores."""
        with self._alive() as lock:
            if lock is None:
                return Outcome(False, 128 + signal.SIGINT, "", 0.0)
            self._discard_lost_runs()
            before = _seconds_in(lock)
            if self._report():  # an earlier process died before it could say so
                return Outcome(True, 0, "", before)
            log = self.trial.folder / "log.txt"
            with log.open("ab") as output:
                output.write(f"$ python -m lightning_cgan {shlex.join(self.command)}\n".encode())
                output.flush()
                begun_at = output.tell()
                code, pruned, seconds = self._watch(self._start(lock, output), lock, before)
            if not pruned and code == 0:
                pruned = self._report(is_over=True)
            return Outcome(pruned, code, _last_words(log, begun_at), seconds)

    def _watch(self, process: subprocess.Popen[bytes], lock: IO[str], before: float) -> tuple[int, bool, float]:
        """Returns the exit code of a run, whether it was pruned, and how long all processes of the trial took."""
        started, pruned = time.monotonic(), False
        while process.poll() is None:
            pruned = pruned or self._report()
            self._stop_if_asked(process, pruned)
            _keep_seconds(lock, before + time.monotonic() - started)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_BETWEEN_LOOKS)
        if process.stdin:
            process.stdin.close()
        code = process.returncode
        if code < 0:  # the supervisor was killed, and the run is left
            _end_at_once(process)
            code = 128 - code
        return code, pruned, before + time.monotonic() - started

    def points(self) -> Points:
        """The steps and scores of all validations of the run so far."""
        return self._series().get(SCORE, [])

    def _last_step(self) -> int:
        """The last step of the run that has been logged."""
        return max((step for points in self._series().values() for step, _ in points), default=0)

    def _start(self, lock: IO[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        # Isolated, so that no file in the folder of the supervisor hides a module of Python
        supervised = [sys.executable, "-I", supervisor.__file__, str(lock.fileno())]
        return subprocess.Popen(
            [*supervised, sys.executable, "-m", "lightning_cgan", *self.command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C in a terminal reaches the search alone
        )

    def _stop_if_asked(self, process: subprocess.Popen[bytes], pruned: bool) -> None:
        asked = self.must_stop()
        if (asked or pruned) and process.stdin and not process.stdin.closed:
            process.stdin.close()  # the supervisor stops the run
        if asked > 1:
            _end_at_once(process)

    def _report(self, is_over: bool = False) -> bool:
        """Reports new scores in their order, and returns whether the trial has to be pruned.

        A score counts once the run is seen to go on after it, or to have ended: how fast this process looks does not
        change what is pruned, and a run that has reached its end is not.
        """
        last_step = self._last_step() if is_over or self._has_grown() else 0
        for index, (step, score) in enumerate(self.points() if last_step else []):
            goes_on = step < last_step
            if not (goes_on or is_over):
                return False
            if index >= self._told:
                self.trial.trial.report(score, index)
                self._told = index + 1
            # Also for the last one of an earlier process, which may have died before this question
            if index + 1 == self._told and goes_on and self.trial.trial.should_prune():
                return True
        return False

    def _has_grown(self) -> bool:
        file = self._table()
        size = file.stat().st_size if file and file.exists() else -1
        changed, self._size = size != self._size, size
        return changed and size > 0

    def _table(self) -> Path | None:
        run = run_folder_of(self.trial.folder)
        return run / "metrics.csv" if run else None

    def _series(self) -> dict[str, Points]:
        file = self._table()
        return read_series(file) if file and file.exists() else {}

    @contextmanager
    def _alive(self) -> Iterator[IO[str] | None]:
        """Holds the lock that the processes of the run hold as well, once those of a killed search have ended.

        None if the search is stopped before.
        """
        file, waits = self.trial.folder / "run.lock", False
        while (lock := try_lock(file)) is None:
            if not waits:
                print(f"Trial {self.trial.number}: waiting for the process of a killed search to end", flush=True)
            waits = True
            if self.must_stop():
                yield None
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        with lock:
            yield lock

    def _discard_lost_runs(self) -> None:
        """Removes runs that were killed before their first checkpoint: the trial begins again."""
        for child in self.trial.folder.iterdir():
            if child.is_dir() and not (child / "checkpoints" / "last.ckpt").exists():
                shutil.rmtree(child, ignore_errors=True)


def _end_at_once(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # which macOS raises for processes that have ended
        os.killpg(process.pid, signal.SIGKILL)


def _seconds_in(lock: IO[str]) -> float:
    lock.seek(0)
    try:
        return float(lock.read() or 0)
    except ValueError:
        return 0.0


def _keep_seconds(lock: IO[str], seconds: float) -> None:
    lock.truncate(0)
    lock.write(f"{seconds:.1f}")  # opened to append
    lock.flush()


def _last_words(log: Path, begun_at: int) -> str:
    """The error in the log of a run, or its last line."""
    with log.open("rb") as file:
        file.seek(begun_at)
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]
