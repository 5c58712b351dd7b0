"""The checkpoints of `--ckpt_path`: one, or for `test` and `predict` several whose generators take turns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_cgan.core.errors import UsageError, no_such_file, printable
from lightning_cgan.export.source import load_checkpoint
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.networks.sampler import Sampler
from lightning_cgan.runs.folder import newest_checkpoint

OPTION = "--ckpt_path"
TAKE_SEVERAL = ("test", "predict")
HELP = (
    "The checkpoint: a path, or `last` for the newest one of the runs with this name. `test` and `predict` also take a "
    "list of several in brackets, or a pattern in quotes such as 'runs/mnist/*/checkpoints/last.ckpt': their "
    "generators take turns."
)


def find_checkpoints(given: Sequence[str], subcommand: str, runs_dir: str, name: str) -> list[str]:
    """Finds the files that paths, patterns (in alphabetical order) and `last` stand for.

    Raises:
        UsageError: There is no such file, or the command does not take as many.
    """
    found: list[str] = []
    for path in given:
        found += _files_of(path, subcommand, runs_dir, name)
    if not found and subcommand != "fit":
        raise UsageError(f"{OPTION}: expected a checkpoint to {subcommand}, got none; name one")
    if len(found) > 1 and subcommand not in TAKE_SEVERAL:
        remedy = f"name one; {' and '.join(TAKE_SEVERAL)} take several"
        raise UsageError(f"{OPTION}: expected one checkpoint to {subcommand}, got {len(found)}; {remedy}")
    places = [path if _is_remote(path) else str(Path(path).resolve()) for path in found]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{OPTION}: expected different checkpoints, got {found[number]} twice; name it once")
    return found


def _files_of(path: str, subcommand: str, runs_dir: str, name: str) -> list[str]:
    if path == "last":
        return _last(runs_dir, name, subcommand)
    if _is_remote(path):
        return [path]
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    if has_magic(path) and not Path(path).exists():
        found = sorted(file for file in glob(path, recursive=True) if Path(file).is_file())
        if not found:
            raise UsageError(f"{OPTION}: expected a pattern of files, got {path}, which none matches; check the path")
        return found
    # Also refuses Lightning's `best`, which needs a run in the same process.
    if not Path(path).is_file():
        if "," in path:
            raise UsageError(f"{OPTION}: no such file: {path}; write a list as '[a.ckpt, b.ckpt]', in brackets")
        raise UsageError(no_such_file(OPTION, path))
    return [path]


def _last(runs_dir: str, name: str, subcommand: str) -> list[str]:
    found, folder = newest_checkpoint(runs_dir, name), f"{runs_dir}/{name}"
    if found is None and subcommand != "fit":
        raise UsageError(f"{OPTION}: expected a run with a checkpoint in {folder}, got none; name a file")
    rank_zero_info(f"{OPTION} last: {found or f'no run in {folder} has a checkpoint; starting a new run'}")
    return [] if found is None else [str(found)]


def _is_remote(path: str) -> bool:
    return "://" in path


def take_turns(module: ConditionalGAN, paths: Sequence[str]) -> None:
    """Gives a module, into which the first checkpoint will be loaded, the generators of the others to take turns with.

    Each is built as its checkpoint says, so that their architectures may differ.

    Raises:
        UsageError: Their classes or images differ, two of them have the same weights, or a file has no generator.
    """
    if len(paths) < 2:
        return
    with torch.random.fork_rng([]):  # building networks samples weights
        samplers = [_load(path) for path in paths]
    for number, (path, sampler) in enumerate(zip(paths, samplers, strict=True)):
        for other_path, other in zip(paths[:number], samplers[:number], strict=True):
            _check_pair(other, other_path, sampler, path)
    module.origin, module.others = samplers[0].origin, tuple(samplers[1:])
    names = ", ".join(paths)
    rank_zero_info(f"{OPTION}: {len(paths)} generators take turns: {printable(names)}")


def _load(path: str) -> Sampler:
    """Loads the generator of a checkpoint, without its discriminator."""
    try:
        module = load_checkpoint(path)
    except UsageError as error:
        raise UsageError(f"{OPTION}: {str(error).removeprefix('source: ')}") from error
    sampler = Sampler()
    sampler.generator, sampler.generator_ema = module.generator, module.generator_ema
    sampler.latents, sampler.class_names = module.latents, module.class_names
    content = {} if _is_remote(path) else {"sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    sampler.origin = {**(module.origin or {}), **content}
    return sampler.eval()


def _check_pair(first: Sampler, first_path: str, second: Sampler, second_path: str) -> None:
    """Refuses generators of other classes or images, and one that is there twice."""
    if first.class_names != second.class_names:
        expected, got = (printable(", ".join(one.class_names), 200) for one in (first, second))
        raise UsageError(
            f"{OPTION}: expected generators of the same classes, {expected} as in {first_path}, got {got} in "
            f"{second_path}; name checkpoints with the same --data.classes"
        )
    expected, got = (" x ".join(map(str, one.generator.image_shape)) for one in (first, second))
    if expected != got:
        raise UsageError(
            f"{OPTION}: expected images of the same shape, {expected} as in {first_path}, got {got} in {second_path}; "
            "name checkpoints with the same --data.image_size and --data.image_channels"
        )
    states = [one.chosen_generator(ema=True).state_dict() for one in (first, second)]
    if states[0].keys() == states[1].keys() and all(torch.equal(states[0][key], states[1][key]) for key in states[0]):
        raise UsageError(
            f"{OPTION}: expected different generators, got the same weights in {first_path} and {second_path}; "
            "name one of them"
        )
