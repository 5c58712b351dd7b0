"""Text is UTF-8 on every system, and `~` is a home wherever a path may stand."""

from __future__ import annotations

import ast
import builtins
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace

from helpers.paths import PACKAGE
from lightning_cgan import DigitsData, ImageFolderData, UsageError
from lightning_cgan.cli.config_files import expand_homes
from lightning_cgan.cli.main import main
from lightning_cgan.core.files import cache_folder

SMALL = ("--data.image_size", "8", "--scores.images", "0", "--trainer.accelerator", "cpu", "--trainer.max_steps", "4")
_IMAGES = {"Image"}  # Pillow's own `open`


def calls_without_encoding(source: str) -> list[int]:
    """The lines on which text is read or written in the encoding of the system."""

    def is_text(call: ast.Call, name: str) -> bool:
        if name in ("read_text", "write_text"):
            return True
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        modes += [k.value.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
        return not any(set(mode) <= set("rwaxb+") and "b" in mode for mode in modes)

    found = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            owner = getattr(getattr(call.func, "value", None), "id", "")
            opens = name in ("open", "fdopen", "read_text", "write_text") and owner not in {*_IMAGES, "os"}
            if opens and is_text(call, name) and not any(k.arg == "encoding" for k in call.keywords):
                found.append(call.lineno)
    return found


def test_the_check_itself() -> None:
    bad = ["open(f)", "f.open('r')", "f.write_text(t)", "open(f, mode='w')", "f.read_text(errors='replace')"]
    good = ["open(f, 'rb')", "f.open('ab')", "f.write_text(t, encoding='utf-8')", "Image.open(f)", "open(f, mode='xb')"]
    assert calls_without_encoding("\n".join([*bad, *good])) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_every_text_file_says_its_encoding(file: Path) -> None:
    assert calls_without_encoding(file.read_text(encoding="utf-8")) == []


@pytest.fixture
def _as_on_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Text is cp1252 where nobody says otherwise; what others than the package open does not count."""
    real = io.open

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *more: Any, **named: Any
    ) -> Any:
        plain = "b" not in mode and encoding in (None, "locale")
        return real(file, mode, buffering, "cp1252" if plain else encoding, *more, **named)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(io, "open", opened)
    yield
    monkeypatch.undo()


@pytest.mark.ci
@pytest.mark.usefixtures("_as_on_windows")
def test_a_run_whose_names_are_no_latin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = "\ufeff# как обычно\nname: 猫\nwandb: {tags: [Ξένος]}\ntrainer: {log_every_n_steps: 2}\n"
    Path("мой.yaml").write_bytes(mine.encode())
    options = ("--config", "digits", "--config", "мой.yaml", "--runs_dir", "Иван", *SMALL)
    main(["fit", *options, "--trainer.enable_progress_bar", "false"])
    (folder,) = Path("Иван/猫").iterdir()
    for name in ("config.yaml", "metrics.csv", "curves.png", "samples.gif"):
        assert (folder / name).exists()
    config = yaml.safe_load((folder / "config.yaml").read_bytes().decode("utf-8"))
    assert (config["runs_dir"], config["name"], config["wandb"]["tags"]) == ("Иван", "猫", ["Ξένος"])
    main(["fit", "--config", str(folder / "config.yaml"), "--trainer.max_steps", "6", "--ckpt_path", "last"])
    assert len((folder / "metrics.csv").read_bytes().decode("utf-8").splitlines()) == 4
    assert (folder / "config_2.yaml").exists()
    capsys.readouterr()


def test_a_config_in_another_encoding(fails: Callable[..., str]) -> None:
    Path("latin.yaml").write_bytes("name: Zoë\n".encode("latin-1"))
    assert fails("fit", "--config", "latin.yaml").startswith(
        "error: --config: not a readable YAML file in latin.yaml ('utf-8' codec"
    )


@pytest.mark.parametrize("given", ["~", "~/a b", "~root/x"])
def test_homes_in_every_place_of_a_config(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    homes = {"~": "/home/me", "~/a b": "/home/me/a b", "~root/x": "/superuser/x"}
    monkeypatch.setattr("os.path.expanduser", lambda path: homes.get(path, path))
    nested = Namespace(class_path="C", init_args=Namespace(save_dir=given, classes=[given, "~x"], count=3))
    config = Namespace(
        fit=Namespace(runs_dir=given, data=nested, logger=[nested.clone(), {"dir": given}], other="a~/b")
    )
    expand_homes(config)
    fit, found = config.fit, homes[given]
    assert (fit.runs_dir, fit.data.init_args.save_dir, fit.logger[1]["dir"]) == (found, found, found)
    assert fit.logger[0].init_args.save_dir == found
    assert (fit.data.init_args.classes, fit.data.init_args.count, fit.other) == ([given, "~x"], 3, "a~/b")


def test_a_run_in_a_home_is_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "mine.yaml").write_text("runs_dir: ~/runs\n", encoding="utf-8")
    main(["fit", "--config", "digits", "--config=~/mine.yaml", "--trainer.default_root_dir=~/root", *SMALL])
    (folder,) = (home / "runs" / "digits").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (config["runs_dir"], config["trainer"]["default_root_dir"]) == (str(home / "runs"), str(home / "root"))
    checkpoint = f"~/{(folder / 'checkpoints' / 'last.ckpt').relative_to(home)}"
    main(["fit", "--config", "digits", "--config=~/mine.yaml", *SMALL, f"--ckpt_path={checkpoint}"])
    assert (folder / "config_2.yaml").exists()
    main(["generate", checkpoint, "--labels", "1", "--count", "2", "--out=~/ones.png"])
    assert (home / "ones.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_homes_in_variables_and_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LIGHTNING_CGAN_DATA", "~/sets")
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", "~/kept")
    assert DigitsData().data_dir == tmp_path / "sets"
    assert DigitsData(data_dir="~/others").data_dir == tmp_path / "others"
    assert cache_folder() == tmp_path / "kept"
    with pytest.raises(UsageError, match=f"{tmp_path}/images"):
        ImageFolderData("~/images")
