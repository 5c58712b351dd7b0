"""Hostile names of classes, in whatever they end up: each is shown as text, or refused in one line."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image

from helpers.paths import OLD
from lightning_cgan import PretrainedGenerator, UsageError
from lightning_cgan.cli.demo import DemoBackend, build_page
from lightning_cgan.cli.main import main
from lightning_cgan.core.class_names import check_names, in_markdown
from lightning_cgan.core.errors import printable
from lightning_cgan.core.output_paths import folders_of_classes
from lightning_cgan.evaluation import report_plot
from lightning_cgan.export.source import load_source

CLEAR = "\x1b[2J\x1b]0;owned\x07"
LINK = "[free](https://evil.example)"
SCRIPT = '<script>alert("x")</script>'
HOSTILE = [
    CLEAR,
    "a\nb\r\n---\nlicense: mit",
    "x" * 400,
    SCRIPT,
    LINK,
    "../../up",
    "$\\frac$",
    "a|b `c` | d",
    "con",
    "www.evil.example *b*",
]

Fails = Callable[..., str]


def named(names: Any, file: str = "named.ckpt") -> str:
    """A checkpoint whose classes have these names."""
    checkpoint = torch.load(OLD, weights_only=True)
    checkpoint["lightning_cgan"]["data"] = {"data set": f"My|Data {SCRIPT}", "classes": names}
    torch.save(checkpoint, file)
    return file


@pytest.mark.parametrize("name", HOSTILE)
def test_text_on_a_page_is_nothing_but_text(name: str) -> None:
    shown = in_markdown(name, limit=500)
    assert html.unescape(shown) == printable(" ".join(name.split()))
    assert not re.search(r"[^\w \-/,]|_", re.sub(r"&#\d+;", "", shown))
    assert len(html.unescape(in_markdown("<" * 400))) == 80
    markdown_it = pytest.importorskip("markdown_it")
    rendered = markdown_it.MarkdownIt("commonmark").enable("table").render(f"| | |\n|---|---|\n| {shown} | {LINK} |")
    assert rendered.count("<a ") == rendered.count("</table>") == 1
    assert rendered.count("<td") == 2
    assert "<script" not in rendered


def test_card_config_and_metadata_of_hostile_names(capsys: pytest.CaptureFixture[str]) -> None:
    named(HOSTILE)
    main(["export", "named.ckpt", "--out", "x"])
    assert capsys.readouterr().out.isascii()
    card = Path("x/README.md").read_text(encoding="utf-8")
    front, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert "license" not in front
    assert "---\nlicense" not in text
    for part in (SCRIPT, LINK, "](https", "www.", "\x1b", "x" * 100, "`c`"):
        assert part not in card
    (row,) = [line for line in text.splitlines() if line.startswith("| 10 classes |")]
    assert row.count("|") == 3
    assert PretrainedGenerator.from_pretrained("x").class_names == tuple(HOSTILE)
    assert json.loads(Path("x/config.json").read_text())["class_names"] == HOSTILE
    main(["export", "named.ckpt", "--out", "x.onnx"])
    assert load_source("x.onnx").metadata.class_names == tuple(HOSTILE)


def test_page_of_hostile_names(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    page = build_page(DemoBackend(load_source(named(HOSTILE)), tmp_path), f"x `{SCRIPT}")
    parts = page.get_config_file()["components"]
    (choices, *_) = [part["props"]["choices"] for part in parts if part["type"] == "dropdown"]
    assert [shown for shown, _ in choices] == [printable(name, 80) for name in HOSTILE]
    assert all(shown.isprintable() for shown, _ in choices)
    texts = [part["props"]["value"] for part in parts if part["type"] == "markdown"]
    assert not any(SCRIPT in text or "`" in text for text in texts)


def test_folders_of_hostile_names(tmp_path: Path) -> None:
    main(["generate", named(HOSTILE), "--count", "1", "--out", "out"])
    assert {path.name for path in tmp_path.iterdir()} == {"named.ckpt", "out"}
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(folders) == len(HOSTILE)
    assert all(name[:2].strip("0123456789") == "-" for name in folders)  # since one is a device of Windows
    assert all(name.isprintable() and not set(name) & set('/\\<>:"|?*') for name in folders)
    assert len(list((tmp_path / "out").glob("*/00000.png"))) == len(HOSTILE)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["..", "."], ["0-", "1-"]),
        (["../a", "b. "], ["-a", "b"]),
        (["NUL", "a"], ["0-NUL", "1-a"]),
        (["com1.txt", "a"], ["0-com1.txt", "1-a"]),
        (["é", "e\u0301"], ["0-é", "1-e\u0301"]),  # one folder on macOS
        (["a\x00b", "\x1b[2J"], ["a-b", "-[2J"]),
        (["ü" * 150, "b"], ["ü" * 100, "b"]),
        (["x" * 300, "x" * 400], ["0-" + "x" * 200, "1-" + "x" * 200]),
        (["\udcff", "b"], ["-", "b"]),
    ],
)
def test_folders_stay_where_they_belong(names: list[str], folders: list[str], tmp_path: Path) -> None:
    places = folders_of_classes(tmp_path, names)
    assert places == [tmp_path / folder for folder in folders]
    for place in places:
        place.mkdir()


def test_names_that_no_file_can_hold_are_refused(fails: Fails) -> None:
    for name, shown in (("a\0b", r"a\x00b"), ("\udcff", r"\udcff")):
        named([name, *"123456789"])
        message = "expected class names in UTF-8, without NUL, got"
        for command in ("generate", "export"):
            assert fails(command, "named.ckpt") == f"error: source: {message} {shown}; rename that class"
        with pytest.raises(UsageError, match=r"^config\.json: expected class names in UTF-8"):
            PretrainedGenerator(
                torch.load(OLD, weights_only=True)["hyper_parameters"]["generator"], class_names=[name, *"123456789"]
            )
    with pytest.raises(UsageError, match="without NUL"):
        check_names("x", ["a", "b\0"])
    check_names("x", ["", "a\n", "é", "😀"])


def test_metadata_of_others_with_such_names() -> None:
    main(["export", OLD, "--out", "x.onnx"])
    program = onnx.load("x.onnx")
    for entry in program.metadata_props:
        if entry.key == "class_names":
            entry.value = json.dumps(["\udc80", *"123456789"])
    onnx.save(program, "x.onnx")
    with pytest.raises(UsageError, match=r"source: expected a file .*x\.onnx.*expected class names in UTF-8"):
        load_source("x.onnx")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_folders_whose_names_are_no_text_or_orders_to_a_terminal(fails: Fails) -> None:
    def fit(name: bytes) -> str:
        for folder in (name, b"dog"):
            os.makedirs(os.path.join(b"images", folder), exist_ok=True)
            Image.new("L", (8, 8)).save(os.path.join(os.fsdecode(b"images/" + folder), "a.png"))
        return fails("fit", "--config", "images", "--data.data_dir", "images", "--data.classes", "[cat]")

    try:
        message = fit(b"caf\xe9")
    except OSError:  # as on macOS
        pytest.skip("the disk refuses such a name")
    assert message == (
        r"error: --data.data_dir: expected class names in UTF-8, without NUL, got caf\udce9; rename that "
        "class"
    )
    os.rename(b"images/caf\xe9", b"images/\x1b[2Jcat")
    message = fit(b"\x1b[2Jcat")
    assert "\x1b" not in message
    assert r"expected names or numbers of classes, got cat; did you mean \x1b[2Jcat?" in message


def test_a_terminal_is_given_no_orders(fails: Fails) -> None:
    named([CLEAR, *"123456789"])
    message = fails("generate", "named.ckpt", "--labels", "x")
    assert "\x1b" not in message
    assert "\x07" not in message
    assert r"0 (\x1b[2J\x1b]0;owned\x07)" in message


def test_picture_of_a_report_of_names_that_would_be_formulas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for part in ("_samples", "_neighbours"):
        monkeypatch.setattr(report_plot, part, lambda report_images: torch.zeros(2, 2).numpy())
    monkeypatch.setattr(report_plot, "_headline", lambda report: "")
    names = ["$\\frac$", "$5 or $6", CLEAR, "x" * 400]
    scores = {"confusion": [[1] * 4] * 4, "judge_fid_by_class": [1.0] * 4}
    report_images: Any = None
    report = {"scores": scores, "scores_of_real_images": scores}
    report_plot.plot_report(report, report_images, names, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (1300, 1200)
