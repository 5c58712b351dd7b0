"""Executes docs/conditional_gan.ipynb in an empty folder, and stores its outputs in the notebook or in another file.

    python scripts/notebook.py
    python scripts/notebook.py --out executed.ipynb

The cell that installs the package has the tag `skip-execution` and is not executed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "conditional_gan.ipynb"
_SECONDS = 1200  # the most that one cell may take


def main() -> None:
    """Reads the command line, executes, and writes."""
    parser = argparse.ArgumentParser(description="Executes docs/conditional_gan.ipynb and stores its outputs.")
    parser.add_argument("--out", type=Path, default=NOTEBOOK, help="the file to write (default: the notebook itself)")
    out = parser.parse_args().out
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=_SECONDS, record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow offers each picture as PNG and as JPEG
    nbformat.validate(notebook)
    nbformat.write(notebook, out)


if __name__ == "__main__":
    main()
