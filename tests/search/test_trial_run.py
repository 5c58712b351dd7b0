"""When a trial is pruned, and what its command and its log say; `tests/cli/test_search.py` runs whole searches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_cgan.search import supervisor
from lightning_cgan.search.locks import try_lock
from lightning_cgan.search.space import Choices, Range
from lightning_cgan.search.study import ClaimedTrial, SearchStudy
from lightning_cgan.search.trial_run import Outcome, TrialRun, command_of
from lightning_cgan.search.worker import _reason

SPACE = [Choices("model.loss.x", ("1",)), Choices("model.loss", ("Hinge",)), Range("data.batch_size", 8, 64)]


def claimed(folder: Path, prune: bool = True) -> ClaimedTrial:
    """A trial after five complete ones, whose scores at three validations have the medians 30, 20 and 10."""
    study = SearchStudy(folder, SPACE, 6, 0, prune)
    for shift in (-2, -1, 0, 1, 2):
        trial = study.claim()
        assert trial is not None
        for index, score in enumerate((30, 20, 10)):
            trial.trial.report(score + shift, index)
        with trial.owner:
            trial.tell(TrialState.COMPLETE, 10 + shift)
    trial = study.claim()
    assert trial is not None
    return trial


def write_table(trial: ClaimedTrial, *rows: tuple[int, float | None]) -> None:
    """Writes steps, some of them with a score, as a run does."""
    run = trial.folder / "2026-01-01_00-00-00"
    run.mkdir(exist_ok=True)
    lines = [f"{step},{'' if score is None else score},{'' if score else 0.5}\n" for step, score in rows]
    (run / "metrics.csv").write_text("step,val_judge_fid,generator_loss\n" + "".join(lines))


@pytest.mark.parametrize(
    ("scores", "pruned_after"),
    [
        ([29.0, 19.0, 9.0], None),
        ([31.0, 19.0, 9.0], 1),
        ([29.0, 21.0, 9.0], 2),
        ([19.5, 25.0, 9.0], None),  # its best so far counts
        ([29.0, 19.0, 11.0], None),  # the run is over
    ],
)
def test_a_trial_is_pruned_by_the_median_at_the_same_validation(
    scores: list[float], pruned_after: int | None, tmp_path: Path
) -> None:
    trial = claimed(tmp_path)
    run = TrialRun(trial, [], lambda: 0)
    rows: list[tuple[int, float | None]] = []
    for number, score in enumerate(scores, start=1):
        rows += [(100 * number, None), (100 * number, score)]
        write_table(trial, *rows)
        assert not run._report()  # the run may end here
        if number < 3:
            rows.append((100 * number + 50, None))
            write_table(trial, *rows)
            pruned = run._report()
            assert pruned == (number == pruned_after)
            assert trial.reported() == scores[:number]
            if pruned:
                return
    assert pruned_after is None
    assert not run._report(is_over=True)
    assert trial.reported() == scores


@pytest.mark.parametrize(("scores", "expected"), [([31.0, 19.0, 9.0], [31.0]), ([29.0, 21.0, 9.0], [29.0, 21.0])])
def test_how_late_the_search_looks_does_not_matter(scores: list[float], expected: list[float], tmp_path: Path) -> None:
    trial = claimed(tmp_path)
    write_table(trial, *((100 * number, score) for number, score in enumerate(scores, start=1)))
    assert TrialRun(trial, [], lambda: 0)._report(is_over=True)
    assert trial.reported() == expected


def test_a_process_that_died_before_it_could_prune_is_no_way_out(tmp_path: Path) -> None:
    trial = claimed(tmp_path)
    write_table(trial, (100, 31.0), (150, None), (200, 1.0), (250, None))
    trial.trial.report(31.0, 0)
    assert TrialRun(trial, [], lambda: 0)._report()
    assert trial.reported() == [31.0]


def test_without_pruning_nothing_is_pruned(tmp_path: Path) -> None:
    trial = claimed(tmp_path, prune=False)
    write_table(trial, (100, 99.0), (200, 99.0), (300, None))
    assert not TrialRun(trial, [], lambda: 0)._report()
    assert trial.reported() == [99.0, 99.0]


def test_the_command_sets_a_class_before_its_options(tmp_path: Path) -> None:
    trial = claimed(tmp_path)
    size = trial.values["data.batch_size"]
    assert command_of(trial, ["--config", "digits"]) == [
        *("fit", "--config", "digits", "--model.loss=Hinge", f"--data.batch_size={size}", "--model.loss.x=1"),
        *("--runs_dir", str(tmp_path / "trials"), "--name", "0005", "--ckpt_path", "last"),
    ]


@pytest.mark.parametrize("how", ["pipe", "signal", "killed"])
def test_the_supervisor_stops_its_command(how: str, tmp_path: Path) -> None:
    """Also where the search is killed, whose end of the pipe closes; the command holds the lock until it has ended."""
    code = "import time, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(99)"
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    command = [sys.executable, "-I", supervisor.__file__, str(lock.fileno()), sys.executable, "-c", code]
    starter = f"import subprocess, sys, time; p = subprocess.Popen({command}, stdin=-1, pass_fds=[{lock.fileno()}]); time.sleep(99)"
    outer = [sys.executable, "-c", starter] if how == "killed" else command
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(outer, pass_fds=[lock.fileno()], **pipes) as process:
        lock.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert try_lock(tmp_path / "lock") is None
        if how == "pipe":
            assert process.stdin is not None
            process.stdin.close()
        else:
            os.kill(process.pid, signal.SIGTERM if how == "signal" else signal.SIGKILL)
        process.stdout.read()  # until the last process that writes there has ended
        assert process.wait(20) == (-signal.SIGKILL if how == "killed" else 7)
    assert try_lock(tmp_path / "lock") is not None


@pytest.mark.parametrize(
    ("code", "reported", "reason"),
    [
        (1, False, "last words"),
        (137, False, "ended by SIGKILL; its log ends with: last words"),
        (255, False, "last words"),  # no signal has this number
        (0, True, "val_judge_fid: expected a number, got NaN or infinity in each validation: the training has failed"),
        (
            0,
            False,
            "val_judge_fid: expected a run with a validation that has this score, got none; validate more often, such as "
            "with --trainer.check_val_every_n_epoch 1, and name another --out",
        ),
    ],
)
def test_why_a_trial_has_no_score(code: int, reported: bool, reason: str) -> None:
    assert _reason(Outcome(False, code, "last words", 1.0), reported) == reason
