"""What has been exported, read by others: only what is known runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_cgan import PretrainedGenerator, UsageError
from lightning_cgan.cli import main
from lightning_cgan.exporting.opening import open_source

OLD = str(Path(__file__).parent / "checkpoints" / "format_3.ckpt")

Fails = Callable[..., str]


def test_folder_of_an_own_network(
    run: Callable[..., Path], fails: Fails, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text("from lightning_cgan import MLPGenerator\n\nclass Own(MLPGenerator):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    last = run("--trainer.max_steps", "1", "--model.generator", "own.Own") / "checkpoints" / "last.ckpt"
    main(["export", str(last), "--out", "x", "--imports", "own"])
    assert "\nimport own\n\nfrom lightning_cgan import" in Path("x/README.md").read_text()
    monkeypatch.delitem(sys.modules, "own")
    assert "got own.Own; import its module first" in fails("demo", "x", "--port", "0")
    assert open_source("x", imports=["own"]).facts.image_size == 16


def test_config_of_others_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    main(["export", OLD, "--out", "x"])
    config = json.loads(Path("x/config.json").read_text())

    def read(generator: Any) -> str:
        Path("x/config.json").write_text(json.dumps({**config, "generator": generator}))
        with pytest.raises(UsageError) as caught:
            PretrainedGenerator.from_pretrained("x")
        return str(caught.value)

    message = read({"class_path": "evil.Evil", "init_args": {}})
    assert message == (
        "config.json: expected classes of imported modules, got evil.Evil; import its module first, if you trust it"
    )
    inner = {**config["generator"]["init_args"], "hidden": {"class_path": "evil.Evil"}}
    for other in ("evil.Evil", {**config["generator"], "init_args": inner}, "{class_path: evil.Evil}"):
        assert "got evil.Evil; import its module first" in read(other)
    popen = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}
    built = {"class_path": "lightning_cgan.pretrained._build", "init_args": {"description": popen}}
    nested = {**config["generator"], "init_args": {**config["generator"]["init_args"], "hidden": popen}}
    for other in (popen, built, nested, {"class_path": "os.system"}, {"class_path": "builtins.eval"}):
        assert re.search(
            r"got (subprocess.Popen|lightning_cgan.pretrained._build|os.system|builtins.eval); ", read(other)
        )
    misspelt = {**config["generator"], "init_args": {**config["generator"]["init_args"], "hiden": [8]}}
    assert "hiden" in read(misspelt)
    for other in ({"class_path": "torch.nn.Linear", "init_args": {}}, 5, {}, {"class_path": "MLPGenerator"}):
        assert read(other).startswith("config.json: expected a generator that this version can build, got another (")
    assert not Path("ran").exists()


def test_what_cannot_be_opened(fails: Fails) -> None:
    Path("empty").mkdir()
    for name in ("x.onnx", "x.pt2"):
        Path(name).write_text("hello")
    assert fails("demo", "x.pt2") == (
        "error: source: expected a checkpoint, a folder or an ONNX file, got x.pt2, which could run code of others'; "
        "export one of those"
    )
    for name in ("x.onnx", "empty"):
        kind = "folder" if name == "empty" else "file"
        assert fails("demo", name, "--port", "0").startswith(
            f"error: source: expected a {kind} that export wrote, got {name}, which is none ("
        )
    assert fails("demo", "xx.onnx", "--port", "0") == "error: source: no such file: xx.onnx; did you mean x.onnx?"
    assert fails("demo").startswith("error: source: expected a file, got none; name one")
