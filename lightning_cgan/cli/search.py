"""The command `search`: runs `fit` again and again with other values of some options, and finds the best."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import get_loader

from lightning_cgan.cli.label_options import MODE
from lightning_cgan.cli.shipped import check_keys
from lightning_cgan.core.errors import TrainingError, UsageError, check_positive, extra, reason_of
from lightning_cgan.core.output_paths import check_writable
from lightning_cgan.search.locks import check_platform
from lightning_cgan.search.space import Varied, check_is_file, plain_name, read_space

if TYPE_CHECKING:
    from lightning_cgan.cli.trial_configs import TrialConfigs
    from lightning_cgan.search.results import Row

_OURS = ("name", "runs_dir", "ckpt_path")


def search(
    space: str | None = None,
    trials: int = 20,
    out: str | None = None,
    seed: int = 0,
    prune: bool = True,
    fit_options: Sequence[str] = (),
) -> None:
    """Runs `fit`, with all further options given, for values of options that Optuna chooses, and finds the best.

    Further options are those of `fit`, such as `--config mnist_quick --trainer.max_steps 1000`. The score is the
    smallest `val_judge_fid` of a run, as for its `best.ckpt`; the test split is never read. A search that was stopped
    or killed goes on with the same command, also in the middle of a trial. The same command, given several times at
    once, shares the trials among its processes.

    Args:
        space: A YAML file with the options that vary, named as in a config or on the command line. Each has a list of
            values, such as `data.batch_size: [32, 64]`, or a range, such as `model.generator_optimizer.lr: {low:
            0.0005, high: 0.004, log: true}`, which may have a `step`. A range between whole numbers has whole numbers.
        trials: The number of trials, those of earlier commands and of other processes included.
        out: The folder of the search; `searches/` with the name of the config if not given.
        seed: Determines which values are tried.
        prune: Whether to stop trials early whose scores so far are worse than the median of complete ones; `--no_prune`
            turns it off.
        fit_options: The options of `fit`.
    """
    check_platform()
    file = check_is_file(space)
    with extra("search"):
        import optuna  # noqa: F401
    check_positive("--trials", trials)
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed: expected a number from 0 to {2**32 - 1}, got {seed}; give another")
    varied = read_space(str(file), _content(file))
    _check_options(fit_options, varied)
    from lightning_cgan.cli.trial_configs import TrialConfigs  # imports Lightning, which takes seconds

    configs = TrialConfigs(fit_options)
    folder = Path(out or f"searches/{configs.name}")
    check_writable(folder, "--out")
    configs.check(varied, str(file))
    _search(configs, varied, folder, trials, seed, prune, _command(file, folder, trials, seed, prune, fit_options))


def _search(
    configs: TrialConfigs, space: list[Varied], folder: Path, trials: int, seed: int, prune: bool, command: str
) -> None:
    from optuna.exceptions import StorageInternalError

    from lightning_cgan.search.results import table_of, write_results
    from lightning_cgan.search.study import SearchStudy, check_settings
    from lightning_cgan.search.worker import Worker

    described = {varied.name: varied.described() for varied in space}
    check_settings(folder, {"config": configs.base, "space": described, "seed": seed, "prune": prune})
    study = SearchStudy(folder, space, trials, seed, prune)
    try:
        stopped_by = Worker(study, configs.fit_options, configs.outside).work()
        with study.mutex():
            rows = write_results(study, configs.outside)
    except StorageInternalError as error:
        said = f"{folder / 'study.db'} cannot be written or read ({reason_of(error.__cause__ or error)})"
        raise TrainingError(f"{said}; make room, and go on with: {command}") from error
    if stopped_by is not None:
        print(f"Stopped. To go on with the search:\n  {command}")
        raise SystemExit(128 + stopped_by)
    print(table_of(rows, space))
    _print_end(rows, folder, trials)


def _print_end(rows: Sequence[Row], folder: Path, trials: int) -> None:
    if running := sum(row.state == "running" for row in rows):
        print(f"{running} of {trials} trials run in other processes, the last of which prints the whole table")
    print(f"Table: {folder / 'trials.csv'}")
    if (folder / "search.png").exists():
        print(f"Picture: {folder / 'search.png'}")
    if (folder / "best.yaml").exists():
        config = shlex.quote(str(folder / "best.yaml"))
        print(f"To repeat the best trial:\n  python -m lightning_cgan fit --config {config}")
    elif not running:
        raise TrainingError(
            f"none of {len(rows)} trials has a score; the reasons are above, and log.txt of a trial has more"
        )


def _content(file: Path) -> Any:
    check_keys(file, "--space")
    try:
        # As configs are read: 1e-4 is a number, and class names stay text.
        return get_loader(MODE)(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        got = " ".join(str(error).split())
        raise UsageError(f"--space: expected YAML in {file}, got something else ({got}); correct it") from error


def _check_options(fit_options: Sequence[str], space: Sequence[Varied]) -> None:
    """Refuses options of `fit` that a search sets itself, and those that are in the space as well."""
    given = {plain_name(arg.partition("=")[0]) for arg in fit_options if arg.startswith("--")}
    for name in _OURS:
        if name in given:
            expected = "expected to be omitted, since a search sets it for each trial"
            raise UsageError(f"--{name}: {expected}; --out names the folder of a search")
    for varied in space:
        if varied.name in given:
            expected = "expected options that the command line does not set"
            raise UsageError(f"--space: {expected}, got {varied.name}, which both set; remove one of them")


def _command(file: Path, folder: Path, trials: int, seed: int, prune: bool, fit_options: Sequence[str]) -> str:
    """The command that goes on with a search."""
    own = ["--space", str(file), "--trials", str(trials), "--out", str(folder)]
    own += ["--seed", str(seed)] * bool(seed) + ["--no_prune"] * (not prune)
    return shlex.join(["python", "-m", "lightning_cgan", "search", *fit_options, *own])
