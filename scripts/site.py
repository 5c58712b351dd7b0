"""Puts pages of the repository where a page of the site only links to them, as GitHub needs it; see `mkdocs.yml`."""

from __future__ import annotations

from typing import Any

_ON_THE_SITE = {
    "[CHANGELOG.md](../CHANGELOG.md)": '--8<-- "CHANGELOG.md"',
    "[CONTRIBUTING.md](../CONTRIBUTING.md)": '--8<-- "CONTRIBUTING.md"',
    "[The snippet of the README](../README.md#in-your-own-project)": '--8<-- "README.md:python"',
    "(../README.md#in-your-own-project)": "(index.md#in-python)",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    for link, text in _ON_THE_SITE.items():
        markdown = markdown.replace(link, text)
    return markdown
