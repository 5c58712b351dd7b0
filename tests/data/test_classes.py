"""Classes by name, by number and as ranges: those that were typed, and no others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from helpers.quiet import quiet_trainer
from lightning_cgan import (
    ArrayData,
    ConditionalGAN,
    DigitsData,
    LabelledImages,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    SampleGrid,
    UsageError,
)
from lightning_cgan.cli.main import main
from lightning_cgan.cli.parser import OneLineParser
from lightning_cgan.core.classes import chosen_classes, find_classes
from lightning_cgan.data.base import Split

# To YAML all of these are something else, or nothing.
ODD = ["yes", "no", "on", "null", "~", "1e3", "0x10", "1_000", "2020-01-01", "2020-02-30", "12:30", "007", "08", "0.5"]
ODD += [
    "a, b",
    "[x]",
    "it's",
    '"q"',
    "#h",
    "k: v",
    "- dash",
    "&anchor",
    "*star",
    "!tag",
    "%",
    "@at",
    "{a}",
    "true",
    "é",
]
PLAIN = ODD[: ODD.index("a, b")]  # what may stand in a list without quotes
MONTHS = tuple(sorted(map(str, range(1, 13))))  # 1, 10, 11, 12, 2, …, as folders are listed


class Odd(LabelledImages):
    """Classes of the odd names, and of two numbers that are other classes than 007 and 0x10."""

    all_class_names = (*ODD, "7", "16")
    image_channels = 1
    native_image_size = 4

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        labels = torch.arange(24 * len(self.all_class_names)) % len(self.all_class_names)
        return torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels


@pytest.fixture
def chosen() -> Callable[..., tuple[str, ...]]:
    """What the parser makes of a command line; a config of what it has made is left as `written.yaml`."""
    parser = OneLineParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LabelledImages, "data")

    def names(*options: str, config: str = "{}") -> tuple[str, ...]:
        Path("given.yaml").write_text(config)
        parsed = parser.parse_args(["--data", f"{__name__}.Odd", "--config", "given.yaml", *options])
        Path("written.yaml").write_text(parser.dump(parsed))
        return Odd(classes=parsed.data.init_args.classes).class_names

    return names


def test_names_reach_the_data_as_they_were_typed(chosen: Callable[..., tuple[str, ...]]) -> None:
    assert chosen("--data.classes", f"[{', '.join(PLAIN)}]") == tuple(PLAIN)
    assert chosen(f"--data.classes={json.dumps(ODD)}") == tuple(ODD)
    assert chosen("--data.classes", "[7, 007, '16', 0x10]") == ("7", "007", "16", "0x10")
    for name in set(ODD) - {"null", "[x]"}:  # null takes a config's classes back; [x] is a list
        assert chosen(f"--data.classes={name}") == (name,)
    assert chosen("--data.classes", "a, b,007,on") == ("a, b", "007", "on")
    more = [name for name in ODD if name != "[x]"]
    assert chosen("--data.classes", "7", *(f"--data.classes+={name}" for name in more)) == ("7", *more)


def test_names_in_configs(chosen: Callable[..., tuple[str, ...]]) -> None:
    plain = "".join(f"\n      - {name} # as it is" for name in PLAIN)
    config = f"data:\n  class_path: {__name__}.Odd\n  init_args:\n    classes:{plain}\n      - &also 'é'\n"
    assert chosen(config=config) == (*PLAIN, "é")
    assert chosen(config=Path("written.yaml").read_text()) == (*PLAIN, "é")  # what a run writes reads back as the same
    assert chosen(config="data.classes: [on, 16, 'null', &x 08]") == ("on", "16", "null", "08")
    assert chosen(config="data.classes: 007") == ("007",)
    assert chosen("--data.classes", "null", config="data.classes: [on]") == Odd.all_class_names
    text = json.dumps({"class_path": f"{__name__}.Odd", "init_args": {"classes": ["08", 7]}}).replace('"08"', "08")
    assert chosen("--data", text) == ("08", "7")


def test_a_run_keeps_the_names_in_its_config_and_its_checkpoint(run: Callable[..., Path]) -> None:
    for name in ("00012", "00014", "12", "on"):
        Path("odd", name).mkdir(parents=True)
        for number in range(30):
            Image.new("L", (8, 8), 8 * number).save(f"odd/{name}/{number}.png")
    data = ("--data", "ImageFolderData", "--data.data_dir", "odd", "--data.image_size", "8", "--data.batch_size", "4")
    more = ("--scores.images", "0", "--trainer.max_steps", "1", "--data.classes", "[00014, on]", "--samples.labels")
    folder = run(*data, *more, "[on]")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["classes"] == ["00014", "on"]
    assert config["samples"]["labels"] == ["on"]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["lightning_cgan"]["data"]["classes"] == ["00014", "on"]


def test_a_number_is_what_is_no_name_and_has_no_quotes() -> None:
    names = ("001", "003", "5", "7")
    assert find_classes([5, "7"], names, "--data.classes") == [2, 3]
    with pytest.warns(UserWarning, match="no class is called") as warned:
        assert find_classes([1], names, "--data.classes") == [1]
    assert str(warned[0].message) == (
        "--data.classes: no class is called 1, so it is the number of 003, counted from 0; for the class 001, write 001"
    )
    assert find_classes([np.int64(0)], ("a", "b"), "x") == [0]  # type: ignore[list-item]
    expected = "x: expected names or numbers of classes, got"
    for wanted, got in (("1", "'1' in quotes"), (True, "True"), (-1, "-1"), (1.0, "1.0"), (None, "None")):
        with pytest.raises(UsageError) as raised:
            find_classes([wanted], ("a", "b"), "x")  # type: ignore[list-item]
        assert str(raised.value) == f"{expected} {got}; choose from 0 (a), 1 (b)"


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (MONTHS, "2-4", ["2", "3", "4"]),
        (MONTHS, "1-3,12", ["1", "2", "3", "12"]),  # and not 10 and 11
        (MONTHS, "9-11", ["9", "10", "11"]),
        (("2", "0", "seven"), "0-2", ["0", "2"]),
        (("00012", "00014", "00020"), "00012-00014", ["00012", "00014"]),
        (("a", "b", "c"), "1-2", ["b", "c"]),
        (("a-b", "a", "b", "c"), "a-b", ["a-b"]),
        (("T-shirt/top", "Trouser", "Bag"), "T-shirt/top-Trouser, 2", ["T-shirt/top", "Trouser", "Bag"]),
        (("1-2", "3-4", "5"), "1-2-3-4", ["1-2", "3-4"]),
        (("a,b", "a", "b", "c, d"), "b,a,b,c, d", ["b", "a,b", "c, d"]),
        (("x,1", "y", "z,2"), "x,1-z,2", ["x,1", "y", "z,2"]),
    ],
)
def test_ranges_and_commas(names: tuple[str, ...], text: str, expected: list[str]) -> None:
    assert [names[number] for number in chosen_classes(text, names, "--labels")] == expected


def test_wrong_ranges_are_told() -> None:
    for text, message in (
        ("0-4", "--labels: expected a range between two classes, got 0-4; there is no class 0"),
        ("4-2", "--labels: expected a range from a class to a later one, got 4-2; swap its ends"),
        ("4,,5", "--labels: expected names or numbers of classes, got nothing; choose from 0 (1), 1 (10), 2 (11), "),
        ("13-14", "--labels: expected names or numbers of classes, got 13-14; choose from 0 (1), 1 (10)"),
    ):
        with pytest.raises(UsageError) as raised:
            chosen_classes(text, MONTHS, "--labels")
        assert str(raised.value).startswith(message)
    with pytest.raises(UsageError, match="choose from 0, 1, 2, .* 18, 19, …$"):
        chosen_classes("x", tuple(map(str, range(30))), "--labels")


def test_spaces_and_normal_forms_do_not_matter_where_one_name_is_meant() -> None:
    cafe = normalize("NFD", "café")
    assert find_classes([" dog", "café"], ("dog ", cafe), "x") == [0, 1]
    assert find_classes(["dog", "dog "], ("dog ", "dog"), "x") == [1, 0]
    assert find_classes(["Cat", "cat"], ("cat", "Cat"), "x") == [1, 0]
    with pytest.raises(UsageError, match="got CAT; did you mean [Cc]at"):
        find_classes(["CAT"], ("cat", "Cat"), "x")
    with pytest.raises(UsageError, match="expected names or numbers"):
        find_classes([" dog"], ("dog ", "dog  "), "x")


def test_samples_show_the_classes_that_are_named() -> None:
    def rows(labels: Any, data: Any) -> list[int]:
        grid = SampleGrid(labels=labels)
        gan = ConditionalGAN(MLPGenerator(3, 1, 8, latent_dim=4), MLPDiscriminator(3, 1, 8), NonSaturating())
        quiet_trainer(1, callbacks=[grid]).fit(gan, data)
        return grid._numbers

    digits = DigitsData(batch_size=16, classes=["7", "2", "1"])
    assert rows(["2", 7], digits) == rows("2,7", digits) == [1, 0]
    assert rows(None, digits) == [0, 1, 2]
    assert rows("1-2", digits) == [2, 1]  # by names, as people count
    loader = torch.utils.data.DataLoader(list(zip(torch.zeros(8, 1, 8, 8), torch.arange(8) % 3, strict=True)), 4)
    assert rows([2], loader) == [2]
    with pytest.raises(UsageError, match="^--samples.labels: expected names or numbers of classes, got 9; choose from"):
        rows([9], digits)


def test_generate_takes_names_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("lightning_cgan.cli.generate.generate", _recording(seen))
    for typed in ("null", "0-3,7", "[007, on]", "00014", "{a}", "k: v", "#h"):
        main(["generate", "x.ckpt", f"--labels={typed}"])
    names = (*ODD, "00014")
    assert [chosen_classes(labels, names, "--labels") for labels in (seen[0], *seen[2:])] == [
        [names.index(name) for name in found]
        for found in (["null"], ["007", "on"], ["00014"], ["{a}"], ["k: v"], ["#h"])
    ]
    assert seen[1] == "0-3,7"


def _recording(seen: list[Any]) -> Any:
    from lightning_cgan.core.classes import Classes

    def generate(checkpoint: str, labels: Classes | None = None) -> None:
        seen.append(labels)

    generate.__annotations__ = {"checkpoint": str, "labels": Classes | None, "return": None}
    return generate


def test_names_from_python() -> None:
    arrays = {"images": np.zeros((12, 4, 4), np.uint8), "labels": np.arange(12) % 3, "class_names": ["10", "09", "x,y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ArrayData(arrays, classes=["09", 10]).class_names == ("09", "10")
        assert ArrayData(arrays, classes="x,y,09").class_names == ("x,y", "09")
        assert ArrayData(arrays, classes=[2, "10"]).class_names == ("x,y", "10")
