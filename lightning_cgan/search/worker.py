"""A process of a search, which runs one trial after another."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from optuna.trial import TrialState

from lightning_cgan.callbacks.signals import STOP_SIGNALS
from lightning_cgan.core.errors import UsageError
from lightning_cgan.search.results import Row, images_seen, reason_for, write_results
from lightning_cgan.search.study import SCORE, ClaimedTrial, SearchStudy
from lightning_cgan.search.trial_run import Outcome, TrialRun, run_folder_of

_MOST_FAILURES = 2  # that are the same, before anything has worked


class Worker:
    """Runs trials until none is left or a signal arrives.

    Args:
        study: The search.
        fit_options: The options of `fit` that all trials share.
        outside: What the config of the best trial has in place of the trial's own name and folder.
    """

    def __init__(self, study: SearchStudy, fit_options: Sequence[str], outside: dict[str, Any]) -> None:
        self.study = study
        self.fit_options = fit_options
        self.outside = outside
        self.signals: list[int] = []
        self._failures: list[str] = []  # usage errors of this process, as long as no trial has a score

    def work(self) -> int | None:
        """Returns the signal that ended it; None if no trial is left."""
        with self._handled_signals():
            while not self.signals and (trial := self.study.claim()):
                with trial.owner:
                    values = "  ".join(f"{name}={value}" for name, value in trial.values.items())
                    print(f"Trial {trial.number}: {values}", flush=True)
                    run = TrialRun(trial, self.fit_options, lambda: len(self.signals))
                    outcome = run.run()
                    if self.signals and not outcome.has_ended:
                        break
                    if outcome.stopped_from_outside:
                        print(f"Trial {trial.number}: a signal stopped its process", flush=True)
                        return outcome.code - 128
                    self._end(trial, run, outcome)
        return self.signals[0] if self.signals else None

    @contextmanager
    def _handled_signals(self) -> Iterator[None]:
        in_main = threading.current_thread() is threading.main_thread()  # only there may a program handle signals
        handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS} if in_main else {}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.signals.append(number)

    def _end(self, trial: ClaimedTrial, run: TrialRun, outcome: Outcome) -> None:
        """Records how a trial has ended, and rewrites the results."""
        scores, score = trial.reported(), trial.score()
        images = images_seen(run_folder_of(trial.folder))
        trial.record(seconds=outcome.seconds, images=images)
        steps = [step for step, _ in run.points()]
        # A run that failed may be shorter than one that was lost before its first checkpoint.
        if score is not None and scores.index(score) < len(steps):
            trial.record(step=steps[scores.index(score)])
        if outcome.pruned:
            trial.tell(TrialState.PRUNED)
            said = f"pruned after {len(scores)} validation{'s' * (len(scores) > 1)}"
        elif outcome.code == 0 and score is not None:
            trial.tell(TrialState.COMPLETE, score)
            said = f"{SCORE} {score:.4f}"
        else:
            reason = reason_for(_reason(outcome, bool(scores)))
            trial.record(reason=reason)
            trial.tell(TrialState.FAIL)
            said = f"failed: {reason}"
        with self.study.mutex():
            rows = write_results(self.study, self.outside)
        best = f"; the best is trial {rows[0].number}, {rows[0].score:.4f}" if rows[0].state == "complete" else ""
        print(f"Trial {trial.number}: {said}, {outcome.seconds:.0f} s{best}", flush=True)
        self._check_failures(rows, outcome, bool(scores))

    def _check_failures(self, rows: Sequence[Row], outcome: Outcome, reported: bool) -> None:
        """Ends the search if its first trials fail alike, through options that they share."""
        if any(row.score is not None for row in rows):
            return
        if outcome.code in (0, 2):
            self._failures.append(_reason(outcome, reported))
        same = self._failures[-_MOST_FAILURES:]
        if len(same) == _MOST_FAILURES and len(set(same)) == 1:
            raise UsageError(same[0])


def _reason(outcome: Outcome, reported: bool) -> str:
    """Why a trial has no score; `reported` tells whether its run had validations."""
    if outcome.code == 0 and reported:
        return f"{SCORE}: expected a number, got NaN or infinity in each validation: the training has failed"
    if outcome.code == 0:
        remedy = "validate more often, such as with --trainer.check_val_every_n_epoch 1, and name another --out"
        return f"{SCORE}: expected a run with a validation that has this score, got none; {remedy}"
    with suppress(ValueError):  # not every number is a signal's
        return f"ended by {signal.Signals(outcome.code - 128).name}; its log ends with: {outcome.reason}"
    return outcome.reason
