"""The site: it builds without a warning, has the whole API, and fetches nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cgan
from helpers.paths import ROOT

pytest.importorskip("mkdocs")
pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_is_in_the_api(site: Path) -> None:
    found = set(re.findall(r'id="([\w.]+)"', (site / "api" / "index.html").read_text()))
    for home, names in lightning_cgan._HOMES.items():
        assert {f"{home}.{name}" for name in names} <= found
    assert "lightning_cgan.__version__" in (site / "api" / "index.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text()
        sources = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="([^"]+)"', text)
        sources += re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="([^"]+)"', text)
        sources += re.findall(r'<link[^>]*href="([^"]+)"[^>]*rel="(?:stylesheet|preconnect|icon)"', text)
        assert sources
        assert [source for source in sources if "//" in source] == []


def slug(heading: str) -> str:
    """As GitHub makes anchors of headings."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_pages_and_links_work_in_the_repository_too() -> None:
    found = 0
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        assert "--8<--" not in text, page
        for place, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
            target = page.parent / place if place else page
            assert target.exists(), (page, place)
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" else []
            assert not anchor or anchor in map(slug, headings), (page, place, anchor)
            found += 1
    assert found > 30


def test_pages_of_the_repository_are_included(site: Path) -> None:
    for name in ("changelog", "contributing"):
        title = (ROOT / f"{name.upper()}.md").read_text().splitlines()[0].removeprefix("# ")
        assert re.search(rf"<h1[^>]*>{title}", (site / name / "index.html").read_text())
    assert "load_from_checkpoint" in (site / "index.html").read_text()
