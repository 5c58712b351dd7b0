"""The command `search`: what it makes, that it goes on after any interruption, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.commands import Forked, Typed
from helpers.paths import ROOT
from helpers.run_files import all_rows
from lightning_cgan.cli.main import main
from lightning_cgan.search.locks import try_lock

QUICK = (
    *("--config", "digits", "--data.image_size", "8", "--trainer.accelerator", "cpu", "--scores.images", "200"),
    *("--trainer.max_steps", "60", "--trainer.check_val_every_n_epoch", "1", "--checkpoints.every_n_train_steps", "10"),
)
SPACE = """
model.generator_optimizer.lr: {low: 0.0003, high: 0.01, log: true}
model.loss: [NonSaturating, Hinge]
"""
OF_TIME = ("seconds", "run")  # columns that no two searches have in common


@pytest.fixture(autouse=True)
def _space(_alone: None) -> None:
    Path("space.yaml").write_text(SPACE)


def table(folder: str) -> list[dict[str, str]]:
    with Path(folder, "trials.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in OF_TIME} for row in csv.DictReader(file)]


def scores_of(run: Path) -> list[float]:
    return [float(row["val_judge_fid"]) for row in all_rows(run) if row["val_judge_fid"]]


def run_of(folder: str, trial: int) -> Path:
    (run,) = (child for child in Path(folder, "trials", f"{trial:04d}").iterdir() if child.is_dir())
    return run


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(trial: Path) -> bool:
    """Whether a process of the trial's run lives: it holds the lock of this file."""
    lock = try_lock(trial / "run.lock")
    if lock is not None:
        lock.close()
    return lock is None


def supervisor_of(trial: Path) -> int:
    """The id of the process that watches over the run of a trial, and leads its group."""
    shown = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    (found,) = (line for line in shown.splitlines() if "supervisor.py" in line and f"--runs_dir {trial.parent}" in line)
    return int(found.split()[0])


def test_a_trial_is_a_run_and_its_config_repeats_it(capfd: pytest.CaptureFixture[str]) -> None:
    main(["search", *QUICK, "--space", "space.yaml", "--trials", "1", "--trainer.max_steps", "25"])
    (row,) = table("searches/digits")
    run = run_of("searches/digits", 0)
    scores = scores_of(run)
    assert (row["number"], row["state"], float(row["score"])) == ("0", "complete", min(scores))
    assert row["images"] == str(25 * 64)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["generator_optimizer"]["init_args"]["lr"] == float(row["model.generator_optimizer.lr"])
    assert config["model"]["loss"]["class_path"] == f"lightning_cgan.{row['model.loss']}"
    shown = capfd.readouterr().out.splitlines()
    assert shown[0] == (
        f"Trial 0: model.generator_optimizer.lr={row['model.generator_optimizer.lr']}  model.loss={row['model.loss']}"
    )
    assert shown[-1] == "  python -m lightning_cgan fit --config searches/digits/best.yaml"
    main(["fit", "--config", "searches/digits/best.yaml"])
    (again,) = Path("runs/digits").iterdir()
    assert scores_of(again) == scores


@pytest.mark.ci
@pytest.mark.parametrize("also_the_run", [False, True])
def test_a_killed_search_ends_as_one_that_was_not(also_the_run: bool) -> None:
    """With `also_the_run`, all processes die at once, as where a machine loses its power."""
    command = ("search", *QUICK, "--space", "space.yaml", "--trials", "3")
    with Forked(*command, "--out", "whole") as whole:
        shown = whole.wait()
        assert whole.returncode == 0, shown
    trial = Path("parts/trials/0001")
    with Forked(*command, "--out", "parts") as killed:
        wait_for(lambda: any(trial.glob("*/checkpoints/last.ckpt")))
        supervisor = supervisor_of(trial)
        killed.send_signal(signal.SIGKILL)
        if also_the_run:
            os.killpg(supervisor, signal.SIGKILL)
    with Forked(*command, "--out", "parts") as resumed:
        shown = resumed.wait()
        assert resumed.returncode == 0, shown
    assert shown.startswith("Trial 1: ")
    assert table("parts") == table("whole")
    for number in range(3):
        assert scores_of(run_of("parts", number)) == scores_of(run_of("whole", number))
    log = (trial / "log.txt").read_text()
    assert len(re.findall(r"^\$ python -m lightning_cgan fit ", log, re.MULTILINE)) == 2
    assert re.search(r"^--ckpt_path last: parts/trials/0001/.*last\.ckpt$", log, re.MULTILINE)
    best = [yaml.safe_load(Path(folder, "best.yaml").read_text()) for folder in ("parts", "whole")]
    assert best[0] == best[1]


@pytest.mark.ci
def test_a_killed_search_leaves_no_run_behind() -> None:
    with Forked("search", *QUICK, "--space", "space.yaml", "--trainer.max_steps", "100000", "--out", "s") as killed:
        trial = Path("s/trials/0000")
        wait_for(lambda: any(trial.glob("*/checkpoints/last.ckpt")))
        assert is_alive(trial)
        killed.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(trial), 60)
    assert "Stopped at step " in (trial / "log.txt").read_text()


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_search_which_says_how_to_go_on(number: signal.Signals) -> None:
    command = ("search", *QUICK, "--space", "space.yaml", "--trials", "1", "--out", "a search")
    with Forked(*command, "--trainer.max_steps", "300") as stopped:
        trial = Path("a search/trials/0000")
        wait_for(lambda: any(trial.glob("*/checkpoints/last.ckpt")))
        stopped.send_signal(number)
        shown = stopped.wait()
        assert stopped.returncode == 128 + number
    assert not is_alive(trial)
    options = " ".join([*QUICK, "--trainer.max_steps", "300"])
    own = "--space space.yaml --trials 1 --out 'a search'"
    assert shown.splitlines()[-2:] == [
        "Stopped. To go on with the search:",
        f"  python -m lightning_cgan search {options} {own}",
    ]
    with Forked(*command, "--trainer.max_steps", "300") as resumed:
        assert "Trial 0: val_judge_fid " in resumed.wait()
        assert resumed.returncode == 0
    (row,) = table("a search")
    assert (row["state"], row["images"]) == ("complete", str(300 * 64))


@pytest.mark.ci
def test_two_processes_do_each_trial_once_and_a_third_only_prints() -> None:
    command = ("search", *QUICK, "--space", "space.yaml", "--trials", "4", "--out", "s")
    with Forked(*command) as one, Forked(*command) as other:
        shown = [one.wait(), other.wait()]
        assert (one.returncode, other.returncode) == (0, 0), shown
    begun = [re.findall(r"^Trial (\d): model", text, re.MULTILINE) for text in shown]
    assert all(begun)
    assert sorted(begun[0] + begun[1]) == ["0", "1", "2", "3"]
    rows = table("s")
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert len({row["model.generator_optimizer.lr"] for row in rows}) == 4
    for number in range(4):
        assert (Path("s/trials") / f"{number:04d}" / "log.txt").read_text().count("$ python -m") == 1
    with Forked(*command) as third:
        lines = third.wait().splitlines()
        assert third.returncode == 0
    assert lines[0].split()[:3] == ["trial", "score", "state"]
    assert table("s") == rows


@pytest.mark.ci
def test_a_hopeless_trial_is_pruned() -> None:
    """One whose generator does not learn: images of its initial weights have scores near 48, others reach 10."""
    Path("space.yaml").write_text("model.generator_optimizer.lr: [0.004, 0.005, 0.006, 1.0e-12]\n")
    command = (
        "search",
        *QUICK,
        "--model.discriminator_optimizer.lr",
        "0.003",
        "--space",
        "space.yaml",
        "--trials",
        "7",
    )
    longer = ("--trainer.max_steps", "160", "--trainer.check_val_every_n_epoch", "2", "--out", "s")
    with Forked(*command, *longer) as search:
        shown = search.wait(900)
        assert search.returncode == 0, shown
    rows = table("s")
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert float(rows[0]["score"]) < 20
    hopeless = [row for row in rows if row["model.generator_optimizer.lr"] == "1e-12" and int(row["number"]) >= 5]
    assert hopeless
    for row in hopeless:
        assert row["state"] == "pruned"
        assert int(row["images"]) < 160 * 64
        assert "Stopped at step " in Path("s/trials", f"{int(row['number']):04d}", "log.txt").read_text()
    with sqlite3.connect("s/study.db") as database:
        counts = dict(database.execute("select trial_id, count(*) from trial_intermediate_values group by trial_id"))
    for row in rows:
        validations = counts[int(row["number"]) + 1]
        assert validations == 4 if row["state"] == "complete" else validations < 4


OWN_DATA = """
from lightning_cgan import DigitsData

class NoTest(DigitsData):
    def read(self, split):
        assert split == "train", "the test split is read"
        return super().read(split)
"""


@pytest.mark.ci
def test_the_test_split_is_never_read() -> None:
    Path("own_data.py").write_text(OWN_DATA)
    command = ("search", *QUICK, "--data", "own_data.NoTest", "--data.image_size", "8", "--space", "space.yaml")
    with Typed(*command, "--trials", "1", "--out", "s") as search:  # which finds modules in its folder
        shown = search.wait()
        assert search.returncode == 0, shown
    (row,) = table("s")
    assert row["state"] == "complete"
    (run,) = Path("s/trials/0000").glob("*/checkpoints/last.ckpt")
    with Typed("test", "--config", "s/best.yaml", "--ckpt_path", str(run)) as test:
        assert "the test split is read" in test.wait()  # so the data set would have told


@pytest.mark.ci
def test_a_trial_that_fails_is_one_row_and_the_search_goes_on() -> None:
    Path("space.yaml").write_text("data.batch_size: [64, 32]\nmodel.generator_accumulation: [1, 5]\n")
    command = ("search", *QUICK, "--space", "space.yaml", "--trials", "3", "--out", "s")
    with Forked(*command) as search:
        shown = search.wait()
        assert search.returncode == 0, shown
    rows = table("s")
    assert {row["state"] for row in rows} == {"complete", "failed"}
    for row in rows:
        assert (row["state"] == "failed") == (row["model.generator_accumulation"] == "5")
        assert (
            row["reason"].startswith("generator_accumulation: expected ")
            if row["state"] == "failed"
            else not row["reason"]
        )


@pytest.mark.ci
def test_trials_that_all_fail_end_the_search() -> None:
    command = ("search", *QUICK, "--space", "space.yaml", "--trials", "9", "--out", "s", "--data", "MNISTData")
    with Forked(*command, "--data.data_dir", "/dev/null/x") as search:
        shown = search.wait()
        assert search.returncode == 2
    assert shown.splitlines()[-1].startswith("error: /dev/null/x: Not a directory; give a folder")
    assert [row["state"] for row in table("s")] == ["failed"] * 2


BEGIN = ("search", *QUICK, "--space", "space.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", *QUICK), "--space: expected a YAML file with the options to search, got none; --help describes it"),
        (("search", *QUICK, "--space", "spase.yaml"), "--space: no such file: spase.yaml; did you mean space.yaml?"),
        ((*BEGIN, "--trials", "0"), "--trials: expected 1 or more, got 0; give a positive number"),
        ((*BEGIN, "--trials", "x"), "--trials: expected int, got x"),
        ((*BEGIN, "--seed", "-1"), "--seed: expected a number from 0 to 4294967295, got -1; give another"),
        ((*BEGIN, "--name", "x"), "--name: expected to be omitted, since a search sets it for each trial; --out names the folder of a search"),
        ((*BEGIN, "--ckpt_path=x"), "--ckpt_path: expected to be omitted, since a search sets it for each trial; --out names the folder of a search"),
        ((*BEGIN, "--model.loss", "Hinge"), "--space: expected options that the command line does not set, got model.loss, which both set; remove one of them"),
        ((*BEGIN, "--scores.images", "0"), "--scores.images: expected a run that has scores and keeps them, got 0; omit it"),
        ((*BEGIN, "--trainer.logger", "false"), "--trainer.logger: expected a run that has scores and keeps them, got false; omit it"),
        ((*BEGIN, "--trainer.fast_dev_run", "true"), "--trainer.fast_dev_run: expected a run that has scores and keeps them, got true; omit it"),
        ((*BEGIN, "--out", "space.yaml"), "--out: expected a folder to write to, got space.yaml, which is not a writable folder; name another"),
        ((*BEGIN, "--trails", "3"), "--trails: no such option; did you mean --trainer?"),
    ],
)  # fmt: skip
def test_bad_options(arguments: tuple[str, ...], message: str, fails: Callable[..., str]) -> None:
    assert fails(*arguments) == f"error: {message}"
    assert sorted(os.listdir()) == ["space.yaml"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("model.lose: [Hinge]", "space.yaml: --model.lose: no such option; did you mean --model.loss?"),
        ("model.loss: [Hinge, Hing]", "space.yaml: --model.loss: expected the name of a class, got Hing; did you mean Hinge?"),
        ("data.batch_size: {low: 0, high: 8}", "space.yaml: --data.batch_size: expected 1 or more, got 0; give a positive number"),
        ("data.batch_size: [8, many]", "space.yaml: --data.batch_size: expected int, got many"),
        ("data.batch_size: {low: 8.0, high: 9.5}", "space.yaml: --data.batch_size: expected int, got 8.0"),
        ("x: 1\nx: 2", "expected each option once in space.yaml, got x in lines 1 and 2; remove one of them"),
    ],
)  # fmt: skip
def test_bad_spaces(space: str, message: str, fails: Callable[..., str]) -> None:
    Path("space.yaml").write_text(space)
    assert fails(*BEGIN) == f"error: --space: {message}"
    assert sorted(os.listdir()) == ["space.yaml"]


def test_a_space_that_is_no_yaml(fails: Callable[..., str]) -> None:
    Path("space.yaml").write_text("a: [1, 2")
    assert re.fullmatch(
        r"error: --space: expected YAML in space\.yaml, got something else \(.*\); correct it", fails(*BEGIN)
    )


def test_without_optuna(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    expected = 'optuna: expected this package to be installed, got none; pip install "lightning_cgan[search]"'
    assert fails(*BEGIN) == f"error: {expected}"


def test_another_search_in_the_folder(fails: Callable[..., str]) -> None:
    Path("s").mkdir()
    Path("s/search.lock").touch()
    Path("s/settings.json").write_text(json.dumps({"seed": 7}))
    message = fails(*BEGIN, "--out", "s")
    assert message.startswith("error: --out: expected the search that began in s, with config.")


def test_the_space_of_the_page_fits_its_command() -> None:
    """As far as the first trial: its first process is killed."""
    page = (ROOT / "docs" / "search.md").read_text()
    (space,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[:1]
    Path("space.yaml").write_text(space)
    (command,) = re.findall(r"^python -m lightning_cgan (search .*--config digits.*)$", page, re.MULTILINE)[:1]
    with Forked(*command.split()) as search:
        assert search.readline().startswith("Trial 0: ")
