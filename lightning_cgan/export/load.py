"""Loading a checkpoint into a `ConditionalGAN`."""

from __future__ import annotations

from importlib import import_module

import torch

from lightning_cgan.core.errors import UsageError, reason_of
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO
from lightning_cgan.training.checkpointing import build_from


def load(checkpoint: str, imports: str | None = None, device: str = "auto") -> ConditionalGAN:
    """Loads the module of a checkpoint."""
    import_all(imports)
    chosen = check_device(device)
    try:
        read = AtomicCheckpointIO().load_checkpoint(checkpoint)
        module = build_from(ConditionalGAN, read).to(chosen)
    except UsageError as error:
        message = str(error).removeprefix("--ckpt_path: ").removeprefix("the checkpoint: ")
        raise UsageError(f"source: {message}") from error
    except Exception as error:  # the classes in a config raise many kinds of errors
        expected = "expected the checkpoint of a ConditionalGAN that this version can load"
        raise UsageError(f"source: {expected}, got {checkpoint} ({reason_of(error)}); name another") from error
    return module


def import_all(imports: str | None) -> None:
    """Imports the modules of `--imports`, which are separated by commas."""
    for name in imports.split(",") if imports else ():
        try:
            import_module(name)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--imports: cannot import {name}: {error}; check that it is installed") from error


def check_device(name: str) -> str:
    """The device of that name, or for `auto` the GPU if there is one; refuses one that this machine does not have."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        reason = str(error).partition("\n")[0]
        expected = "expected a device of this machine"
        raise UsageError(f"--device: {expected}, got {name} ({reason}); cpu is always available") from error
    return chosen
