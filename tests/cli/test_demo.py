"""The page on which to choose a class, its functions alone and in a browser."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.browser import chromium
from helpers.commands import BEGINNINGS, Command, Typed
from helpers.paths import OLD
from lightning_cgan.cli.demo import DemoBackend, build_page
from lightning_cgan.cli.main import main
from lightning_cgan.export.source import load_source


def backend(source: str = OLD) -> DemoBackend:
    return DemoBackend(load_source(source), Path())


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_images_are_those_of_generate() -> None:
    images, sheet = backend().images(7, 5, 12, 3.0)
    main(["generate", OLD, "--labels", "7", "--count", "12", "--seed", "5", "--out", "a.npz"])
    expected = np.load("a.npz")["images"]
    assert (np.stack([np.asarray(image) for image in images]) == expected).all()
    assert Image.open(sheet).size == (10 * 58 + 2, 2 * 58 + 2)  # 8 pixels seven times as large, two between
    typical, _ = backend().images(7, 5, 12, 0.7)
    main(["generate", OLD, "--labels", "7", "--count", "12", "--seed", "5", "--truncation", "0.7", "--out", "b.npz"])
    assert (np.stack([np.asarray(image) for image in typical]) == np.load("b.npz")["images"]).all()


def test_walk_goes_from_the_first_to_the_last() -> None:
    at = backend()
    way = [pixels(at.walk(2, 5, 0, 1, part)) for part in (0, 0.25, 0.5, 0.75, 1)]
    ends = [pixels(at.walk(label, label, seed, seed, 0)) for label, seed in ((2, 0), (5, 1))]
    assert abs(way[0] - ends[0]).max() <= 1
    assert abs(way[-1] - ends[1]).max() <= 1
    steps = [abs(one - other).mean() for one, other in pairwise(way)]
    assert min(steps) > 0
    assert max(steps) < abs(way[0] - way[-1]).mean()


@pytest.mark.ci
def test_walk_of_what_mixes_no_classes_stays_in_one() -> None:
    main(["export", OLD, "--out", "x.onnx"])
    plain, mixing = backend("x.onnx"), backend()
    assert not plain.source.mixes
    assert abs(pixels(plain.walk(2, 5, 0, 1, 0.5)) - pixels(mixing.walk(2, 2, 0, 1, 0.5))).max() <= 1


def test_an_empty_field_is_the_least_that_it_may_hold() -> None:
    at = backend()
    (image,), _ = at.images(7, None, None, None)
    (expected,), _ = at.images(7, 0, 1, 3.0)
    assert image.tobytes() == expected.tobytes()
    assert at.walk(2, 5, None, None, None).tobytes() == at.walk(2, 5, 0, 0, 0).tobytes()


def test_each_sheet_has_a_name_of_its_own() -> None:
    at = backend()
    sheets = {at.images(*asked)[1]: asked for asked in ((7, 0, 2, 3.0), (7, 0, 3, 3.0), (7, 0, 2, 0.7), (7, 1, 2, 3.0))}
    assert sorted(sheets) == [
        "class-7-seed-0-count-2-truncation-0.7.png",
        "class-7-seed-0-count-2.png",
        "class-7-seed-0-count-3.png",
        "class-7-seed-1-count-2.png",
    ]
    assert Image.open("class-7-seed-0-count-3.png").width == 3 * 58 + 2


def test_page_offers_the_classes_and_fetches_nothing() -> None:
    config = build_page(backend(), "x").get_config_file()
    choosers = [part["props"] for part in config["components"] if part["type"] == "dropdown"]
    assert [tuple(choice) for choice in choosers[0]["choices"]] == [(str(number), number) for number in range(10)]
    assert config["analytics_enabled"] is False


def test_mistakes(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert fails("demo", OLD, "--port", str(port)) == (
            f"error: --host, --port: expected a free address of this machine, got 127.0.0.1:{port} "
            "(Address already in use); choose another port"
        )
    expected = "error: --host, --port: expected a free address of this machine, got "
    found = fails("demo", OLD, "--port", "70000")
    assert found.startswith(f"{expected}127.0.0.1:70000 (")
    assert found.endswith("); choose another port")
    for host in ("no.such.host.invalid", "192.0.2.1", "a..b", "2001:db8::1"):
        found = fails("demo", OLD, "--host", host)
        assert found.startswith(f"{expected}{host}:7860 (")
        assert found.endswith("); choose another host")
        assert "Unknown error" not in found
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert fails("demo", OLD) == (
        'error: gradio: expected this package to be installed, got none; pip install "lightning_cgan[demo]"'
    )


# ---- as a program -----------------------------------------------------------------------------------------------------


@pytest.mark.ci
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_signals_end_it_and_leave_nothing(
    begin: type[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folders").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folders"))
    has_ipv6 = Path("/proc/net/if_inet6").is_file() and "lo" in Path("/proc/net/if_inet6").read_text()
    host = "::1" if has_ipv6 else "127.0.0.1"
    with started(begin, OLD, "--port", "0", "--host", host) as (address, process):
        assert urllib.request.urlopen(address).status == 200
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            process.send_signal(number)
            time.sleep(0.01)
        shown = process.wait(60)
    assert (process.returncode, shown) == (0, "\n")
    assert list((tmp_path / "folders").iterdir()) == []


@pytest.mark.ci
def test_a_signal_before_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folders").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folders"))
    with Typed("demo", OLD, "--port", "0") as process:
        while not list((tmp_path / "folders").glob("lightning_cgan-*")):
            assert process.returncode is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        shown = process.wait(60)
    assert (process.returncode, shown) == (0, "\n")
    assert list((tmp_path / "folders").iterdir()) == []


# ---- in a browser ------------------------------------------------------------------------------------------------------


@contextmanager
def started(begin: type[Command], source: str, *options: str) -> Iterator[tuple[str, Command]]:
    """The address of a demo that runs, and the demo."""
    with begin("demo", source, *options) as process:
        first = process.readline()
        found = re.match(r"Demo of .*: (http://\S+)/ \(Ctrl-C ends it\)\n", first)
        assert found, first + process.wait(60)
        yield found[1], process


@pytest.fixture
def address() -> Iterator[str]:
    """A demo that runs, and ends without a word."""
    with started(Typed, OLD, "--port", "0") as (address, process):
        assert address.startswith("http://127.0.0.1:")
        yield address
        process.send_signal(signal.SIGINT)
        shown = process.wait(60)
    assert process.returncode == 0, shown
    assert "Traceback" not in shown


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A Chromium without a window, which saves what is downloaded in the test's own folder."""
    with chromium(tmp_path / "downloads") as browser:
        yield browser


@pytest.mark.browser
def test_page(browser: Any, address: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    def all_of(selector: str) -> list[Any]:
        return [found for found in browser.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def sources(selector: str) -> list[str]:
        return [str(image.get_attribute("src")) for image in all_of(selector)]

    def wait_for(condition: Callable[[], object]) -> None:
        WebDriverWait(browser, 60, ignored_exceptions=[Exception]).until(lambda _: condition())

    browser.get(address)
    wait_for(lambda: len(sources("#images img")) == 10)
    before = sources("#images img")
    chooser = all_of("#class input")[0]
    chooser.click()
    chooser.send_keys(Keys.CONTROL, "a")
    chooser.send_keys("7", Keys.ENTER)
    all_of("#generate")[0].click()
    wait_for(lambda: len(sources("#images img")) == 10 and not set(sources("#images img")) & set(before))
    shown = [urllib.request.urlopen(source).read() for source in sources("#images img")]
    assert len(set(shown)) == 10
    main(["generate", OLD, "--labels", "7", "--count", "10", "--out", "sevens"])
    for image, file in zip(shown, sorted(Path("sevens/7").iterdir()), strict=True):
        assert Image.open(BytesIO(image)).convert("RGB").tobytes() == Image.open(file).convert("RGB").tobytes()
    browser.save_screenshot(str(tmp_path / "images.png"))
    all_of("#download")[0].click()
    wait_for(lambda: (tmp_path / "downloads" / "class-7-seed-0-count-10.png").exists())
    main(["generate", OLD, "--labels", "7", "--count", "10", "--out", "sheet.png"])
    saved = Image.open(tmp_path / "downloads" / "class-7-seed-0-count-10.png")
    assert saved.tobytes() == Image.open("sheet.png").tobytes()

    next(tab for tab in all_of("button[role=tab]") if tab.text == "Walk").click()
    wait_for(lambda: len(sources("#walk img")) == 1)
    (start,) = sources("#walk img")
    slider = all_of("#way input[type=range]")[0]
    slider.send_keys(*[Keys.ARROW_RIGHT] * 40)
    wait_for(lambda: sources("#walk img") not in ([start], []))
    browser.save_screenshot(str(tmp_path / "walk.png"))

    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
