"""Imports go one way, some rooms are plain PyTorch, and tests stand in the rooms that they test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import lightning_cgan
from helpers.paths import PACKAGE, TESTS

# What each room may import of the package, beside itself. A room is a folder, or a file beside the folders.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "networks": {"core"},
    "data": {"core"},
    "runs": {"core"},
    "objectives": {"core", "networks"},
    "training": {"core", "networks", "objectives"},
    "evaluation": {"core", "data", "objectives"},
    "module": {"core", "networks", "objectives", "training"},
    "callbacks": {"core", "data", "evaluation", "networks", "runs"},
    "search": {"callbacks", "core", "runs"},
    "export": {"core", "evaluation", "module", "networks", "runs", "training"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli", "core"}
MAY_IMPORT["__init__"] = set(MAY_IMPORT)  # which nothing imports
PLAIN_TORCH = {"core", "networks", "objectives", "export"}  # never import Lightning
FILES = sorted(PACKAGE.rglob("*.py"))
NO_ROOMS = {"helpers", "fuzz", "cluster", "checkpoints"}  # folders of tests/ that belong to no room


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The dotted names that statements import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def file_of(name: str) -> Path | None:
    """The file of the package that is read for an import of a dotted name: a module, or what a module defines."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


def test_imports_go_one_way() -> None:
    assert len(FILES) > 20
    assert {room_of(file) for file in FILES} == set(MAY_IMPORT)
    TopologicalSorter(MAY_IMPORT).prepare()  # which fails where rooms would import one another
    for file in FILES:
        room = room_of(file)
        for name in imports(ast.walk(parsed(file))):
            top, _, rest = name.partition(".")
            if top == "lightning_cgan":
                assert rest.split(".")[0] in MAY_IMPORT[room] | {room}, f"{file} imports {name}"
            # Functions of core/compat.py do, for those who know Lightning already.
            if room in PLAIN_TORCH and file.name != "compat.py":
                assert top not in ("lightning", "pytorch_lightning"), f"{file} imports {name}"


def test_no_files_import_one_another() -> None:
    """What is imported inside functions is left aside: it is not there yet when a file is read."""
    graph = {file: {file_of(name) for name in imports(parsed(file).body)} - {None, file} for file in FILES}
    assert sum(map(len, graph.values())) > 100
    TopologicalSorter(graph).prepare()


def test_tests_stand_in_the_rooms_that_they_test() -> None:
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    folders = {folder.name for folder in TESTS.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert folders - NO_ROOMS <= rooms
    assert folders >= NO_ROOMS


def test_no_test_imports_another() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 80
    for file in files:
        for name in imports(ast.walk(parsed(file))):
            others = [part for part in name.split(".") if part.startswith("test_") or part == "conftest"]
            assert not others, f"{file} imports {name}; what tests share is in helpers/"


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


def test_generate_and_from_pretrained_do_not_wait_for_lightning(tmp_path: Path) -> None:
    heavy = "assert not {'lightning', 'torchvision', 'torchmetrics'} & sys.modules.keys()"
    command = f"['lightning_cgan', 'generate', 'digits', '--out', {str(tmp_path / 'sheet.png')!r}]"
    for code in (
        f"sys.argv = {command}; from lightning_cgan.__main__ import main; main()",
        "from lightning_cgan import PretrainedGenerator as P; P.from_pretrained('digits').sheet([7], count=2)",
    ):
        subprocess.run([sys.executable, "-c", f"import sys; {code}; {heavy}"], check=True)
    assert (tmp_path / "sheet.png").exists()


def test_every_public_name_can_be_had() -> None:
    assert "ConditionalGAN" in dir(lightning_cgan)
    for name in lightning_cgan.__all__:
        assert getattr(lightning_cgan, name) is not None
