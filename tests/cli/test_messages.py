"""What the command line says of mistakes, to the letter: the option as it was typed, what was expected, what was got."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from helpers.paths import DIGITS, OLD, PACKAGE
from lightning_cgan import Discriminator, Generator, GradientPenalty, LabelledImages
from lightning_cgan.cli.console import one_line_errors
from lightning_cgan.cli.hints import as_typed, plain
from lightning_cgan.cli.main import CLI, main
from lightning_cgan.cli.options import parameters_of
from lightning_cgan.cli.parser import FUNCTIONS, OneLineParser
from lightning_cgan.cli.trainer_messages import message_of_lightning, trainer_message
from lightning_cgan.evaluation.fakes import Gafi

Fails = Callable[..., str]
OF_DIGITS = (
    "batch_size, data_dir, classes, image_size, validation_fraction, predictions_per_class, memory_budget, balance"
)
OF_A_DCGAN = "latent_dim, channels, strides, kernel_size, negative_slope, activate_first, conditional_batch_norm, "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # values of the options of a class
        ("--data.image_size 2.5", "--data.image_size: expected int or [int, int] or null, got 2.5"),
        ("--data.image_size wide", "--data.image_size: expected int or [int, int] or null, got wide"),
        ("--data.validation_fraction half", "--data.validation_fraction: expected float, got half"),
        ("--model.generator.latent_dim 1.5", "--model.generator.latent_dim: expected int, got 1.5"),
        (
            "--model.discriminator.channels 64",
            "--model.discriminator.channels: expected list, got 64; a list is typed in brackets, such as [a, b]",
        ),
        ("--model.discriminator_optimizer.lr slow", "--model.discriminator_optimizer.lr: expected float, got slow"),
        ("--model.generator_optimizer.eps tiny", "--model.generator_optimizer.eps: expected float, got tiny"),
        (
            "--model.generator_optimizer.betas [0.5]",
            "--model.generator_optimizer.betas: expected tuple with 2 elements, got [0.5]",
        ),
        (
            "--model.generator_scheduler StepLR --model.generator_scheduler.step_size x",
            "--model.generator_scheduler.step_size: expected int, got x",
        ),
        (
            "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.save_top_k all",
            "--trainer.callbacks.save_top_k: expected int, got all",
        ),
        # options that a class has not
        ("--data.num_workers 4", f"--data.num_workers: DigitsData has no such option; it takes {OF_DIGITS}"),
        ("--data.x.y 4", f"--data.x.y: DigitsData has no such option; it takes {OF_DIGITS}"),
        (
            "--model.generator.x.y 3",
            f"--model.generator.x.y: DCGANGenerator has no such option; it takes {OF_A_DCGAN}label_embedding",
        ),
        ("--model.loss.margin 2", "--model.loss.margin: NonSaturating has no such option; it has none"),
        (
            "--model.penalties+=R2 --model.penalties.weight 3",
            "--model.penalties.weight: R2 has no such option; it takes gamma, interval",
        ),
        (
            "--model.generator_scheduler StepLR --model.generator_scheduler.power 2",
            "--model.generator_scheduler.power: StepLR has no such option; it takes step_size, gamma, last_epoch",
        ),
        (
            "--model.generator.latent_dim.size 3",
            "--model.generator.latent_dim.size: no such option; --model.generator.latent_dim has no options",
        ),
        (
            "--trainer.logger.save_dir here",
            "--trainer.logger.save_dir: expected a class that has the option, got none; name the class before it, such "
            "as --trainer.logger CSVLogger",
        ),
        # classes
        (
            "--model.loss null",
            "--model.loss: expected an AdversarialLoss, got null; known are Hinge, LeastSquares, NonSaturating, "
            "RelativisticPairing, Saturating, Wasserstein",
        ),
        (
            "--model.generator [1,2]",
            "--model.generator: expected a Generator, got [1, 2]; known are DCGANGenerator, MLPGenerator, "
            "R3GANGenerator, ResNetGenerator",
        ),
        (
            "--data torch.nn.Flatten",
            "--data: expected a LabelledImages, got torch.nn.Flatten; known are ArrayData, DigitsData, "
            "FashionMNISTData, ImageFolderData, KMNISTData, MNISTData",
        ),
        (
            "--model.penalties R2",
            "--model.penalties: expected list[GradientPenalty] or null, got R2; add one with --model.penalties+=R2",
        ),
        (
            "--model.penalties 7",
            "--model.penalties: expected list[GradientPenalty] or null, got 7; add one with --model.penalties+=R1",
        ),
        # values that are not there, or too many
        ("--data.batch_size", "--data.batch_size: expected a value, got none; type it after the option"),
        ("--name -x", "--name: expected a value, got none; if -x is the value, type --name=-x"),
        ("--runs_dir --threads 1", "--runs_dir: expected a value, got none; type it after the option"),
        ("--help=all", "--help: expected no value, got all; type --help alone"),
        ("digits", "digits: expected an option, got a value that belongs to none; --help lists them"),
        (
            "--curves fast",
            "--curves: expected a file with its options, got fast; give each option, such as --curves.every_n_seconds",
        ),
        # numbers and names
        ("--seed_everything -3", "--seed_everything: expected a number from 0 to 4294967295, got -3; give another"),
        (
            "--seed_everything 4294967296",
            "--seed_everything: expected a number from 0 to 4294967295, got 4294967296; give another",
        ),
        ("--seed_everything null", "--seed_everything: expected bool or int, got null"),
        ("--threads 5000", "--threads: expected at most 1024, got 5000; give a smaller number"),
        (
            f"--name {'é' * 150}",
            "--name: expected a name of at most 200 bytes, got 300; give a shorter one",
        ),
        (
            "--name ../mine",
            "--name: expected a name that a folder or file may have, got ../mine; give letters and digits",
        ),
        ("--name /mine", "--name: expected a name that a folder or file may have, got /mine; give letters and digits"),
        (
            "--name a\0b",
            r"--name: expected a name that a folder or file may have, got a\x00b; give letters and digits",
        ),
        (
            "--name a\x1bb",
            r"--name: expected a name that a folder or file may have, got a\x1bb; give letters and digits",
        ),
        # the Trainer's
        ("--trainer.deterministic x", "--trainer.deterministic: expected 'warn' or bool or null, got x"),
        (
            "--trainer.max_steps -7",
            "--trainer.max_steps: expected another value, got -7 (`max_steps` must be a non-negative integer or -1 "
            "(infinite steps). You passed in -7); change or omit it",
        ),
        (
            "--trainer.num_nodes 3",
            "--trainer.num_nodes: expected MASTER_ADDR, MASTER_PORT, NODE_RANK in the environment of each of 3 nodes, got "
            "none; start it with srun or torchrun, or omit it",
        ),
    ],
)
def test_exact_line(fails: Fails, tmp_path: Path, arguments: str, message: str) -> None:
    assert (
        fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *arguments.split(" ")) == f"error: {message}"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--trainer.precision transformer-engine",
        "--trainer.accelerator tpu",
        "--trainer.strategy xla",
        "--trainer.profiler xla",
        "--trainer.profiler fast",
        "--trainer.max_time soon",
        "--trainer.devices 0",
        "--trainer.strategy deepspeed_stage_2",
        "--trainer.limit_val_batches 1.5",
        "--trainer.fast_dev_run -1",
    ],
)
def test_lightnings_options_are_named(fails: Fails, tmp_path: Path, arguments: str) -> None:
    option, value = arguments.split()
    line = fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *arguments.split())
    assert line.startswith(f"error: {option}: expected another value, got {value} (")
    assert line.endswith("); change or omit it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands_say_the_same(fails: Fails, command: str) -> None:
    line = fails(command, "--config", DIGITS, "--data.image_size", "2.5")
    assert line == "error: --data.image_size: expected int or [int, int] or null, got 2.5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "expected options and their values in own.yaml, got - a - b; --help lists the options"),
        ("", "expected options and their values in own.yaml, got nothing; --help lists the options"),
        ("hello", "expected options and their values in own.yaml, got hello; --help lists the options"),
        ("3: 4", "expected the name of an option, got 3; --help lists them"),
        (
            "name: a\nname: b\n",
            "expected each option once in own.yaml, got name in lines 1 and 2; remove one of them",
        ),
        (
            "trainer: {max_steps: 1}\nmodel:\n  ema_half_life: 1\n  latents: normal\n  ema_half_life: 2\n",
            "expected each option once in own.yaml, got model.ema_half_life in lines 3 and 5; remove one of them",
        ),
    ],
)
def test_what_is_no_config(fails: Fails, content: str, message: str) -> None:
    Path("own.yaml").write_text(content)
    assert fails("fit", "--config", DIGITS, "--config", "own.yaml") == f"error: --config: {message}"


@pytest.mark.parametrize(
    "content", [b"trainer:\n\tmax_steps: 3\n", bytes(range(256)), b"name: \xe9", b"a: *x", b"a: !x y"]
)
def test_what_is_no_yaml(fails: Fails, content: bytes) -> None:
    Path("own.yaml").write_bytes(content)
    line = fails("fit", "--config", DIGITS, "--config", "own.yaml")
    assert line.startswith("error: --config: not a readable YAML file in own.yaml (")
    assert line.endswith("); fix it there")


def test_a_folder_is_no_config(fails: Fails) -> None:
    Path("own.yaml").mkdir()
    line = fails("fit", "--config", DIGITS, "--config", "own.yaml")
    assert re.fullmatch("error: --config: expected a file, got .*own.yaml, which is a folder; name a file", line)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (str(int), "int"),
        ("typing.Optional[list[torch.Tensor]]", "list[Tensor]"),
        ("typing.Callable[[collections.abc.Iterable], torch.optim.optimizer.Optimizer]", "Optimizer"),
        ("<class 'collections.abc.Sequence'>", "list"),
        ("str | None", "str | null"),
    ],
)
def test_type_hints_in_words(hint: str, text: str) -> None:
    assert plain(hint).replace("Optional[list[Tensor]]", "list[Tensor]") == text


def test_values_as_they_are_typed() -> None:
    assert [as_typed(value) for value in ("None", "True", "x\n y", "NestedArg(key='a', val='b c')", "")] == [
        *("null", "true", "x y", "b c", "nothing"),
    ]


# ---- Lightning's errors ------------------------------------------------------------------------------------------------


def test_what_lightning_refuses_later_names_its_option() -> None:
    with pytest.raises(MisconfigurationException) as refused:
        Trainer(fast_dev_run=-1, logger=False, accelerator="cpu")
    about = "fast_dev_run=-1 is not a valid configuration. It should be >= 0"
    assert message_of_lightning(refused.value) == f"--trainer.fast_dev_run: {about}"
    assert message_of_lightning(ValueError("`max_steps` is ours")) is None  # raised elsewhere


@pytest.mark.parametrize(
    ("reason", "options", "start"),
    [
        ("`num_nodes` is bad", {"devices": 2, "num_nodes": 3}, "--trainer.num_nodes: expected another value, got 3 ("),
        (
            "Requirement 'torch_xla' not met.",
            {"accelerator": "tpu"},
            "--trainer.accelerator: expected another value, got",
        ),
        ("`Timer(duration='x')`", {"max_time": "x"}, "--trainer.max_time: expected another value, got x ("),
        ("anything", {"max_steps": 3}, "--trainer: anything"),
    ],
)
def test_which_option_is_blamed(reason: str, options: dict[str, object], start: str) -> None:
    assert trainer_message(ValueError(reason), options).startswith(start)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--wandb.mode offline --wandb.project a/b", "Invalid project name 'a/b': cannot contain characters"),
        ("--wandb.mode offline --wandb.project a#b", "Invalid project name 'a#b': cannot contain characters"),
    ],
)
def test_what_weights_and_biases_refuses(fails: Fails, options: str, reason: str) -> None:
    line = fails("fit", "--config", DIGITS, "--trainer.accelerator", "cpu", *options.split())
    assert line.startswith(f"error: --wandb: expected options that Weights & Biases accepts, got its error ({reason}")
    assert line.endswith("); change them, or disable it with --wandb.mode disabled")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_run_whose_disk_is_full_ends_in_one_line(capsys: pytest.CaptureFixture[str], number: int) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise OSError(number, os.strerror(number), "runs/x.csv")
    assert ended.value.code == 1
    said = f"error: runs/x.csv: {os.strerror(number)}; free disk space, or choose another folder\n"
    assert capsys.readouterr().err == said
    with pytest.raises(FileNotFoundError), one_line_errors():  # a fault of the program's
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")


# ---- switches ----------------------------------------------------------------------------------------------------------


def parsed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", DIGITS, *arguments, "--print_config"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--tensorboard", "tensorboard: true"),
        ("--tensorboard --threads 1", "tensorboard: true"),
        ("--no_tensorboard", "tensorboard: false"),
        ("--tensorboard false", "tensorboard: false"),
        ("--tensorboard=true", "tensorboard: true"),
        ("--trainer.fast_dev_run", "  fast_dev_run: true"),
        ("--trainer.fast_dev_run -1", "  fast_dev_run: -1"),
        ("--predictions.top_up --name x", "  top_up: true"),
        ("--model.share_fakes", "  share_fakes: true"),
    ],
)
def test_a_switch_is_typed_as_one(capsys: pytest.CaptureFixture[str], arguments: str, line: str) -> None:
    assert line in parsed(capsys, *arguments.split()).splitlines()


def test_what_is_no_switch_needs_a_value(fails: Fails) -> None:
    for option in ("--seed_everything", "--trainer.logger", "--threads"):
        line = fails("fit", "--config", DIGITS, option)
        assert line == f"error: {option}: expected a value, got none; type it after the option"
    assert fails("fit", "--config", DIGITS, "--no_name") == "error: --no_name: no such option; did you mean --name?"


def test_switches_of_generate(fails: Fails) -> None:
    main(["generate", "--no_ema", OLD, "--count", "1"])
    main(["generate", "--overwrite", OLD, "--count", "1"])  # the file is no value of the switch
    main(["generate", OLD, "--count", "1", "--overwrite", "--ema", "false"])
    assert fails("generate", OLD, "--overwrite", "false").endswith("which exists; name another, or add --overwrite")
    assert fails("generate", OLD, "--overwrite", "maybe") == "error: --overwrite: expected bool, got maybe"


# ---- advice ------------------------------------------------------------------------------------------------------------


BASES = {
    "data": LabelledImages,
    "model.generator": Generator,
    "model.discriminator": Discriminator,
    "model.penalties": GradientPenalty,
    "report.gafi": Gafi,
}


def texts(file: Path) -> Iterator[str]:
    """The texts of a program but for its docstrings, with {} where an f-string has a value."""
    tree = ast.parse(file.read_text())
    nodes = list(ast.walk(tree))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | parts):
            yield node.value


# Read before any test has started a thread: Python 3.11 confuses two that parse at once.
NAMED = {
    (file.name, option)
    for file in PACKAGE.rglob("*.py")
    for text in texts(file)
    for option in re.findall(r"(?<![\w-])--[a-z](?:[\w-]*\w)?(?:\.\w+)*(?![\w.]*[{*\[(\\?])", text)
}


def test_every_option_that_a_message_names_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CLI] = []
    monkeypatch.setattr(CLI, "parse_arguments", lambda cli, parser, args: seen.append(cli) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        CLI([])  # the parsers of all commands
    known = {
        "--help",
        "--version",
        "--no_",
        "--no_ema",
        "--no_prune",
        "--ntasks",
        "--ntasks-per-node",
    }  # --no_… is a prefix, the last two are SLURM's
    for command in ("fit", "validate", "test", "predict"):
        parser = seen[0]._parser(command)
        known.update(option for action in parser._actions for option in action.option_strings)
        for key, base in BASES.items():
            for cls in subclasses(base):
                path = f"{cls.__module__}.{cls.__qualname__}"
                known.update(f"--{key}.{name}" for name in parameters_of(path, parser, key, False))
    for command, module in FUNCTIONS.items():
        parser = OneLineParser()
        function = getattr(__import__(module, fromlist=[command]), command)
        parser.add_function_arguments(function, as_positional=True)
        known.update(option for action in parser._actions for option in action.option_strings)
    assert len(NAMED) > 60
    assert {(file, option) for file, option in NAMED if not is_known(option, known)} == set()


def is_known(option: str, known: set[str]) -> bool:
    """Whether it is an option, or the switch of one, or a group of them."""
    return option in known or any(other.startswith(f"{option}.") for other in known)


def subclasses(base: type) -> Iterator[type]:
    yield base
    for subclass in base.__subclasses__():
        if subclass.__module__.startswith("lightning_cgan"):
            yield from subclasses(subclass)
