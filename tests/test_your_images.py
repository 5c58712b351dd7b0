"""The walk-through of docs/your_images.md, from a folder to images, by its own commands."""

from __future__ import annotations

import re
import shlex
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.paths import ROOT
from helpers.pictures import SHAPES, write_shapes
from lightning_cgan.callbacks import report
from lightning_cgan.cli.main import main
from lightning_cgan.evaluation.protocol import ScoringProtocol

PAGE = (ROOT / "docs" / "your_images.md").read_text()


def commands() -> list[list[str]]:
    """The words of each command of the page, behind the program's name."""
    blocks = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line) for line in blocks.splitlines()]
    assert all(words[:3] == ["python", "-m", "lightning_cgan"] for words in lines)
    return [words[3:] for words in lines]


def as_a_shell_would(words: list[str]) -> list[str]:
    return [found for word in words for found in (sorted(glob(word)) or [word])]


@pytest.fixture
def _short(_quick_judge: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of little."""
    brief = ScoringProtocol("full", images=100, training_images=100, epochs=1, seeds=(0,), seeds_of_bound=(0,))
    monkeypatch.setitem(report._PROTOCOLS, "full", brief)


@pytest.mark.ci
@pytest.mark.usefixtures("_short")
def test_the_page_goes_from_a_folder_to_images() -> None:
    write_shapes(Path("pictures"))
    seen = []
    for words in commands():
        short = ["--trainer.max_steps", "20", "--samples.every_n_steps", "20"] if words[0] == "fit" else []
        cpu = ["--device", "cpu"] if words[0] == "generate" else ["--trainer.accelerator", "cpu"]
        main([*as_a_shell_would(words), *short, *cpu])
        seen.append(words[0])
    assert seen == ["fit", "fit", "fit", "generate", "generate", "generate", "test", "fit"]
    grid = Image.open(next(Path("runs/images").glob("*/samples/00000020.png")))
    assert grid.height == 5 * 66 + 2  # a row for each class; 32 pixels are magnified to 64, and 2 lie between
    assert Image.open("sheet.png").height == grid.height
    assert sorted(folder.name for folder in Path("made").iterdir()) == ["circles", "rings"]
    assert len(list(Path("made/rings").glob("*.png"))) == 20
    arrays = np.load("made.npz")
    assert arrays["images"].shape == (200, 32, 32, 3)
    assert arrays["class_names"].tolist() == list(SHAPES)
    for name in ("images", "careful", "mnist_quick", "again"):
        assert len(list(Path("runs", name).glob("*/checkpoints/last.ckpt"))) == 1
    assert len(list(Path("runs/images").glob("*/checkpoints/last-report/report.json"))) == 1


def test_snippets_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "docs/your_images.md", "exec"), {})
    # of 20 of each class three are held out for testing, then a twelfth of 34
    assert capsys.readouterr().out == "('darker', 'brighter') 1 8 31\n"


def test_the_page_names_every_option() -> None:
    from lightning_cgan import ArrayData, ImageFolderData

    for cls in (ImageFolderData, ArrayData):
        for name in cls.__init__.__annotations__.keys() - {"return", "batch_size", "predictions_per_class"}:
            assert re.search(rf"[`.]{name}\b", PAGE), name
