"""The snippets of the README and of the pages run as they stand there, and the documents leave nothing out."""

from __future__ import annotations

import inspect
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

import lightning_cgan
from helpers.commands import Typed
from helpers.pages import blocks, run_snippet, write_modules
from helpers.paths import ROOT
from lightning_cgan.cli.main import main

README = (ROOT / "README.md").read_text()
PROJECT = ROOT / "docs" / "in_your_project.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


SNIPPETS = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), SNIPPETS, ids=lambda value: getattr(value, "stem", str(value)))
def test_snippet(page: Path, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_modules(page, tmp_path, monkeypatch)
    if page.stem == "generate":  # the commands before the snippet
        main(["export", str(ROOT / "tests" / "checkpoints" / "format_3.ckpt"), "--out", "generator"])
    run_snippet(page, number, monkeypatch)


def test_there_are_snippets_and_every_file_exists() -> None:
    pages = {"README", PROJECT.stem, "fine_tune", "from_your_own_loop", "generate", "invert", "your_images"}
    assert {page.stem for page, _ in SNIPPETS} == pages
    for path in re.findall(r"(?:\]\(|src=\")((?!http|#)[^)\"]+)", README):
        file, _, anchor = path.partition("#")
        assert (ROOT / file).exists(), path
        assert not anchor or f"# {anchor.replace('-', ' ')}\n" in (ROOT / file).read_text().lower(), path
    for page in PAGES:
        for path in re.findall(r"(?:configs|scripts)/[\w/]+\.\w+", page.read_text()):
            assert (ROOT / path).exists(), path


def test_the_readme_is_short() -> None:
    assert len(README.partition("```")[0].split()) <= 120  # before the first code, addresses of links included
    assert len(README.split()) <= 1200
    (python,) = blocks(ROOT / "README.md", "python")
    assert sum(bool(line.strip()) and "import " not in line for line in python.splitlines()) <= 15


def test_each_row_of_by_hand_and_here_links_to_a_test() -> None:
    (table,) = re.findall(r"\| \| by hand \| here \| test \|\n\|[-|]+\n((?:\|.*\n)+)", README)
    rows = table.splitlines()
    assert len(rows) == 5
    for row in rows:
        ((test, path),) = re.findall(r"\[`(test_\w+)`\]\(([\w/.]+)\)", row)
        assert f"\ndef {test}(" in (ROOT / path).read_text()


@pytest.mark.ci
def test_commands_of_the_readme(mnist_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_CGAN_DATA", mnist_folder)
    for name in ("cats", "dogs"):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for number in range(40):
            Image.effect_noise((32, 32), 50 + number).convert("RGB").save(folder / f"{number}.png")
    lines = "".join(blocks(ROOT / "README.md", "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m lightning_cgan")]
    kinds = ["generate", "demo", "fit", "generate", "test", "fit", "fit", "fit", "fit"]
    assert [words[0] for words in commands] == kinds
    short = [
        "--trainer.max_steps",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--samples.columns",
        "1",
        "--scores.images",
        "0",
    ]
    for words in commands:
        for run in Path("runs").glob("digits/*"):  # that of the first `fit`; the README sets it
            words = [word.replace("$run", str(run)) for word in words]
        if words[0] == "test":
            main([*words, "--report.protocol", "none", "--trainer.accelerator", "cpu"])
        elif words[0] == "demo":
            page = Typed(*words, "--port", "0")
            assert page.readline().startswith("Demo of fashion_mnist: http://127.0.0.1:")
            page.send_signal(signal.SIGINT)
            page.wait()
        elif "--trainer.devices" in words:  # starts further processes by the command that was typed
            training = Typed(*words, *short)
            shown = training.wait()
            assert training.returncode == 0, shown
        else:
            main([*words, *(short if words[0] == "fit" else [])])
    assert Image.open("sevens.png").size == (16 * 58 + 2, 58 + 2)
    assert len(list(Path("runs").glob("*/*/checkpoints/last.ckpt"))) == 4


def test_commands_of_the_project_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_modules(PROJECT, tmp_path, monkeypatch)
    trained = []
    for block in blocks(PROJECT, "bash"):
        command = shlex.split(block.replace("\\\n", ""))
        assert command[:3] == ["python", "-m", "lightning_cgan"]
        if command[3] == "fit":
            main(
                [*command[3:], "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--name", str(len(trained))]
            )
            (last,) = Path("runs", str(len(trained))).glob("*/checkpoints/last.ckpt")
            trained.append(torch.load(last, weights_only=True)["hyper_parameters"])
        else:
            main([str(last) if word == "runs/…/last.ckpt" else word for word in command[3:]])
    assert Image.open("shades.png").size == (8 * 66 + 2, 10 * 66 + 2)  # 8 of each class, magnified to 64 pixels
    assert trained[0]["generator"]["class_path"] == "my_networks.ShadeGenerator"
    assert trained[0]["discriminator"]["init_args"]["width"] == 16
    assert trained[1]["loss"] == {"class_path": "my_losses.Smoothed", "init_args": {"target": 0.8}}
    _, penalty = trained[2]["penalties"]  # behind that of the config
    assert penalty["class_path"] == "my_penalties.Drift"
    assert penalty["init_args"]["weight"] == 0.01


def test_table_of_options_is_complete() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    arguments = inspect.signature(lightning_cgan.ConditionalGAN.__init__).parameters
    options = arguments.keys() - {"self", "generator", "discriminator"}
    contracts = {"AdversarialLoss", "GradientPenalty", "Augmentation", "Generator", "Discriminator"}
    homes = [f"lightning_cgan.objectives.{home}" for home in ("losses", "penalties", "augmentations")]
    homes.append("lightning_cgan.networks")
    classes = {name for home in homes for name in lightning_cgan._HOMES[home]} - contracts
    classes -= {"AuxiliaryClassifier", "ConditionalDiscriminator"}  # the one is an option, the other a base
    classes -= {"DiscriminatorOutput", "discriminate", "image_gradients"}  # for networks and penalties of one's own
    assert [name for name in sorted(options | classes) if f"`{name}`" not in text] == []
