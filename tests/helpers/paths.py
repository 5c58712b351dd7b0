"""Where the repository has what tests read."""

from __future__ import annotations

from pathlib import Path

import lightning_cgan

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
SCRIPTS = ROOT / "scripts"
CONFIGS = ROOT / "configs"
DIGITS = str(CONFIGS / "digits.yaml")
PACKAGE = Path(lightning_cgan.__file__).parent

# Written by version 0.1.0 before a checkpoint described its data, after three steps; `images` is what its
# generator made then, of latents from -2 to 2 in equal steps.
OLD = str(TESTS / "checkpoints" / "format_3.ckpt")

# A decay that does not follow `--trainer.max_steps`: a run of fewer steps is then the beginning of one of more.
FIXED_DECAY = tuple(
    part for role in ("generator", "discriminator") for part in (f"--model.{role}_scheduler.total_iters", "3000")
)
