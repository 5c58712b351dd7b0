"""Whatever stands in a file where a description or a text may stand, nothing is built that is not on the list.

`FUZZED_INPUTS=5000 python -m pytest tests/fuzz/test_descriptions.py -s` tries as many, and says how each way in ended.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from random import Random, randrange
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn, optim
from torch.optim import lr_scheduler, swa_utils
from torch.utils.data import DataLoader

import lightning_cgan
from helpers.mutations import JUNK, TENSORS
from helpers.paths import OLD
from lightning_cgan import (
    R1,
    ArrayData,
    AtomicCheckpointIO,
    AuxiliaryClassifier,
    ConditionalGAN,
    MLPGenerator,
    UsageError,
)
from lightning_cgan.cli.main import main
from lightning_cgan.core import building
from lightning_cgan.export.source import load_checkpoint, load_source
from lightning_cgan.networks.base import Network
from lightning_cgan.objectives.augmentations import Augmentation
from lightning_cgan.objectives.losses import AdversarialLoss
from lightning_cgan.objectives.penalties import GradientPenalty


class Handing(ConditionalGAN):
    """A user's own module, which takes whatever it is given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


class Taking(MLPGenerator):
    """A user's own network, which takes whatever it is given."""

    def __init__(self, anything: Any = None, made: Callable[[], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.kept = [anything, made]


class _Hidden(R1):
    pass


# The list, written down in another way: by the names that each package declares.
_CONTRACTS = (Network, AdversarialLoss, AuxiliaryClassifier, GradientPenalty, Augmentation)
LISTED = {getattr(package, name) for package in (nn.modules, optim, lr_scheduler) for name in package.__all__}
LISTED |= {found for name in lightning_cgan.__all__ if isinstance(found := getattr(lightning_cgan, name), type)}
_BASES = (nn.Module, optim.Optimizer, lr_scheduler.LRScheduler, *_CONTRACTS)
LISTED = {cls for cls in LISTED if isinstance(cls, type) and issubclass(cls, _BASES)}
LISTED -= {ConditionalGAN, lightning_cgan.PretrainedGenerator, nn.DataParallel}
LISTED |= {Taking, Network, nn.Module, optim.Optimizer, lr_scheduler.LRScheduler, swa_utils.SWALR}

# fmt: off
HOSTILE = [
    "os.system", "posix.system", "subprocess.Popen", "builtins.print", "builtins.eval", "builtins.exec", "spy",
    "spy.Loss", "spy.inner.Loss", "importlib.import_module", "functools.partial", "pickle.loads", "pathlib.Path",
    "torch.load", "torch.hub.load", "torch.jit.ScriptModule", "torch.nn.DataParallel", "torch.nn.init.normal_",
    "torch.nn.quantized.Linear", "torch.nn.Module.__subclasses__", "torch.optim._functional.adam", "torch.nn.os",
    "torch.optim.swa_utils.AveragedModel", "torch.distributed.optim.ZeroRedundancyOptimizer", "webbrowser.open",
    "lightning_cgan.export.pretrained.build", "lightning_cgan.core.building._call", "lightning_cgan.core.building.functools.partial",
    "lightning_cgan.cli.main.main", "lightning_cgan.ConditionalGAN", "lightning_cgan.ArrayData", "lightning_cgan.spy",
    "lightning_cgan.Hinge.__class__", "lightning_cgan.Hinge.__init__.__globals__", "lightning_cgan.Hinge.__new__",
    "lightning_cgan.core.serialization.ConfigMixin", "lightning_cgan.PretrainedGenerator", "lightning_cgan.Checkpoints",
    f"{__name__}._Hidden", f"{__name__}.Handing", f"{__name__}.Path", "__main__.os", "Hinge", "",
    ".", "..", "a..b", " lightning_cgan.Hinge", "lightning_cgan.Hinge\n", "lightning_cgan.hinge", "1.2", "é.é",
]
# fmt: on
HOSTILE += ["lightning_cgan/Hinge", "lightning_cgan:Hinge", "x" * 5000, "\x1b[2J.x", "spy\x00.Loss", "\udcff.Loss"]
KNOWN = [
    "lightning_cgan.Hinge",
    "lightning_cgan.objectives.losses.Hinge",
    "lightning_cgan.R1",
    "lightning_cgan.MLPGenerator",
]
KNOWN += [
    "lightning_cgan.AuxiliaryClassifier",
    "lightning_cgan.Translation",
    f"{__name__}.Taking",
    "torch.nn.ReLU",
]
KNOWN += ["torch.nn.modules.activation.GELU", "torch.optim.Adam", "torch.optim.sgd.SGD", "torch.nn.Transformer"]
KNOWN += [
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.optim.lr_scheduler.SequentialLR",
    "torch.nn.TripletMarginWithDistanceLoss",
]
FORMS = [
    "{}",
    " {} ",
    "{{class_path: {}}}",
    "{{class_path:\t{}}}",
    '{{"class_path": "{}"}}',
    '{{\t"class_path":\t"{}"}}',
]
FORMS += ["class_path: {}\ninit_args: {{a: 2020-99-99}}", "{{class_path: {}, dict_kwargs: {{a: 2020-99-99}}}}", "- {}"]
FORMS += [
    "!!python/name:{}",
    "!!python/object/apply:{} [x]",
    "!!python/module:{}",
    "--- 1\n--- {{class_path: {}}}",
    "[{}]",
]
FORMS += [
    "&a {{class_path: {}, b: *a}}",
    "{{<<: {{class_path: {}}}}}",
    "? class_path\n: {}",
    "%YAML 1.1\n---\n{}",
    "'{}'",
]
FORMS += [
    "{{class_path: {}, init_args: {{a: 00014, b: 1:30, c: 0o17, d: .inf, e: no}}}}",
    "@{}",
    "$({})",
    "`{}`",
    "{}()",
]
OTHERS = [(1, 2), OrderedDict(a=1), torch.float32, [[[[[[0]]]]]], *TENSORS, *JUNK]

KEYS = ["anything", "made", "hidden", "gamma", "lr", "lr_lambda", "schedulers", "params", "self", "x", "a.b"]
OF_FILES = ["class_path", "init_args", "dict_kwargs", "_class_path", "_instantiator", "__class__"]


def text(chance: Random) -> str:
    return chance.choice(FORMS).format(chance.choice([*HOSTILE, *HOSTILE, *KNOWN]))


def hostile(chance: Random, depth: int = 0) -> Any:
    """A text, a description or another value, which may hold such in turn."""
    kind = chance.choice(
        ["text", "text", "other", "description", "description", "odd", "list"][: 7 if depth < 4 else 3]
    )
    if kind == "text":
        return text(chance)
    if kind == "other":
        return deepcopy(chance.choice(OTHERS))
    if kind == "list":
        return [hostile(chance, depth + 1) for _ in range(chance.randrange(3))]
    path = chance.choice([*HOSTILE, *KNOWN]) if kind == "description" else hostile(chance, depth + 1)
    described = {"class_path": path}
    for name, likely in (("init_args", 0.7), ("dict_kwargs", 0.05 if kind == "description" else 0.5)):
        if chance.random() < likely:
            keys = [chance.choice([*KEYS, text(chance)]) for _ in range(chance.randrange(3))]
            arguments = {key: hostile(chance, depth + 1) for key in keys}
            described[name] = arguments if chance.random() < 0.9 else hostile(chance, depth + 1)
    return described


def changed(chance: Random, tree: dict[str, Any]) -> dict[str, Any]:
    """A tree of arguments with something hostile in one or two places, or as one more key."""
    tree = deepcopy(tree)
    for _ in range(chance.randint(1, 2)):
        parent: Any = tree
        while inner := [value for value in _values(parent) if isinstance(value, (dict, list)) and value]:
            if chance.random() < 0.35:
                break
            parent = chance.choice(inner)
        if isinstance(parent, list) and chance.random() < 0.5:
            parent.append(hostile(chance))
        elif isinstance(parent, dict) and chance.random() < 0.25:
            parent[chance.choice([*KEYS, *OF_FILES, text(chance)])] = hostile(chance)
        else:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            parent[chance.choice(keys)] = hostile(chance)
    return tree


def _values(container: Any) -> list[Any]:
    return list(container.values()) if isinstance(container, dict) else list(container)


_call = building._call


class Watch:
    """Sees what is built, called, imported, run and written while it looks."""

    def __init__(self) -> None:
        self.looks = False
        self.built: list[Any] = []
        self.events: list[str] = []
        sys.addaudithook(self._audit)  # for ever: there is no way to take one away

    @contextmanager
    def look(self) -> Iterator[None]:
        self.built, self.events, self.looks = [], [], True
        try:
            yield
        finally:
            self.looks = False

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.looks:
            return
        wants_write = event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
        runs = event.startswith(("subprocess", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket", "urllib"))
        is_code = event == "exec" and sys._getframe(1).f_globals.get("__name__") != "typing"  # which evaluates hints
        if runs or wants_write or is_code or event == "import":
            self.events.append(f"{event} {str(args[0])[:80]}")

    def call(self, *args: Any) -> Any:
        """Calls what builds an object, and takes down which class the interpreter sees it begin with."""
        sys.setprofile(self._profile)
        try:
            return _call(*args)
        finally:
            sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        code: CodeType = frame.f_code
        if event != "call" or frame.f_back is None or frame.f_back.f_code is not _call.__code__:
            return
        sys.setprofile(None)  # what is called within is the class's own affair
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_varnames else None
        if code.co_name in ("__new__", "__init__"):  # which get the class, or the object
            self.built.append(first if code.co_name == "__new__" else type(first))
        elif "lightning_cgan/building" not in Path(code.co_filename).as_posix():  # where it says what is wrong
            self.built.append(code)

    def partial(self, cls: Any, **keywords: Any) -> Any:
        self.built.append(cls)
        return functools.partial(cls, **keywords)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    (tmp_path / "spy.py").write_text("from pathlib import Path\n\nPath('ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = Watch()
    monkeypatch.setattr(building, "_call", seen.call)
    monkeypatch.setattr(building, "functools", SimpleNamespace(partial=seen.partial))
    return seen


class Ways:
    """Ways in for what a file describes."""

    def __init__(self) -> None:
        self.old = torch.load(OLD, weights_only=True)
        self.arguments = self.old["hyper_parameters"]
        own = {"anything": [None, {"a": [None]}], "made": None}
        own |= self.arguments["generator"]["init_args"]
        taking = {"class_path": f"{__name__}.Taking", "init_args": own}
        self.of_taking = {
            **self.arguments,
            "generator": taking,
            "augmentations": [{"class_path": "lightning_cgan.Color"}],
        }
        with redirect_stdout(StringIO()):
            main(["export", OLD, "--out", "exported"])
        self.config = json.loads(Path("exported/config.json").read_text())
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        self.trainer = Trainer(accelerator="cpu", enable_model_summary=False, plugins=[AtomicCheckpointIO()], **quiet)
        self.module = ConditionalGAN.load_from_checkpoint(OLD)

    def tree(self, way: str) -> dict[str, Any]:
        if way in ("from_pretrained", "folder"):
            generator = self.of_taking["generator"] if way == "from_pretrained" else self.config["generator"]
            return {"generator": generator, "class_names": self.config["class_names"]}
        if way == "data module":
            return {"arrays": {"images": [0], "labels": [0]}, "classes": [0], "image_size": 8}
        return self.of_taking if way in ("subclass", "command") else self.arguments

    def prepare(self, way: str, tree: dict[str, Any]) -> Callable[[], object]:
        """Writes a file, and returns what reads it."""
        if way in ("from_pretrained", "folder"):
            Path("exported/config.json").write_text(json.dumps(tree, default=repr))
            read = load_source if way == "folder" else lightning_cgan.PretrainedGenerator.from_pretrained
            return lambda: read("exported")
        if way == "data module":
            hyper = {**tree, "_instantiator": "lightning.pytorch.cli.instantiate_module"}
            torch.save({"datamodule_hyper_parameters": hyper, "pytorch-lightning_version": "2.6.0"}, "x.ckpt")
            return lambda: ArrayData.load_from_checkpoint("x.ckpt")
        torch.save({**self.old, "hyper_parameters": tree}, "x.ckpt")
        if way == "trainer":  # as `validate`, `test` and `predict` do: nothing is built from the file
            loader = DataLoader([0], batch_size=1)  # type: ignore[arg-type]
            return lambda: self.trainer.predict(self.module, loader, ckpt_path="x.ckpt")
        if way == "command":  # the beginning of `generate`, `invert`, `export` and `demo`
            return lambda: load_checkpoint("x.ckpt")
        cls = Handing if way == "subclass" else ConditionalGAN
        return lambda: cls.load_from_checkpoint("x.ckpt")


NAMES = ["checkpoint", "subclass", "command", "from_pretrained", "folder", "data module", "trainer"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inputs", [70, pytest.param(210, marks=pytest.mark.ci)])
def test_nothing_is_built_that_is_not_on_the_list(inputs: int, watch: Watch) -> None:
    ways, counts = Ways(), Counter[tuple[str, str]]()
    kinds = Counter[str]()

    def read(way: str, tree: dict[str, Any]) -> None:
        reads = ways.prepare(way, tree)
        ended = "built"
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as said:
            warnings.simplefilter("ignore")
            try:
                with watch.look():
                    reads()
            except UsageError as error:
                ended = "refused"
                assert "\n" not in str(error)  # noqa: PT017
                assert str(error).isprintable(), str(error)  # noqa: PT017
        counts[way, ended] += 1
        kinds.update(getattr(cls, "__name__", str(cls)) for cls in watch.built)
        module = {Handing if way == "subclass" else ConditionalGAN}
        assert set(watch.built) <= LISTED | module, watch.built
        assert watch.events == []
        assert not Path("ran").exists()
        assert "spy" not in sys.modules
        assert way in ("trainer", "from_pretrained") or said.getvalue() == ""

    for way in NAMES:  # what is right is built; and whatever PyTorch imports at its first use, it imports here
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            if way != "data module":
                ways.prepare(way, ways.tree(way))()
                read(way, ways.tree(way))
    assert {way for way, ended in counts if ended == "built"} == set(NAMES) - {"data module"}
    assert (kinds["MLPGenerator"], kinds["Taking"]) == (2, 3)
    counts.clear()

    begin = randrange(2**32) if "FUZZED_INPUTS" in os.environ else 0
    for number in range(begin, begin + int(os.environ.get("FUZZED_INPUTS", inputs))):
        way = NAMES[number % len(NAMES)]
        tree = changed(Random(number), ways.tree(way))
        try:
            read(way, tree)
        except Exception as error:
            raise AssertionError(f"{way} of {tree}, number {number}") from error
    assert {way for way, _ in counts} == set(NAMES)
    assert {ended for _, ended in counts} == {"built", "refused"}
    print("\n", "\n ".join(f"{way}: {ended} {count}" for (way, ended), count in sorted(counts.items())), sep="")
    print(" classes built:", ", ".join(f"{name} {count}" for name, count in sorted(kinds.items())))
