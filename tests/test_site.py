"""The site: both engines build it without a warning, with the whole API and links that hold, from its own files alone."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import lightning_cgan
from helpers.browser import chromium
from helpers.paths import ROOT

ENGINES = {"mkdocs": "material", "zensical": "zensical"}  # and what each needs besides mkdocstrings
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module", params=ENGINES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; made of a copy, since Zensical writes into the folder that it builds."""
    engine = request.param
    for module in (ENGINES[engine], "mkdocstrings"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp(engine)
    for name in ("docs", "lightning_cgan"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "mkdocs.yml", *ROOT.glob("*.md")):
        shutil.copy(file, folder)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", engine, "build", "--strict"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class Html(HTMLParser):
    """The anchors of a page, its links, and what a browser loads with it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found.get("id", ""), found.get("name", "")}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and {"stylesheet", "icon", "preconnect", "preload"} & set(found.get("rel", "").split()):
            self.loaded.append(found["href"])
        if tag in ("script", "img", "iframe", "source", "video") and found.get("src"):
            self.loaded.append(found["src"])


def pages_of(site: Path) -> dict[Path, Html]:
    # 404.html may stand in any folder, so its links begin at the root of a server.
    return {file: Html(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}


def target_of(link: str, page: Path) -> tuple[Path, str]:
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (target / "index.html" if target.is_dir() else target), unquote(parts.fragment)


@pytest.mark.ci
def test_every_public_name_is_in_the_api(site: Path) -> None:
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    found = set(re.findall(r'id="([\w.]+)"', text))
    for home, names in lightning_cgan._HOMES.items():
        assert {f"{home}.{name}" for name in names} <= found
    assert "lightning_cgan.__version__" in text
    # An `Example:` is no section of the Google style: the lines with `>>>` would be shown as quotations.
    assert "<blockquote>" not in text


@pytest.mark.ci
def test_every_page_is_built_and_its_links_hold(site: Path) -> None:
    built = pages_of(site)
    sources = [file.relative_to(ROOT / "docs").with_suffix("") for file in PAGES if file.parent != ROOT]
    assert {site / source / "index.html" for source in sources if source.name != "index"} <= built.keys()
    assert len(sources) <= len(built)
    held = 0
    for page, html in built.items():
        for link in html.links:
            if not urlsplit(link).scheme:
                target, anchor = target_of(link, page)
                assert target.is_file(), (page, link)
                assert anchor in (built[target].anchors if target in built else {""}), (page, link)
                held += 1
    assert held > 300


@pytest.mark.ci
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page, html in pages_of(site).items():
        assert html.loaded
        for link in html.loaded:
            assert not urlsplit(link).netloc, (page, link)
            assert target_of(link, page)[0].is_file(), (page, link)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["changelog", "contributing"])
def test_files_at_the_top_of_the_repository_are_included(site: Path, name: str) -> None:
    page = (site / name / "index.html").read_text(encoding="utf-8")
    headings = re.findall(r"^(#+) (.+)$", (ROOT / f"{name.upper()}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) > 3
    for marks, heading in headings:
        assert len(re.findall(rf'<h{len(marks)} id="{slug(heading)}"', page)) == 1, heading
    article = page[page.index("<article") : page.index("</article>")]
    shown = re.sub(r"<!--.*?-->|<pre.*?</pre>|<code.*?</code>", "", article, flags=re.DOTALL)
    # Marks of a snippet or of a comment, and a link whose name the page does not define.
    assert [mark for mark in ("8<--", "8&lt;--", "--&gt;", "[start:", "[end:", "][") if mark in shown] == []


def slug(heading: str) -> str:
    """As GitHub makes anchors of headings."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links_in(text: str) -> list[tuple[str, str]]:
    """Paths and anchors of the links to other files: in place, or as a definition."""
    in_place, defined = r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", r"^\[[^\]]+\]: (?!https?:)([^#\s]*)(?:#(\S+))?$"
    return re.findall(in_place, text) + re.findall(defined, text, re.MULTILINE)


def test_pages_and_links_work_in_the_repository_too() -> None:
    found = 0
    for page in PAGES:
        shown = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "8<--" not in shown, page
        for place, anchor in links_in(shown):
            target = page.parent / place if place else page
            assert target.exists(), (page, place)
            text = target.read_text(encoding="utf-8") if target.suffix == ".md" else ""
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert not anchor or anchor in map(slug, headings), (page, place, anchor)
            found += 1
    assert found > 40


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.browser
@pytest.mark.ci
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(site: Path, tmp_path: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    with served(site) as address, chromium(tmp_path) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for page in pages_of(site):
            browser.get(address + page.parent.relative_to(site).as_posix())
            scrolls, broken = browser.execute_script(
                "const page = document.documentElement;"
                "return [page.scrollWidth > page.clientWidth,"
                "        [...document.images].filter(image => !image.naturalWidth).map(image => image.src)]"
            )
            assert (scrolls, broken) == (False, []), page
        assert browser.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.mark.browser
@pytest.mark.ci
def test_search_finds_a_page(site: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    with served(site) as address, chromium(tmp_path) as browser:
        browser.get(address)
        browser.find_element(By.CSS_SELECTOR, "input.md-search__input, button.md-search__button").click()
        wait, focused = WebDriverWait(browser, 30), browser.switch_to
        wait.until(lambda _: focused.active_element.tag_name in ("input", "div"))
        focused.active_element.send_keys("memorisation")
        # Zensical shows what it finds in a shadow tree.
        found = (
            "const roots = [...document.querySelectorAll('*')].map(element => element.shadowRoot).filter(Boolean);"
            "return [document, ...roots].some(root => root.querySelector('a[href*=\"/scores/?h=memorisation\"]'))"
        )
        wait.until(lambda _: browser.execute_script(found))
