"""Imports go one way, and some rooms are plain PyTorch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import lightning_cgan

PACKAGE = Path(lightning_cgan.__file__).parent

# What each room may import of the package, beside itself; the ground floor is open to all.
GROUND = {"errors", "chance", "gradients", "rebuildable", "images", "keeping", "kinds", "names"}
MAY_IMPORT = {
    "errors": set(),
    "chance": set(),
    "gradients": set(),
    "images": set(),
    "rebuildable": set(),
    "averaging": set(),
    "distributed": {"errors"},
    "configured": {"errors"},
    "hyperparameters": {"configured", "errors"},
    "manual_optimization": {"errors"},
    "run": GROUND | {"metrics_file"},
    "keeping": set(),
    "kinds": {"errors"},
    "names": {"errors"},
    "checkpoint_io": GROUND,
    "metrics_file": GROUND,
    "launchers": {"errors"},
    "hints": set(),
    "options": set(),
    "shipped": {"errors"},
    "trainer_messages": {"hints"},
    "messages": GROUND | {"hints", "options", "shipped"},
    "console": GROUND | {"launchers", "run", "trainer_messages"},
    "losses": GROUND,
    "augmentations": GROUND,
    "networks": GROUND,
    "penalties": GROUND | {"networks"},
    "buildable": GROUND | {"augmentations", "losses", "networks", "penalties"},
    "building": GROUND | {"buildable"},
    "data": GROUND,
    "class_options": set(),
    "config_files": set(),
    "parser": GROUND | {"class_options", "config_files", "hints", "messages", "options", "shipped", "trainer_messages"},
    "sampling": GROUND | {"averaging", "networks"},
    "pretrained": GROUND | {"building", "networks", "sampling"},
    "rounds": GROUND | {"augmentations", "distributed", "networks"},
    "batches": GROUND | {"networks"},
    "training_batches": GROUND | {"batches", "distributed", "networks", "rounds"},
    "objectives": GROUND | {"losses", "networks", "penalties", "rounds"},
    "hooks": GROUND,
    "dependencies": GROUND | {"hooks"},
    "adam": GROUND,
    "recording": GROUND | {"dependencies"},
    "capture": GROUND | {"adam", "dependencies", "networks", "objectives", "penalties", "recording", "rounds"},
    "machine": GROUND | {"networks"},
    "engine": GROUND | {"configured", "distributed", "networks", "manual_optimization"},
    "graphs": GROUND | {"adam", "capture", "engine", "machine", "networks", "objectives", "reporting", "rounds"},
    "reporting": set(),
    "numerics": GROUND,
    "progress": GROUND,
    "checkpoint_checks": GROUND | {"engine", "numerics"},
    "resuming": GROUND
    | {
        "building",
        "checkpoint_checks",
        "configured",
        "engine",
        "graphs",
        "hyperparameters",
        "networks",
        "numerics",
        "progress",
    }
    | {"reporting", "rounds"},
    "spawning": GROUND | {"engine", "resuming"},
    "evaluation_steps": GROUND | {"losses", "networks", "sampling", "spawning", "training_batches"},
    "module": GROUND
    | {"augmentations", "averaging", "engine", "graphs", "losses", "networks", "objectives", "penalties"}
    | {"evaluation_steps", "rounds", "training_batches"},
    "evaluation": GROUND | {"augmentations", "data", "machine"},
    "callbacks": GROUND | {"data", "evaluation", "metrics_file", "run"},
    "choosing": GROUND | {"checkpoint_io", "machine", "networks", "numerics"},
    "generating": GROUND | {"checkpoint_io", "data", "module", "run"},
    "exporting": GROUND | {"checkpoint_io", "generating", "networks", "pretrained", "run", "sampling"},
    "demo": GROUND | {"exporting", "generating"},
    "__init__": None,
    "__main__": None,
    "cli": None,  # knows all
}
PLAIN_TORCH = GROUND | {
    "augmentations",
    "averaging",
    "batches",
    "building",
    "capture",
    "distributed",
    "hyperparameters",
    "losses",
    "machine",
    "networks",
}
PLAIN_TORCH |= {"adam", "dependencies", "hooks", "recording"}
PLAIN_TORCH |= {"objectives", "penalties", "pretrained", "rounds", "sampling", "training_batches"}


def imports(file: Path) -> set[str]:
    """The dotted names that a file imports, at its top and inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_go_one_way() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        room = room_of(file)
        allowed = MAY_IMPORT[room]
        for name in imports(file):
            top, _, rest = name.partition(".")
            if top == "lightning_cgan" and allowed is not None:
                assert rest.split(".")[0] in allowed | {room}, f"{file} imports {name}"
            if room in PLAIN_TORCH:
                assert top not in ("lightning", "pytorch_lightning"), f"{file} imports {name}"


def test_package_and_help_do_not_wait_for_torch() -> None:
    code = "import sys, lightning_cgan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for option in ("--help", "-h", "--version"):
        code = (
            f"import sys; sys.argv = ['lightning_cgan', {option!r}]; "
            "from lightning_cgan.__main__ import main; main(); assert 'torch' not in sys.modules"
        )
        shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert shown.startswith("usage: " if "h" in option else lightning_cgan.__version__)


def test_every_public_name_can_be_had() -> None:
    assert "ConditionalGAN" in dir(lightning_cgan)
    for name in lightning_cgan.__all__:
        assert getattr(lightning_cgan, name) is not None
