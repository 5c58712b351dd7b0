"""What has been exported, read by others: only what is known runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from helpers.paths import OLD
from lightning_cgan import ConditionalGAN, MLPGenerator, PretrainedGenerator, UsageError
from lightning_cgan.cli.main import main
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.onnx_and_pt2 import write_onnx
from lightning_cgan.export.source import load_source

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
    assert load_source("x", imports="own").metadata.image_size == 16


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
    assert "got evil.Evil; import its module first" in read({**config["generator"], "init_args": inner})
    for text in ("evil.Evil", "{class_path: evil.Evil}", '{"class_path": "evil.Evil"}', "{class_path:\tevil.Evil}"):
        assert read(text).startswith("config.json: expected a description of Generator, got ")
        inner = {**config["generator"]["init_args"], "hidden": text}
        assert "expected Sequence for hidden, got " in read({**config["generator"], "init_args": inner})
    popen = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}
    built = {"class_path": "lightning_cgan.export.pretrained.build", "init_args": {"description": popen}}
    nested = {**config["generator"], "init_args": {**config["generator"]["init_args"], "hidden": popen}}
    for other in (popen, built, nested, {"class_path": "os.system"}, {"class_path": "builtins.eval"}):
        named = r"got (subprocess.Popen|lightning_cgan.export.pretrained.build|os.system|builtins.eval); other classes are not built"
        assert re.search(named, read(other))
    misspelt = {**config["generator"], "init_args": {**config["generator"]["init_args"], "hiden": [8]}}
    message = "config.json: expected options of MLPGenerator, got hiden; did you mean hidden?"
    assert read(misspelt) == message
    layer = {"class_path": "torch.nn.Linear", "init_args": {}}
    assert read(layer).startswith("config.json: expected a description of Generator, got torch.nn.Linear; ")
    for value in (5, {}, None, []):
        assert read(value).startswith("config.json: expected a description of Generator, got ")
    assert not Path("ran").exists()


WRONG: tuple[dict[str, str], ...] = (
    {"latent_dim": "-1"},
    {"latent_dim": "7"},
    {"class_names": "[]"},
    {"class_names": json.dumps([*"0123456789", "ten"])},
    {"image_size": "0"},
    {"image_size": "16"},
    {"image_channels": "3"},
    {"latents": "other"},
)


def test_onnx_of_others_whose_metadata_are_wrong() -> None:
    module = ConditionalGAN.load_from_checkpoint(OLD, map_location="cpu")
    embedded = MLPGenerator(10, 1, 8, module.generator.latent_dim, (4,), label_embedding=2)
    write_onnx(embedded.eval(), ExportMetadata.of(module), Path("x.onnx"))
    assert load_source("x.onnx").metadata.image_size == 8
    for told in WRONG:
        program = onnx.load("x.onnx")
        for entry in program.metadata_props:
            entry.value = told.get(entry.key, entry.value)
        onnx.save(program, "wrong.onnx")
        with pytest.raises(UsageError, match=r"source: expected a file that export wrote, got wrong\.onnx \("):
            load_source("wrong.onnx")


def test_what_cannot_be_opened(fails: Fails) -> None:
    Path("empty").mkdir()
    for name in ("x.onnx", "x.pt2"):
        Path(name).write_text("hello")
    assert fails("demo", "x.pt2") == (
        "error: source: expected a checkpoint, a folder or an ONNX file, got x.pt2, which could run code when loaded; "
        "export one of those"
    )
    for name in ("x.onnx", "empty"):
        kind = "folder" if name == "empty" else "file"
        assert fails("demo", name, "--port", "0").startswith(
            f"error: source: expected a {kind} that export wrote, got {name} ("
        )
    assert fails("demo", "xx.onnx", "--port", "0") == "error: source: no such file: xx.onnx; did you mean x.onnx?"
    assert fails("demo").startswith("error: source: expected a file, got none; name one")
