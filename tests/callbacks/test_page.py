"""`index.html`: the page of a run."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from helpers.browser import chromium
from helpers.quiet import quiet_trainer
from helpers.run_files import all_rows
from helpers.small_gan import gan
from lightning_cgan import Curves, DigitsData, RunPage, SampleGrid, UsageError
from lightning_cgan.callbacks.page_content import _thinned, render_page
from lightning_cgan.cli.main import main
from lightning_cgan.core.images import save_png
from lightning_cgan.runs.alarms_file import Alarm, read_alarms, write_alarms

Run = Callable[..., Path]
SMALL = ("--data.image_size", "8", "--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false")
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&amp;{{ 7 * 7 }}<!--"""


class Page(HTMLParser):
    """A page as a browser reads it: its elements, the text within each kind, and the data of its script."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(file.read_bytes().decode("utf-8"))
        self.data = json.loads(self.texts["script"][0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in ("meta", "link", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.texts[tag][-1] += data

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def lines(self) -> dict[str, dict[int, float | None]]:
        """The curves: values by step, by the name of the scalar."""
        found = [line for chart in self.data["charts"] for line in chart["lines"]]
        return {line["name"]: dict(map(tuple, line["points"])) for line in found}


def write_rows(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def page_of(folder: Path, is_running: bool = False) -> Page:
    (folder / "index.html").write_bytes(render_page(folder, is_running))
    return Page(folder / "index.html")


# ---- a run -------------------------------------------------------------------------------------------------------------


def test_page_of_a_run(run: Run) -> None:
    options = ("--samples.every_n_steps", "10", "--trainer.check_val_every_n_epoch", "1", "--scores.images", "50")
    folder = run(*SMALL, *options, "--trainer.max_steps", "40")
    page, rows = Page(folder / "index.html"), all_rows(folder)
    assert page.texts["h1"] == ["digits"]
    assert page.texts["title"] == [f"digits: {folder.name}"]
    assert re.search(r"finished\s+40 of 40 steps\s+as of 20\d\d-", page.texts["header"][0])
    for fact in ("DCGANGenerator", "DCGANDiscriminator", "DigitsData", "NonSaturating", "R1", "64"):
        assert fact in page.texts["dd"]

    expected = {
        name: {int(row["step"]): pytest.approx(float(row[name]), rel=1e-4) for row in rows if row[name]}
        for name in rows[0]
        if name != "step"
    }
    assert page.lines() == expected
    assert [chart["title"] for chart in page.data["charts"]] == [
        *("Loss", "Mean logit", "Share", "Fréchet distance", "Images / s")
    ]

    digits = [str(number) for number in range(10)]
    assert page.data["grids"] == [[step, f"samples/{step:08d}.png", 582, 582, 0] for step in (0, 10, 20, 30, 40)]
    assert page.data["classes"] == [digits]
    (shown,) = page.all_of("img")[:1]
    assert shown["src"] == "samples/00000040.png"
    assert shown["alt"] == f"Generated images after 40 steps. Rows from top to bottom: {', '.join(digits)}."
    for attributes in page.all_of("img"):
        assert attributes["alt"]
        assert (folder / str(attributes["src"])).is_file() or attributes["src"] == "curves.png"

    scored = [row for row in rows if row["val_judge_fid"]]
    best = min(scored, key=lambda row: float(row["val_judge_fid"]))
    table = page.texts["table"][0]
    for row, which in ((best, "best"), (scored[-1], "last")):
        assert f"{which}step {row['step']}" in table
        assert f"{float(row['val_judge_fid']):.2f}" in table
        assert f"{float(row['val_gan_test']):.2%}" in table

    assert page.texts["pre"][-1] == (folder / "config.yaml").read_text()
    resume, generate, score = page.texts["pre"][:3]
    assert resume.startswith(f"python -m lightning_cgan fit --config {folder}/config.yaml --ckpt_path {folder}/")
    main(["generate", *generate.split()[4:]])
    assert Image.open("sheet.png").width == 10 * 58 + 2
    main([*score.split()[3:], "--report.protocol", "none"])
    main([*resume.split()[3:], "--trainer.max_steps", "42"])
    again = Page(folder / "index.html")
    assert max(again.lines()["generator_loss"]) == 42
    assert "config_2.yaml" in again.texts["summary"]


def test_page_asks_for_nothing_but_its_pictures(short_run: Path) -> None:
    page = page_of(short_run)
    sources = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sources
    for source in map(str, sources):
        assert source == "data:," or (short_run / source).exists() or source == "curves.png"
    assert "url(" not in page.texts["style"][0]
    assert "@import" not in page.texts["style"][0]
    assert not re.search("https?:(?!//www.w3.org/2000/svg)|fetch|import|eval|innerHTML", page.texts["script"][1])


def test_training_is_the_same_without_it(run: Run) -> None:
    weights = []
    for seconds in ("0", "0.001"):
        folder = run(*SMALL, "--trainer.max_steps", "6", "--page.every_n_seconds", seconds)
        assert (folder / "index.html").exists() == (seconds != "0")
        weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_option(fails: Callable[..., str]) -> None:
    expected = "--page.every_n_seconds: expected 0 or more, got -1.0; 0 disables the page of a run"
    assert fails("fit", "--config", "digits", "--page.every_n_seconds", "-1") == f"error: {expected}"
    with pytest.raises(UsageError, match="expected 0 or more, got nan"):
        RunPage(math.nan)


def test_it_is_a_callback_for_any_trainer(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = quiet_trainer(4, logger=logger, log_every_n_steps=2, callbacks=[SampleGrid(2, columns=1), RunPage()])
    trainer.fit(gan(), DigitsData(batch_size=16))
    page = Page(tmp_path / "index.html")
    assert page.texts["h1"] == [tmp_path.name]
    assert "ended" in page.texts["header"][0]
    assert set(page.lines()["generator_loss"]) == {2, 4}
    assert "epoch" not in page.lines()
    assert "details" not in page.texts  # there is no config
    assert [grid[0] for grid in page.data["grids"]] == [0, 2, 4]


def test_without_a_table_there_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    trainer = quiet_trainer(2, callbacks=[RunPage()], default_root_dir=str(tmp_path))
    trainer.fit(gan(), DigitsData(batch_size=16))
    assert (tmp_path / "index.html").read_text() == "mine"


# ---- updates -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still where nobody moves it."""
    now = [1000.0]
    monkeypatch.setattr("lightning_cgan.callbacks.page.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_it_is_written_again_when_it_is_due(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    seconds = 0.0

    def render(folder: Path, is_running: bool) -> bytes:
        assert is_running
        written.append(clock[0])
        clock[0] += seconds
        return b""

    monkeypatch.setattr("lightning_cgan.callbacks.page.render_page", render)
    page, anything = RunPage(every_n_seconds=10), SimpleNamespace(log_dir=tmp_path, fast_dev_run=False)
    page.setup(anything, anything, "fit")  # type: ignore[arg-type]
    page.on_train_start(anything, anything)  # type: ignore[arg-type]

    def train_until(end: float) -> list[float]:
        written.clear()
        while clock[0] < end:
            page.on_train_batch_end(anything, anything)  # type: ignore[arg-type]
            clock[0] += 1
        return written

    assert train_until(1005) == []  # there is no table yet
    (tmp_path / "metrics.csv").touch()
    assert train_until(1030) == [1005, 1015, 1025]
    seconds = 0.5
    assert train_until(1100) == [1035, 1085.5]  # half a second in fifty


def test_curves_take_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = [1000.0], list[float]()
    monkeypatch.setattr("lightning_cgan.callbacks.curves.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def plot(metrics: Path, picture: Path) -> None:
        written.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr("lightning_cgan.callbacks.curves.plot_curves", plot)
    (tmp_path / "metrics.csv").touch()
    curves, anything = Curves(every_n_seconds=10), SimpleNamespace(log_dir=tmp_path, fast_dev_run=False, world_size=1)
    curves.setup(anything, anything, "fit")  # type: ignore[arg-type]
    curves.on_train_start(anything, anything)  # type: ignore[arg-type]
    while clock[0] < 1100:
        is_due, before = curves.is_due(anything), len(written)  # type: ignore[arg-type]
        curves.on_train_batch_end(anything, anything)  # type: ignore[arg-type]
        assert is_due == (len(written) > before)
        clock[0] += 1
    assert written == [1010, 1060.5]  # half a second in fifty


def test_page_of_a_run_in_progress(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"step": 20, "generator_loss": 1.0}])
    (tmp_path / "config.yaml").write_text("trainer: {max_steps: 100}\nname: a/b\n")
    assert "running\n    20 of 100 steps" in page_of(tmp_path, is_running=True).texts["header"][0]
    assert "stopped\n    20 of 100 steps" in page_of(tmp_path).texts["header"][0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no page")])
def test_a_failure_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, recwarn: pytest.WarningsRecorder
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("lightning_cgan.callbacks.page.write_atomic", fail)
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    trainer = quiet_trainer(6, logger=logger, log_every_n_steps=1, callbacks=[RunPage(every_n_seconds=1e-9)])
    trainer.fit(gan(), DigitsData(batch_size=16))
    assert trainer.global_step == 6
    told = [str(warning.message) for warning in recwarn if "index.html" in str(warning.message)]
    reason = str(error) if isinstance(error, OSError) else "ValueError: no page"
    assert told == [f"The page index.html was not written: {reason}. Training continues"]


def test_a_stop_writes_it_too(tmp_path: Path) -> None:
    class Stop(RunPage):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    trainer = quiet_trainer(6, logger=logger, log_every_n_steps=1, callbacks=[Stop()])
    with suppress(SystemExit, KeyboardInterrupt):
        trainer.fit(gan(), DigitsData(batch_size=16))
    assert max(Page(tmp_path / "index.html").lines()["generator_loss"]) == 3


# ---- what is in it -----------------------------------------------------------------------------------------------------


def test_text_from_elsewhere_stays_text(tmp_path: Path) -> None:
    config = {"name": HOSTILE, "data": {"class_path": HOSTILE}, "trainer": {"precision": HOSTILE}, "runs_dir": HOSTILE}
    text = yaml.safe_dump({**config, "best_checkpoint": {"monitor": HOSTILE}})
    folder = tmp_path / "<b>'&"
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    write_rows(folder, [{"step": 1, HOSTILE: 1.0, "val_gan_test": 0.5}])
    write_alarms(folder, [Alarm(1, HOSTILE, HOSTILE)])
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    save_png(picture, folder / "samples" / "00000001.png", {"classes": json.dumps([HOSTILE, "\ud800", "a\u202eb", 7])})
    report = folder / "checkpoints" / "last-report"
    report.mkdir(parents=True)
    (report / "report.json").write_text(json.dumps({**REPORT, "protocol": {"name": HOSTILE}}))
    (folder / "checkpoints" / "last.ckpt").touch()

    page = page_of(folder)
    assert page.texts["h1"] == [HOSTILE]
    assert page.texts["pre"][-1] == text
    assert [item for item in page.texts["li"] if item == HOSTILE] == 2 * [HOSTILE]  # the alarm and the class
    assert list(page.lines()) == ["val_gan_test", HOSTILE]
    assert page.data["classes"] == [[HOSTILE, "\ud800", "a\u202eb", "7"]]
    assert "a\\u202eb" in page.texts["li"]
    assert len(page.all_of("script")) == 2
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "h3", "p", "code", "div"),
        *("span", "b", "progress", "dl", "dt", "dd", "main", "section", "ul", "ol", "li", "label", "output", "input"),
        *("img", "table", "thead", "tbody", "tr", "th", "td", "small", "pre", "noscript", "details", "summary"),
        *("strong", "footer", "script", "a"),
    }
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {attributes["src"] for attributes in page.all_of("img")} == {"samples/00000001.png", "curves.png"}
    (policy,) = [m["content"] for m in page.all_of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("script-src 'sha256-")


REPORT: dict[str, Any] = {
    "checkpoint": {"name": "last.ckpt"},
    "protocol": {"name": "quick"},
    **{
        name: dict.fromkeys(("judge_fid", "judge_kid", "precision", "recall", "density", "coverage", "diversity"), 0.25)
        | {"gan_test": share}
        for name, share in (("scores", 0.875), ("scores_of_real_images", 0.9975))
    },
    "gan_train": {"mean": 0.5, "deviation": 0.125},
    "gan_train_of_real_images": {"mean": 0.75, "deviation": None},
    "memorisation": {"ratio": 1.5},
}


def test_report_of_a_checkpoint(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"step": 1, "generator_loss": 1.0}])
    report = tmp_path / "checkpoints" / "last-report"
    report.mkdir(parents=True)
    checkpoint, file = tmp_path / "checkpoints" / "last.ckpt", report / "report.json"
    checkpoint.touch()
    os.utime(checkpoint, (1000, 1000))
    file.write_text(json.dumps(REPORT))
    (tmp_path / "checkpoints" / "broken-report").mkdir()
    (tmp_path / "checkpoints" / "broken-report" / "report.json").write_text('{"scores": 3}')
    page = page_of(tmp_path)
    (table,) = page.texts["table"]
    for text in ("87.50%99.75%", "50.00% ± 12.50%75.00%", "memorisation1.5001"):
        assert text in table.replace("\n", "")
    assert "has changed since" not in page.texts["main"][0]
    assert "report.png" not in str(page.elements)
    (report / "report.png").touch()
    os.utime(file, (900, 900))
    page = page_of(tmp_path)
    assert page.all_of("img")[-1]["src"] == "checkpoints/last-report/report.png"
    assert "The checkpoint has changed since: run test again." in page.texts["main"][0]


def test_report_is_added_by_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(self: Any, *_: Any) -> dict[str, float]:
        folder = self._checkpoint.with_name("last-report")
        folder.mkdir()
        (folder / "report.json").write_text(json.dumps(REPORT))
        return {}

    monkeypatch.setattr("lightning_cgan.callbacks.Report._write", fake)
    short = ("--config", "digits", *SMALL, "--trainer.accelerator", "cpu", "--trainer.max_steps", "2")
    main(["fit", *short])
    (page,) = Path("runs/digits").glob("*/index.html")
    assert "Report of" not in Page(page).texts["main"][0]
    main(["test", *short, "--ckpt_path", "last"])
    assert "Report of last.ckpt" in Page(page).texts["main"][0]
    page.unlink()
    (page.parent / "checkpoints" / "last-report" / "report.json").unlink()
    (page.parent / "checkpoints" / "last-report").rmdir()
    main(["test", *short, "--ckpt_path", "last"])
    assert not page.exists()  # it was not wanted


def test_values_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    values = [1.0, math.nan, math.inf, 2.0]
    write_rows(tmp_path, [{"step": step, "generator_loss": value} for step, value in enumerate(values)])
    assert page_of(tmp_path).lines() == {"generator_loss": {0: 1.0, 1: None, 2: None, 3: 2.0}}


def test_a_table_that_somebody_edited(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,generator_loss,note\n1,2.5,good\nx,1,\n2,,\n2.5,7,\n3,0.5,,,\n")
    assert page_of(tmp_path).lines() == {"generator_loss": {1: 2.5, 3: 0.5}}


def test_of_many_points_the_extremes_stay() -> None:
    few = [(step, float(step % 7)) for step in range(1000)]
    assert _thinned(few) == few
    many = [(step, float(step % 7)) for step in range(0, 500_000, 5)]
    many[777] = (many[777][0], 99.0)
    many[888] = (many[888][0], -99.0)
    many[50_000] = (many[50_000][0], math.nan)
    kept = _thinned(many)
    assert 900 < len(kept) <= 1000
    assert kept == sorted(kept)
    assert set(kept) <= set(many)
    assert {many[777], many[888], many[50_000], many[-1]} <= set(kept)


def test_every_scalar_has_a_chart(tmp_path: Path) -> None:
    row = {"step": 1, "loss": 3.0, "lr-generator": 0.1, "lr-discriminator": 0.2, "generator_skipped_steps": 1.0}
    write_rows(tmp_path, [row, {"step": 2, "val_judge_fid": 500.0}, {"step": 3, "val_judge_fid": 5.0}])
    charts = page_of(tmp_path).data["charts"]
    assert [(chart["title"], chart["is_log"], [line["name"] for line in chart["lines"]]) for chart in charts] == [
        ("Fréchet distance", True, ["val_judge_fid"]),
        ("Learning rate", False, ["lr-generator", "lr-discriminator"]),
        ("Skipped updates", False, ["generator_skipped_steps"]),
        ("Loss", False, ["loss"]),
    ]


def test_damaged_grids_are_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"step": 1, "generator_loss": 1.0}])
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    save_png(picture, tmp_path / "samples" / "00000001.png")
    save_png(picture, tmp_path / "samples" / "00000002.png", {"classes": "no JSON"})
    (tmp_path / "samples" / "00000003.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    (tmp_path / "samples" / "0_mine.png").write_bytes(b"")
    assert [grid[0] for grid in page_of(tmp_path).data["grids"]] == [1]


def test_classes_of_a_grid_are_those_that_it_shows(tmp_path: Path) -> None:
    grid = SampleGrid(labels="9,0-1", columns=2)
    quiet_trainer(1, callbacks=[grid], default_root_dir=str(tmp_path)).fit(gan(), DigitsData(batch_size=16))
    with Image.open(tmp_path / "samples" / "00000001.png") as picture:
        assert json.loads(picture.info["classes"]) == ["9", "0", "1"]


# ---- alarms ------------------------------------------------------------------------------------------------------------


def test_alarms_are_kept_and_shown(run: Run) -> None:
    options = (*SMALL, "--alarms.largest_logit_gap", "-100", "--alarms.patience", "1", "--samples.every_n_steps", "5")
    folder = run(*options, "--trainer.max_steps", "4")
    (alarm,) = read_alarms(folder)
    assert (alarm.step, alarm.kind) == (2, "gap")
    page = Page(folder / "index.html")
    assert alarm.text in page.texts["li"]
    assert page.data["alarms"] == [list(alarm)]
    write_alarms(folder, [alarm, Alarm(9, "gap", "after the checkpoint")])
    assert run(*options, "--trainer.max_steps", "6", "--ckpt_path", "last") == folder
    assert [found.step for found in read_alarms(folder)] == [2, 6]  # again, since a new process has not warned yet


def test_alarms_that_somebody_edited(tmp_path: Path) -> None:
    assert read_alarms(tmp_path) == []
    alarms = [Alarm(1, "gap", 'a "b",\nc'), Alarm(20, "loss", "é")]
    write_alarms(tmp_path, alarms)
    assert read_alarms(tmp_path) == alarms
    with (tmp_path / "alarms.csv").open("ab") as file:
        file.write(b"x,gap,text\n3,gap\n\xff\0\n")
    assert read_alarms(tmp_path) == alarms


# ---- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(run: Run, tmp_path: Path, width: int) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    options = ("--samples.every_n_steps", "10", "--trainer.check_val_every_n_epoch", "1", "--scores.images", "50")
    folder = run(*SMALL, *options, "--trainer.max_steps", "40", "--name", HOSTILE.replace("/", "|"))
    rows = [row for row in all_rows(folder) if row["generator_loss"]]
    with chromium(tmp_path, f"--window-size={width},1000") as browser:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get((folder / "index.html").as_uri())

        def one(selector: str) -> Any:
            return browser.find_element(By.CSS_SELECTOR, selector)

        # samples
        assert one("#shown").text == "40"
        assert browser.execute_script("return document.getElementById('grid').naturalWidth") == 582
        one("#slider").send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
        assert one("#shown").text == "20"
        assert one("#slider").get_attribute("aria-valuetext") == "step 20"
        assert one("#grid").get_attribute("src").endswith("samples/00000020.png")
        assert "after 20 steps. Rows from top to bottom: 0, 1, 2" in one("#grid").get_attribute("alt")
        one("#slider").send_keys(Keys.HOME)
        assert one("#shown").text == "0"

        # curves
        charts = browser.find_elements(By.CSS_SELECTOR, "svg.chart")
        assert len(charts) == 5
        assert "step 40" in one("figcaption").text

        def told() -> str:
            return str(charts[0].get_attribute("aria-valuetext"))

        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", charts[0])
        ActionChains(browser).move_to_element(charts[0]).perform()
        found = re.match(r"step (\d+): discriminator_loss ([\d.]+), generator_loss ([\d.]+), val", told())
        assert found
        assert 15 <= int(found[1]) <= 27  # near the middle
        (row,) = [row for row in rows if row["step"] == found[1]]
        for shown, name in ((found[2], "discriminator_loss"), (found[3], "generator_loss")):
            assert float(shown) == pytest.approx(float(row[name]), rel=1e-3)
        assert f"step {found[1]}" in one("figcaption").text
        ActionChains(browser).move_to_element(one("h2")).perform()
        assert told().startswith("step 40")
        charts[0].send_keys(Keys.HOME)
        assert told().startswith("step 2:")
        charts[0].send_keys(Keys.ARROW_RIGHT)
        assert told().startswith("step 4:")

        # the page as a whole
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) == 0
        assert browser.execute_script("return document.scripts.length") == 2
        details = one("details")
        assert not details.get_attribute("open")
        one("summary").send_keys(Keys.ENTER)
        assert details.get_attribute("open")
        assert browser.get_log("browser") == []
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert asked
        assert [url for url in asked if not url.startswith(("file:///", "data:"))] == []
