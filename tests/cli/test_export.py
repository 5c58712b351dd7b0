"""What a person gets from `export`, and what it says of mistakes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from helpers.marks import ci_but_for
from helpers.paths import OLD
from lightning_cgan import (
    ConditionalGAN,
)
from lightning_cgan.cli import export as command_module
from lightning_cgan.cli.main import main
from lightning_cgan.core.files import write_atomic_folder
from lightning_cgan.core.images import bytes_from_signed
from lightning_cgan.evaluation import gan_train as gan_train_module
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import Make, read_program
from lightning_cgan.export.source import load_source
from lightning_cgan.networks.latents import LatentSampler

Fails = Callable[..., str]

# ---- the command -------------------------------------------------------------------------------------------------------


def opened(path: str) -> tuple[ExportMetadata, Make]:
    """What a file or folder says of itself, and what makes its images."""
    if path.endswith(".pt2"):
        return read_program(Path(path))
    source = load_source(path)
    return source.metadata, source.make


@pytest.mark.parametrize(("out", "tolerance"), [("x.ONNX", 1e-4), ("x.pt2", 1e-4), ("x", 0), (OLD, 0)])
def test_whatever_is_opened_makes_the_images_of_the_checkpoint(out: str, tolerance: float, tmp_path: Path) -> None:
    if out != OLD:
        main(["export", OLD, "--out", out])
        assert [file.name for file in tmp_path.iterdir()] == [out]
    module = ConditionalGAN.load_from_checkpoint(OLD, map_location="cpu")
    labels, latents = torch.arange(10), module.sample_latents(10, seed=1)
    expected = module.generate(labels, latents)
    metadata, make = opened(out)
    torch.testing.assert_close(make(labels, latents), expected, atol=tolerance, rtol=0)
    assert metadata == ExportMetadata.of(module)
    main(["generate", OLD, "--labels", "7", "--count", "3", "--seed", "5", "--out", "sevens"])
    made = bytes_from_signed(make(torch.tensor([7] * 3), metadata.sample_latents(7, 3, LatentSampler(5))))
    for number, image in enumerate(made):
        saved = pil_to_tensor(Image.open(f"sevens/7/{number:05d}.png"))
        assert (saved.int() - image.int()).abs().max() <= 1


@pytest.mark.parametrize("out", ci_but_for(["x.onnx", "x.pt2", "x"], "x.pt2", "x"))
def test_weights_before_averaging(out: str) -> None:
    checkpoint = torch.load(OLD, weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("generator."):
            value.mul_(3)
    torch.save(checkpoint, "other.ckpt")
    module = ConditionalGAN.load_from_checkpoint("other.ckpt", map_location="cpu")
    labels, latents = torch.arange(10), module.sample_latents(10, seed=1)
    for ema in (True, False):
        main(["export", "other.ckpt", "--out", out, "--ema", str(ema).lower(), "--overwrite"])
        expected = module.generate(labels, latents, ema=ema)
        torch.testing.assert_close(opened(out)[1](labels, latents), expected, atol=1e-4, rtol=0)


def test_folder_and_its_card(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checkpoint = torch.load(OLD, weights_only=True)
    names = ["a|b", "<i>", *"23456789"]
    checkpoint["lightning_cgan"]["data"] = {"data set": "MyData", "classes": names, "training images": 12345}
    torch.save({**checkpoint, "global_step": 4321}, "named.ckpt")
    main(["export", "named.ckpt", "--out", "inner/my model"])
    assert capsys.readouterr().out == "Exported a generator of 10 classes: inner/my model\n"
    folder = tmp_path / "inner" / "my model"
    files = ["README.md", "config.json", "model.safetensors", "samples.png"]
    assert sorted(file.name for file in folder.iterdir()) == files
    assert [file.name for file in folder.parent.iterdir()] == ["my model"]
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(front)
    assert (told["library_name"], told["pipeline_tag"]) == ("lightning_cgan", "unconditional-image-generation")
    assert "conditional-gan" in told["tags"]
    assert text.startswith("\n# my model\n")
    for part in ("| MyData, 12,345 training images |", "4,321 steps", "8 × 8 pixels, gray", "10 classes"):
        assert part in text
    assert "0 a&#124;b, 1 &#60;i&#62;, 2, 3," in text
    assert "No report: run `python -m lightning_cgan test`" in text
    # a row for each class, of ten: the sheet of `generate`
    main(["generate", "named.ckpt", "--count", "10", "--out", "sheet.png"])
    assert Image.open(folder / "samples.png").tobytes() == Image.open("sheet.png").tobytes()


def test_snippet_of_the_card_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main(["export", OLD])
    (snippet,) = re.findall(r"```python\n(.*?)```", Path("exported/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir("exported")
    capsys.readouterr()
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("torch.Size([3, 1, 8, 8]) ['0', '9']\n")


def test_card_tells_the_report(
    run: Callable[..., Path], fails: Fails, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan_train_module, "learn", lambda *_: None)  # the students may stay as they are
    folder = run("--trainer.max_steps", "2", "--data.image_size", "8")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    main(["test", "--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)])
    main(["export", str(checkpoint), "--out", "x"])
    card = Path("x/README.md").read_text()
    report = json.loads((folder / "checkpoints" / "last-report" / "report.json").read_text())
    generated, real = (f"{report[name]['gan_test']:.2%}" for name in ("scores", "scores_of_real_images"))
    assert f"| GAN-test | {generated} | {real} |" in card
    generated, real = (f"{report[name]['judge_fid']:.2f}" for name in ("scores", "scores_of_real_images"))
    assert f"| judge FID | {generated} | {real} |" in card
    assert f"| GAN-train | {report['gan_train']['mean']:.2%} ±" in card
    assert "Protocol full of " in card
    assert "DigitsData, 1,317 training images" in card
    assert "![The report as a picture](report.png)" in card
    assert Path("x/report.png").read_bytes() == (folder / "checkpoints" / "last-report" / "report.png").read_bytes()
    # that of another checkpoint is none
    shutil.copytree(folder / "checkpoints" / "last-report", "format_3-report")
    shutil.copy(OLD, "format_3.ckpt")
    capfd.readouterr()
    main(["export", "format_3.ckpt", "--out", "y"])
    assert capfd.readouterr().out.startswith("No scores: expected the report of format_3.ckpt, got format_3-report")
    assert "No report" in Path("y/README.md").read_text()
    report_file = Path("format_3-report/report.json")
    whole = report_file.read_bytes()
    report_file.write_bytes(whole[: len(whole) // 2])
    main(["export", "format_3.ckpt", "--out", "broken"])
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith(
        f"No scores: expected a report.json that test wrote, got {report_file} (JSONDecodeError: "
    )
    assert said[0].endswith("); run test again")
    assert "No report" in Path("broken/README.md").read_text()
    report_file.write_bytes(whole)
    given = ["--report", "format_3-report/report.json"]
    assert fails("export", "format_3.ckpt", "--out", "z", *given).startswith(
        "error: --report: expected the report of format_3.ckpt, got format_3-report/report.json, which is of another"
    )
    Path("broken.json").write_text("{}")
    assert fails("export", OLD, "--out", "z", "--report", "broken.json") == (
        "error: --report: expected a report.json that test wrote, got broken.json (KeyError: 'format'); run test again"
    )


# ---- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--out taken.onnx",
            "--out: expected a new name, got taken.onnx, which exists; name another, or add --overwrite",
        ),
        (
            "--out folder.pt2 --overwrite",
            "--out: expected a file to overwrite, got folder.pt2, which is a folder; name",
        ),
        ("--out file --overwrite", "--out: expected a folder to overwrite, got file, which is a file; name another"),
        (
            "--out x.pth",
            "--out: expected a folder, or a type of file that this command writes, got x.pth; choose an extension",
        ),
        ("--out photos", "--out: expected a new name, got photos, which exists; name another, or add --overwrite"),
        ("--out photos --overwrite", "--out: expected a folder with nothing but what export writes, got photos; name"),
        ("--out .", "--out: expected the path of a file or folder, got '.'; name another"),
        (
            "--out file/x.onnx",
            "--out: expected a folder to write to, got file, which is not a writable folder; name another",
        ),
        (
            "--out x.onnx --report r.json",
            "--report: expected --out to be a folder, got x.onnx, which has no model card",
        ),
        ("--report r.json", "--report: no such file: r.json; check the path"),
        ("--imports no_such_module", "--imports: cannot import no_such_module: No module named 'no_such_module'"),
        ("--otu x.onnx", "--otu: no such option; did you mean --out?"),
    ],
)
def test_mistakes(fails: Fails, options: str, message: str) -> None:
    for folder in ("photos", "folder.pt2"):
        Path(folder).mkdir()
    for file in ("photos/cat.jpg", "taken.onnx", "file"):
        Path(file).touch()
    before = sorted(Path().rglob("*"))
    assert fails("export", OLD, *options.split()).startswith(f"error: {message}")
    assert sorted(Path().rglob("*")) == before


def test_what_is_no_checkpoint(fails: Fails) -> None:
    assert fails("export").startswith("error: source: expected a file, got none; name one")
    assert fails("export", "last.ckpt") == "error: source: no such file: last.ckpt; check the path"
    assert fails("exprot", OLD) == "error: exprot: no such command; did you mean export?"


def test_missing_extra(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert fails("export", OLD, "--out", "x.onnx") == (
        'error: onnxruntime: expected this package to be installed, got none; pip install "lightning_cgan[onnx]"'
    )
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("out", "error"),
    [
        ("x.onnx", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("x.pt2", OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))),
        ("x", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("x", RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")),  # safetensors
    ],
)
def test_a_disk_that_takes_no_more(fails: Fails, monkeypatch: pytest.MonkeyPatch, out: str, error: Exception) -> None:
    main(["export", OLD, "--out", out])
    before = {file: file.is_file() and file.read_bytes() for file in Path().rglob("*")}

    def fail(*arguments: object) -> None:
        raise error

    for ending in command_module._FILES:
        monkeypatch.setitem(command_module._FILES, ending, fail)
    monkeypatch.setattr("lightning_cgan.export.hub_folder.write_folder", fail)
    reason = getattr(error, "strerror", None) or error
    assert fails("export", OLD, "--out", out, "--overwrite") == (
        f"error: --out: expected a path to write to, got {out} ({reason}); make room, or name another"
    )
    assert {file: file.is_file() and file.read_bytes() for file in Path().rglob("*")} == before


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(folder: Path) -> None:
        (folder / "new").touch()

    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    place = tmp_path / "inner" / "x"
    place.mkdir(parents=True)
    (place / "old").touch()
    with pytest.raises(OSError, match="disk full"):
        write_atomic_folder(place, fail)
    assert [file.relative_to(place.parent) for file in place.parent.rglob("*")] == [Path("x"), Path("x/old")]
    with monkeypatch.context() as patch:
        rename = Path.replace

        def replace(old: Path, new: Path) -> Path:
            if new == place and (old / "new").exists():
                raise OSError("busy")
            return rename(old, new)

        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="busy"):
            write_atomic_folder(place, fill)
    assert [file.relative_to(place.parent) for file in place.parent.rglob("*")] == [Path("x"), Path("x/old")]
    write_atomic_folder(place, fill)
    assert [file.relative_to(place.parent) for file in place.parent.rglob("*")] == [Path("x"), Path("x/new")]


OWN = """
import torch
from lightning_cgan import MLPGenerator

class Noisy(MLPGenerator):
    def forward(self, latents, labels):
        return super().forward(latents + torch.randn_like(latents), labels)

class Choosy(MLPGenerator):
    def forward(self, latents, labels):
        return super().forward(latents if latents.sum() > 0 else -latents, labels)
"""


@pytest.mark.parametrize(
    ("network", "out", "message"),
    [
        (
            "Noisy",
            "x.onnx",
            r"--out: expected the exported file to make the generator's images within 0.0001, got a difference of \S+; export to a folder",
        ),
        (
            "Noisy",
            "x.pt2",
            r"--out: expected the exported file to make the generator's images within 0.0001, got a difference of \S+; export to a folder",
        ),
        (
            "Noisy",
            "x",
            "--out: expected the exported folder to make the same images as the generator, got others; check",
        ),
        (
            "Choosy",
            "x.onnx",
            r"--out: expected a generator that PyTorch can export, got Choosy \(.*\); export to a folder",
        ),
        (
            "Choosy",
            "x.pt2",
            r"--out: expected a generator that PyTorch can export, got Choosy \(.*\); export to a folder",
        ),
    ],
)
def test_what_would_make_other_images_is_not_left(
    run: Callable[..., Path],
    fails: Fails,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    network: str,
    out: str,
    message: str,
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    last = run("--trainer.max_steps", "1", "--model.generator", f"own.{network}") / "checkpoints" / "last.ckpt"
    before = sorted(tmp_path.iterdir())
    assert re.match(f"error: {message}", fails("export", str(last), "--out", out))
    assert sorted(tmp_path.iterdir()) == before
