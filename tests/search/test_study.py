"""Trials: which values they try, who runs them, and what they become in the table."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightning_cgan.core.errors import UsageError
from lightning_cgan.search.picture import pareto_front
from lightning_cgan.search.results import short_names, table_of, write_results
from lightning_cgan.search.space import Choices, Range
from lightning_cgan.search.study import ClaimedTrial, SearchStudy, check_settings

SPACE = [Range("model.lr", 1e-4, 1e-1, log=True), Choices("model.loss", ("a", "b")), Range("data.batch_size", 8, 64)]
TRIALS = 14  # the first ten are random, the others depend on them


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., SearchStudy]:
    def open_study(name: str = "s", seed: int = 0, trials: int = TRIALS) -> SearchStudy:
        (tmp_path / name).mkdir(exist_ok=True)
        return SearchStudy(tmp_path / name, SPACE, trials, seed, prune=True)

    return open_study


def score(trial: ClaimedTrial) -> float:
    """Smaller for rates near 0.01 and for loss b."""
    return abs(float(trial.values["model.lr"]) - 0.01) * 10 + (trial.values["model.loss"] == "a")


def end(trial: ClaimedTrial) -> dict[str, str]:
    with trial.owner:
        trial.tell(TrialState.COMPLETE, score(trial))
    return trial.values


def all_values(study: SearchStudy) -> list[dict[str, str]]:
    return [end(trial) for trial in iter(study.claim, None)]


def test_values_depend_on_the_seed_alone(opened: Callable[..., SearchStudy]) -> None:
    first = all_values(opened("one"))
    assert len(first) == TRIALS
    assert len({values["model.lr"] for values in first}) == TRIALS
    assert all_values(opened("two")) == first
    assert all_values(opened("three", seed=1)) != first


def test_an_interrupted_search_tries_the_same_values(opened: Callable[..., SearchStudy]) -> None:
    """The process dies in each trial: before its values are chosen, after the first of them, and after the last."""
    expected, found = all_values(opened("whole")), []
    for number in range(TRIALS):
        study = opened("parts")
        if number % 3 == 0:
            died = study.claim()
            assert died is not None
            died.owner.close()
        else:
            study.study.sampler = study._sampler(number, 0)
            trial = study.study.ask()
            if number % 3 == 1:
                SPACE[0].suggest(trial)
        trial_again = opened("parts").claim()
        assert trial_again is not None
        assert trial_again.number == number
        found.append(end(trial_again))
    assert opened("parts").claim() is None
    assert found == expected


def test_two_processes_share_the_trials(opened: Callable[..., SearchStudy]) -> None:
    one, other = opened(trials=3), opened(trials=3)
    first, second, third = one.claim(), other.claim(), one.claim()
    assert all((first, second, third))
    assert [trial.number for trial in (first, second, third)] == [0, 1, 2]
    assert len({trial.values["model.lr"] for trial in (first, second, third)}) == 3
    assert other.claim() is None  # all have begun, and their processes live
    second.owner.close()
    taken = one.claim()
    assert taken is not None
    assert (taken.number, taken.values) == (1, second.values)


def test_the_table_and_the_files(opened: Callable[..., SearchStudy]) -> None:
    study = opened(trials=5)
    for scores, state, facts in (
        ([9.0, 4.0, 5.0], TrialState.COMPLETE, {"seconds": 20.04, "images": 6400, "step": 2000}),
        ([8.0], TrialState.PRUNED, {"seconds": 7.0, "images": 1600, "step": 1000}),
        ([], TrialState.FAIL, {"seconds": 3.0, "images": None, "reason": "--x: no"}),
        ([6.0, float("nan"), 3.5], TrialState.COMPLETE, {"seconds": 25.6, "images": 9600, "step": 3000}),
    ):
        trial = study.claim()
        assert trial is not None
        for index, value in enumerate(scores):
            trial.trial.report(value, index)
        trial.record(**facts)
        run = trial.folder / "2026-01-01_00-00-00"
        run.mkdir()
        (run / "config.yaml").write_text(f"seed_everything: {trial.number}\nname: '0003'\nckpt_path: last\n")
        with trial.owner:
            trial.tell(state, trial.score() if state == TrialState.COMPLETE else None)
    assert study.claim() is not None
    rows = write_results(study, {"name": "digits"})
    assert [(row.number, row.state, row.score) for row in rows] == [
        (3, "complete", 3.5),
        (0, "complete", 4.0),
        (1, "pruned", 8.0),
        (2, "failed", None),
        (4, "running", None),
    ]
    lines = table_of(rows, SPACE).splitlines()
    assert lines[0].split() == ["trial", "score", "state", "lr", "loss", "batch_size", "step", "seconds", "images"]
    assert lines[1].split()[:3] == ["3", "3.5000", "complete"]
    assert lines[1].split()[-3:] == ["3,000", "26", "9,600"]
    assert lines[-1] == "Trial 2 failed: --x: no"
    written = (study.folder / "trials.csv").read_text().splitlines()
    assert written[0] == "number,score,state,step,seconds,images,model.lr,model.loss,data.batch_size,run,reason"
    assert written[2].startswith("0,4.0,complete,2000,20.0,6400,")
    assert written[2].endswith(",trials/0000/2026-01-01_00-00-00,")
    assert (study.folder / "best.yaml").read_text() == (
        "# Trial 3 of a search: val_judge_fid 3.5000 at step 3000\nseed_everything: 3\nname: digits\nckpt_path: null\n"
    )
    assert (study.folder / "search.png").read_bytes().startswith(b"\x89PNG")
    assert not list(study.folder.glob(".*"))


def test_the_front_is_what_no_other_trial_beats() -> None:
    points = [(3.0, 5.0), (1.0, 9.0), (2.0, 5.0), (4.0, 1.0), (5.0, 2.0), (1.0, 10.0)]
    assert pareto_front(points) == [(1.0, 9.0), (2.0, 5.0), (4.0, 1.0)]
    assert pareto_front([]) == []


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    assert short_names(["model.loss", "data.batch_size"]) == ["loss", "batch_size"]
    assert short_names(["model.generator_optimizer.lr", "model.discriminator_optimizer.lr"]) == [
        "generator_optimizer.lr",
        "discriminator_optimizer.lr",
    ]


def test_a_search_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    settings = {"config": {"trainer": {"max_steps": 60}}, "space": {"model.loss": ["a", "b"]}, "seed": 0, "prune": True}
    check_settings(folder, settings)
    check_settings(folder, settings)
    for change, message in (
        ({"config": {"trainer": {"max_steps": 70}}}, "with config.trainer.max_steps 60, got 70"),
        ({"space": {"model.loss": ["a"]}}, 'with space.model.loss ["a", "b"], got ["a"]'),
        ({"seed": 3}, "with seed 0, got 3"),
        ({"space": {}}, "with space null, got {}"),
    ):
        with pytest.raises(UsageError) as raised:
            check_settings(folder, {**settings, **change})
        expected = f"--out: expected the search that began in {folder}, {message}"
        assert str(raised.value) == f"{expected}; give the same again, or name another folder"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError) as raised:
        check_settings(tmp_path, {"seed": 0})
    expected = "expected a new folder, or that of a search"
    assert str(raised.value) == f"--out: {expected}, got {tmp_path}, which holds something else; name another"
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_study_is_one_line(tmp_path: Path, opened: Callable[..., SearchStudy]) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="^--out: expected a study that Optuna reads, got .*study.db .*; name another"):
        opened()


def test_a_path_may_have_any_characters(opened: Callable[..., SearchStudy], tmp_path: Path) -> None:
    study = opened("50% of # 1? ä")
    assert study.claim() is not None
    with sqlite3.connect(tmp_path / "50% of # 1? ä" / "study.db") as database:
        assert database.execute("select count(*) from trials").fetchone() == (1,)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
