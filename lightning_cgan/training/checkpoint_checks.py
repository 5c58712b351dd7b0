"""Validate the checkpoint entries that Lightning and PyTorch load unchecked."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.core.schema import check_schema
from lightning_cgan.training.contract import ROLES
from lightning_cgan.training.numerics import check_numerics


def entry_of(checkpoint: Any) -> dict[str, Any]:
    """Returns the module's own entry in a checkpoint, which must have one."""
    entry = checkpoint.get("lightning_cgan") if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UsageError("the checkpoint: expected one that a ConditionalGAN wrote, got another; name such a file")
    return entry


def check_progress(checkpoint: dict[str, Any]) -> None:
    """Rejects a checkpoint from which no fit can resume."""
    if "optimizer_states" not in checkpoint and "lr_schedulers" not in checkpoint:
        raise UsageError(
            "--ckpt_path: expected a checkpoint to resume from, got one with weights only (save_weights_only); name "
            "another, or start a run with these weights: load_from_checkpoint, then fit without ckpt_path"
        )
    check_schema({"epoch": 1, "global_step": 1}, checkpoint, "its content")  # numbers, of any value


def check_form(checkpoint: dict[str, Any], expected: Sequence[dict[str, Any]], schedulers: int, remedy: str) -> None:
    """Checks the numbers of optimizers, parameter groups and schedulers."""
    groups = [{"param_groups": [{"params": of["params"]} for of in state["param_groups"]]} for state in expected]
    check_schema(groups, checkpoint.get("optimizer_states"), "optimizer_states", exact=False, remedy=remedy)
    check_schema([{}] * schedulers, checkpoint.get("lr_schedulers"), "lr_schedulers", remedy=remedy)
    if len(checkpoint["lr_schedulers"]) > schedulers:
        raise UsageError(f"the checkpoint: expected no lr_schedulers, got {len(checkpoint['lr_schedulers'])}; {remedy}")


def check_states(checkpoint: dict[str, Any], expected: Sequence[dict[str, Any]], schedulers: Any, remedy: str) -> None:
    """Validates the states of optimizers and schedulers, which PyTorch loads unchecked."""
    check_schema(schedulers, checkpoint["lr_schedulers"], "lr_schedulers", exact=False, remedy=remedy)
    for number, state in enumerate(expected):
        saved, name = checkpoint["optimizer_states"][number], f"optimizer_states.{number}"
        check_schema({}, saved.get("state"), f"{name}.state")
        if state["state"] is None:
            continue
        check_schema(state["param_groups"], saved["param_groups"], f"{name}.param_groups", False, remedy)
        for index, values in saved["state"].items():  # a parameter without gradients has no state
            check_schema(state["state"].get(index, "nothing"), values, f"{name}.state.{index}", False, remedy)


def check_loops(trainer: Trainer, saved: Any) -> None:
    """Validates the counters of Lightning's loops, which it loads unchecked."""
    check_schema({"fit_loop": {}}, saved, "loops")
    for name in saved.keys() & {"fit_loop", "validate_loop", "test_loop", "predict_loop"}:
        expected, found = getattr(trainer, name).state_dict(), saved[name]
        counts = found.get("state_dict") if isinstance(found, dict) else None
        if isinstance(counts, dict) and "combined_loader" not in counts:  # saved before there was a loader
            expected["state_dict"].pop("combined_loader", None)
        check_schema(expected, found, f"loops.{name}")


def check_entry(state: dict[str, Any]) -> None:
    """Validates the module's own entry; see `entry_of`."""
    counts = dict.fromkeys(ROLES, 1)
    has_no_seed = "seed" in state and state["seed"] is None  # a module that was never trained
    expected: dict[str, Any] = {
        "seed": None if has_no_seed else 1,
        "images_seen": 1,
        "skipped_steps": counts,
        "running_means": {"sums": {}, "counts": {}},
    }
    check_schema(expected, state, "lightning_cgan")
    check_schema({}, state.get("data") or {}, "lightning_cgan.data")
    if state.get("numerics") is not None:
        check_numerics(state["numerics"])
    means = state["running_means"]
    check_schema(dict.fromkeys(means["sums"], 1), means["counts"], "lightning_cgan.running_means.counts")
    for name, sums in means["sums"].items():
        shape = sums.shape if isinstance(sums, Tensor) and sums.ndim < 2 else (1,)
        check_schema(torch.zeros(shape), sums, f"lightning_cgan.running_means.sums.{name}")


def check_classes(saved: Any, now: Sequence[str] | None) -> None:
    """Checks that the data has the classes of the model; older checkpoints do not name theirs."""
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved) or now is None:
        return
    if saved != list(now):
        expected, got = (shorten(", ".join(names), 200, placeholder=" …") for names in (saved, now))
        raise UsageError(
            f"--data.classes: expected those of the checkpoint, {expected}, got {got}; name the former, in that order"
        )


def compare_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns if a run resumes with different data: possibly intended, but hard to notice otherwise."""
    differing = [f"{name} {saved[name]}, got {now[name]}" for name in saved if name in now and saved[name] != now[name]]
    if differing:
        found = printable("; ".join(differing), 500)
        rank_zero_warn(f"--data: expected what the checkpoint was trained with, {found}; resuming anyway")
