"""The study of a search: an Optuna study in a SQLite file, whose trials several processes share."""

from __future__ import annotations

import json
import math
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from lightning_cgan.core.errors import TrainingError, UsageError, reason_of
from lightning_cgan.core.files import write_atomic
from lightning_cgan.search.locks import locked, try_lock
from lightning_cgan.search.space import Varied

SCORE = "val_judge_fid"
_NAME = "search"
_SETTINGS = "settings.json"
_LOCK = "search.lock"
_SECONDS_TO_WAIT = 60.0  # for another process that writes to the database


@dataclass
class ClaimedTrial:
    """A trial of this process.

    Attributes:
        trial: The trial in the study.
        values: The sampled values, by option, as text for the command line.
        folder: The folder of the trial.
        owner: The locked file that shows to others that this process lives.
    """

    trial: Trial
    values: dict[str, str]
    folder: Path
    owner: IO[str]

    @property
    def number(self) -> int:
        """The number of the trial in the study, from 0."""
        return self.trial.number

    def reported(self) -> list[float]:
        """The scores of the validations so far."""
        found = self.trial.study.trials[self.number].intermediate_values
        return [found[index] for index in sorted(found)]

    def score(self) -> float | None:
        """The smallest score so far; None if there is none."""
        return score_of(self.trial.study.trials[self.number])

    def record(self, **facts: Any) -> None:
        """Stores facts about the trial, for the results."""
        for name, value in facts.items():
            self.trial.set_user_attr(name, value)

    def tell(self, state: TrialState, score: float | None = None) -> None:
        """Ends the trial."""
        self.trial.study.tell(self.trial, score, state)


class SearchStudy:
    """The trials of a search, in `study.db` in its folder.

    The values of trial k depend only on the seed, on k, and on the trials before it: the sampler is made anew for each
    value. So a search that is interrupted and resumed tries the same values.

    Args:
        folder: The folder of the search, which exists.
        space: What varies.
        trials: The number of trials, of all processes together.
        seed: The seed of the sampler.
        prune: Whether trials end early whose scores are worse than those of most others at the same validation.
    """

    def __init__(self, folder: Path, space: Sequence[Varied], trials: int, seed: int, prune: bool) -> None:
        self.folder = folder
        self.space = space
        self.trials = trials
        self.seed = seed
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
        with self.mutex():
            self.storage = _storage(folder / "study.db")
            self.study = optuna.create_study(storage=self.storage, study_name=_NAME, pruner=pruner, load_if_exists=True)

    @contextmanager
    def mutex(self) -> Iterator[None]:
        """One process at a time: begins a trial, or writes the results."""
        with locked(self.folder / _LOCK):
            yield

    def all_trials(self) -> list[FrozenTrial]:
        """All trials so far, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False)

    def claim(self) -> ClaimedTrial | None:
        """A trial for this process: one whose process has died, or else a new one; None if all have begun."""
        with self.mutex():
            begun = self.all_trials()
            for frozen in begun:
                if frozen.state == TrialState.RUNNING and (owner := self._own(frozen.number)):
                    return self._claimed(self._reopened(frozen.number), owner)
            if len(begun) >= self.trials:
                return None
            self.study.sampler = self._sampler(len(begun), 0)
            trial = self.study.ask()
            owner = self._own(trial.number)
            assert owner is not None, "nobody else has seen the trial"
            return self._claimed(trial, owner)

    def folder_of(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def _reopened(self, number: int) -> Trial:
        study_id = self.storage.get_study_id_from_name(_NAME)
        return Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _own(self, number: int) -> IO[str] | None:
        folder = self.folder_of(number)
        folder.mkdir(parents=True, exist_ok=True)
        return try_lock(folder / "owner.lock")

    def _claimed(self, trial: Trial, owner: IO[str]) -> ClaimedTrial:
        values = {}
        for index, varied in enumerate(self.space):
            # A process that died between two values must not change the second one.
            self.study.sampler = self._sampler(trial.number, index)
            values[varied.name] = varied.suggest(trial)
        return ClaimedTrial(trial, values, self.folder_of(trial.number), owner)

    def _sampler(self, number: int, index: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number, index]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Trials that still run count as bad, so that several processes do not try the same values.
            return optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)


def _storage(file: Path) -> optuna.storages.BaseStorage:
    # The path would have to be quoted in a URL, which SQLAlchemy does not unquote.
    connect = {"creator": lambda: sqlite3.connect(file, timeout=_SECONDS_TO_WAIT, check_same_thread=False)}
    try:
        return optuna.storages.RDBStorage(f"sqlite:///{file.name}", engine_kwargs=connect)
    except OperationalError as error:
        said = f"{file} cannot be written or read ({error.orig})"
        raise TrainingError(f"{said}; make room, and give the same command again") from error
    except (RuntimeError, optuna.exceptions.OptunaError, SQLAlchemyError) as error:
        got = f"got {file} ({reason_of(error)})"
        raise UsageError(f"--out: expected a study that Optuna reads, {got}; name another folder") from error


def score_of(trial: FrozenTrial) -> float | None:
    """The smallest score of all validations of a trial; None if there is none."""
    finite = [score for score in trial.intermediate_values.values() if math.isfinite(score)]
    return min(finite, default=None)


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Stores what a search is about in its folder, or checks that it is the same as when the search began.

    Raises:
        UsageError: It differs, or the folder holds something else.
    """
    file = folder / _SETTINGS
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _LOCK).exists():
        expected = "expected a new folder, or that of a search"
        raise UsageError(f"--out: {expected}, got {folder}, which holds something else; name another")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / _LOCK):
        if not file.exists():
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            write_atomic(file, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    try:
        before = dict(_leaves(json.loads(file.read_text(encoding="utf-8")), ""))
    except ValueError as error:
        expected = f"expected the settings of a search in {file}, got something else ({reason_of(error)})"
        raise UsageError(f"--out: {expected}; name another folder") from error
    now = dict(_leaves(json.loads(json.dumps(settings)), ""))
    for name in (*now, *before):
        if before.get(name) != now.get(name):
            there, here = (json.dumps(one.get(name), ensure_ascii=False) for one in (before, now))
            expected = f"expected the search that began in {folder}, with {name} {there}"
            raise UsageError(f"--out: {expected}, got {here}; give the same again, or name another folder")


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{prefix}.{key}".removeprefix("."))
    else:
        yield prefix, value
