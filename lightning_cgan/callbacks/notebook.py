"""Output below the cells of a notebook, without depending on IPython."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from lightning_cgan.callbacks.shared import warn_on_write_error


def in_notebook() -> bool:
    """Whether this process runs the cells of a notebook; IPython in a terminal is not one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookOutput:
    """An output below the cell that runs, whose content is replaced by what is shown next."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, png: bytes | None = None) -> None:
        """Shows an image in the PNG format, or, without one, a text; the text is also the image's replacement."""
        content = {"text/plain": text} | ({} if png is None else {"image/png": png})
        with warn_on_write_error("The output below the cell"):
            if self._handle is None:
                self._handle = import_module("IPython.display").display(content, raw=True, display_id=True)
            else:
                self._handle.update(content, raw=True)
