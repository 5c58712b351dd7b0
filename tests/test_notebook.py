"""The notebook of the documentation: it runs from an empty folder, and its stored outputs are few and small."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.paths import ROOT
from helpers.processes import script

nbformat = pytest.importorskip("nbformat")

NOTEBOOK = ROOT / "docs" / "conditional_gan.ipynb"


def executed_cells(file: Path) -> list[Any]:
    """The code cells but the first, which installs the package."""
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    first, *others = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert first.source.startswith("%pip install")
    assert first.outputs == []
    return others


def check_outputs(cells: list[Any]) -> None:
    """Three small pictures, a line of progress, the scores, a line of `export`, and no noise."""
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # once, from top to bottom
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"display_data", "execute_result", "stream"}
    texts = [output.text if "text" in output else output.data["text/plain"] for output in outputs]
    assert [output.name for output in outputs if "name" in output] == ["stdout"] * 2
    assert not any(re.search("warn|error|hint|tip:", text.lower()) for text in texts)
    assert {name for output in outputs for name in output.get("data", {})} == {"text/plain", "image/png"}
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture))).width <= 1000
    line, grid, *_ = outputs
    assert re.match(r"Epoch \d+ ━{30} 1,000/1,000  0:", line.data["text/plain"])
    assert grid.data["text/plain"] == "Samples of step 1,000"
    assert re.match(r"gan_test  +(0\.9\d\d|1\.000), of real images  [01]\.\d{3}\njudge_fid ", texts[-3])
    assert texts[-1] == "True"


def test_stored_outputs_are_small() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    check_outputs(executed_cells(NOTEBOOK))


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", NOTEBOOK.read_text(encoding="utf-8"))
    assert len(links) > 2
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.ci
def test_it_runs_from_an_empty_folder(tmp_path: Path) -> None:
    script("notebook.py", "--out", str(tmp_path / "executed.ipynb"))
    check_outputs(executed_cells(tmp_path / "executed.ipynb"))
