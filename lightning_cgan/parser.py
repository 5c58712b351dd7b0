"""The argument parser: Lightning's, whose errors are one line that names the nearest thing that exists."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_args

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_cgan.class_options import MODE, with_classes
from lightning_cgan.config_files import expand_homes, read_as_utf8
from lightning_cgan.errors import UsageError, did_you_mean, no_such_file

_PACKAGE = Path(__file__).parent
# A wheel has the configs inside the package, a checkout beside it.
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
# Also those to lay over another, such as `with/tensorboard`
SHIPPED = {file.relative_to(_CONFIGS).with_suffix("").as_posix(): file for file in _CONFIGS.rglob("*.yaml")}

# The commands beside Lightning's, each a function whose arguments are its options; imported when it is called.
FUNCTIONS = {
    "generate": "lightning_cgan.generating",
    "export": "lightning_cgan.exporting.command",
    "demo": "lightning_cgan.demo",
}


class OneLineParser(LightningArgumentParser):
    """Lightning's parser of command lines and config files, with an error of one line on stderr and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviated option would be taken for the one that it begins, and so a misspelt one go unnoticed.
        super().__init__(*args, **{"allow_abbrev": False, "parser_mode": MODE, **kwargs})

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Parses as Lightning's parser does; `--config mnist` means the shipped one, if there is no file of that name.

        A config that is no text is the user's mistake.
        """
        given = sys.argv[1:] if args is None else args
        try:
            with read_as_utf8():
                if isinstance(given, list):
                    given = with_classes(_with_shipped(given))
                config = super().parse_args(given, *others, **kwargs)
            expand_homes(config)
            return config
        except UnicodeDecodeError as error:
            self.error(f"Problems parsing config: {error}", error)

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """Makes what has been parsed; a logger that cannot be made is the user's mistake."""
        try:
            return super().instantiate_classes(*args, **kwargs)
        except ValueError as error:
            if "Subtypes: [<class 'lightning.pytorch.loggers." not in str(error):
                raise
            raise UsageError(_broken_logger(str(error))) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong, and ends the program."""
        if not self.exit_on_error:
            super().error(message, ex)  # a parser inside another, which tells it in turn
        parser = getattr(ex, "subcommand_parser", None) or self
        sys.stderr.write(f"error: {one_line(message, parser)}\n")
        raise SystemExit(2)


def _with_shipped(args: list[str]) -> list[str]:
    """The same arguments, with the paths of configs that are shipped in the place of their names."""
    changed = []
    for before, arg in zip(["", *args], args, strict=False):
        option, value = arg.split("=", 1) if "=" in arg else (before, arg)
        is_name = option in ("--config", "-c") and value in SHIPPED and not Path(value).is_file()
        changed.append(f"{arg.removesuffix(value)}{SHIPPED[value]}" if is_name else arg)
    return changed


def call_function(command: str, args: Sequence[str]) -> None:
    """Calls the function behind a command of `FUNCTIONS`: arguments without a default go by place, the others by name.

    Args:
        command: Its name.
        args: What stands behind the name on the command line.
    """
    function = getattr(import_module(FUNCTIONS[command]), command)
    parser = OneLineParser(prog=f"python -m lightning_cgan {command}", description=None)
    parser.add_function_arguments(function, as_positional=True)
    function(**parser.instantiate_classes(parser.parse_args(list(args))).as_dict())


def refuse_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuses null for what must have a value: jsonargparse lets it through, and a class would stumble over it.

    Args:
        parser: The parser of a command.
        config: What it has parsed.

    Raises:
        UsageError: An option is null whose type does not say that it may be; the message names the first.
    """
    for action in parser._actions:
        hint, name = getattr(action, "_typehint", None), action.dest
        if hint is not None and name in config:
            if config[name] is None and action.default is not None:
                _refuse_null(name, hint)
            _refuse_nulls_of_classes(name, config[name])


def _refuse_nulls_of_classes(name: str, value: Any) -> None:
    for place, part in enumerate(value) if isinstance(value, list) else ():
        _refuse_nulls_of_classes(f"{name}.{place}", part)
    if isinstance(value, Namespace) and "class_path" in value and value.get("init_args"):
        parameters = _signature(value.class_path)
        for key, given in value.init_args.items():
            # What has no default is linked to the data, and not known yet.
            if given is None and key in parameters and parameters[key].default not in (None, inspect.Parameter.empty):
                _refuse_null(f"{name}.{key}", parameters[key].annotation)
            _refuse_nulls_of_classes(f"{name}.{key}", given)


def _refuse_null(name: str, hint: Any) -> None:
    text = hint.__name__ if isinstance(hint, type) else str(hint)
    if not re.search(r"None|Optional|Any|_empty", text):
        raise UsageError(f"--{name}: expected {text.removeprefix('typing.')}, got null; leave it out for its default")


def one_line(message: str, parser: LightningArgumentParser) -> str:
    """Says in one line what jsonargparse says in many.

    Args:
        message: The message of jsonargparse.
        parser: The parser that it comes from, which knows the options.
    """
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    for pattern, explain in _EXPLANATIONS:
        if match := re.search(pattern, message):
            return explain(match, key, message, parser)
    text = " ".join(re.sub(r'^Parser key "[^"]+":\s*', "", message).split())
    return f"--{key}: {text}" if key else text


def _unknown_argument(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    option = match[1].split("=")[0]
    hint = did_you_mean(option, _options(parser)) if option.startswith("-") else ""
    return f"{option}: no such option{hint or '; --help lists them'}"


def _unknown_config_key(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    wanted = match[1]
    hint = did_you_mean(wanted, (option.removeprefix("--") for option in _options(parser)))
    return f"{wanted}: no such option, in a config file{hint or '; --help lists them'}"


def _unknown_init_arg(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    path = (re.findall(r"class_path[=']* ?'([\w.]+)'", message) or [""])[-1]
    known = _parameters(path)
    hint = did_you_mean(match[1], known) or (f"; it takes {', '.join(known)}" if known else "")
    return f"--{key}.{match[1]}: {path.rpartition('.')[2] or 'the class'} has no such option{hint}"


def _unknown_class(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    known = sorted(set(_class_names(parser, key)))
    hint = did_you_mean(match[1], known) or (f"; known are {', '.join(known)}" if 0 < len(known) < 12 else "")
    return f"--{key}: expected the name of a class, got {match[1]}{hint or '; give its dotted path'}"


def _wrong_class(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    known = ", ".join(sorted(set(_class_names(parser, key))))
    return f"--{key}: expected a {match[2]}, got {match[1]}; known are {known}"


def _unknown_module(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    return f"--{key}: cannot import {match[1]}: {match[2].strip()}; check the dotted path, and that it is installed"


def _missing(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    names = [re.sub(r"^ *(fit|validate|test|predict)[.]", "", name).strip() for name in match[1].split(",")]
    if names in (["checkpoint"], ["source"]):  # of `FUNCTIONS`
        return f"{names[0]}: expected a file, got none; name one, such as runs/mnist/…/checkpoints/last.ckpt"
    if key:
        return f"--{key}: expected a value for {' and '.join(names)}, got none; give --{key}.{names[0]}"
    options = ", ".join(f"--{name}" for name in names)
    return f"expected {options}, got none; start from a config, such as --config FILE.yaml"


def _no_file(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    return no_such_file(f"--{key or 'config'}", match[1], also_known=[*SHIPPED.values(), *map(Path, SHIPPED)])


def _wrong_choice(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    known = [*re.findall(r"'?(\w+)'?", match[2]), *FUNCTIONS]
    hint = did_you_mean(match[1], known) or f"; choose from {', '.join(known)}"
    return f"{match[1]}: no such command{hint}"


def _wrong_literal(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    hint = did_you_mean(match[2], re.findall(r"[\w-]+", match[1]))
    return f"--{key}: expected one of {match[1]}, got {match[2]}{hint}"


def _wrong_type(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    expected = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", match[1])
    return f"--{key}: expected {expected}, got {' '.join(match[2].split())}"


def _wrong_union(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    names = re.findall(r"<class '(?:[\w.]*\.)?(\w+)'>|((?:list|dict|tuple|typing\.\w+)\[[^\n]*?\])(?=,|\])", match[1])
    expected = " or ".join(a or b for a, b in names)
    return f"--{key}: expected {expected}, got {' '.join(match[2].split())}".replace("NoneType", "null")


def _broken_logger(message: str) -> str:
    """What its constructor says, among what jsonargparse has tried beside it."""
    tried, _, given = message.partition("\nErrors:")[2].partition("\nGiven value type:")
    reasons = [part for part in tried.split("\n  - ")[1:] if not re.match("Expected a |Not a valid subclass", part)]
    reason = re.sub(r"^Problem with given class_path '[\w.]+':", "", reasons[0] if reasons else tried)
    names = ", ".join(re.findall(r"class_path='([\w.]+)'", given))
    return f"--trainer.logger: cannot make {names}: {' '.join(reason.split())}; mend that, or leave it out"


def _broken_yaml(match: re.Match[str], key: str, message: str, parser: LightningArgumentParser) -> str:
    return f"--config: not a readable YAML file ({' '.join(match[1].split())}); mend it at that place"


# What jsonargparse says, from the most to the least telling, and how to say it in one line.
_EXPLANATIONS = (
    (r"[Uu]nrecognized arguments: (\S+)", _unknown_argument),
    (r"does not accept option '([^']+)'", _unknown_config_key),
    (r"Option '([^']+)' is not accepted", _unknown_init_arg),
    (r"Expected a dot import path string: (\S+)", _unknown_class),
    (r"Import path (\S+) does not correspond to a subclass of (\w+)", _wrong_class),
    (r"class_path '([\w.]+)':\s+(No module named [^\n]+|[^\n]*has no attribute [^\n]+)", _unknown_module),
    (r"following arguments are required: ([^\n]+)", _missing),
    (r"(?:File does not exist|does not exist|not found|No such file)[^\n]*?'([^'\n]+)'", _no_file),
    (r"invalid choice: '([^']+)' \(choose from ([^)]*)\)", _wrong_choice),
    (r"Expected a (?:typing\.)?Literal\[([^\]]*)\][.\s]+Got value: (\S+)", _wrong_literal),
    (r"Expected a ([^\n]+?)\.\s+Got value: ([^\n]+)", _wrong_type),
    (r"Subtypes: \[([^\n]+\])[\s\S]*Given value: ([^\n]+)", _wrong_union),
    (r"Problems parsing config: ([\s\S]+)", _broken_yaml),
)


def _options(parser: LightningArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]


def _parameters(path: str) -> list[str]:
    """The names of the arguments that a class takes, given its dotted path."""
    return list(_signature(path))


def _signature(path: str) -> Mapping[str, inspect.Parameter]:
    """The arguments that a class takes, given its dotted path."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
        # Some releases of Python 3.11 look at `__new__` first, which in our classes takes anything.
        constructor = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
        return inspect.signature(constructor).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}


def _class_names(parser: LightningArgumentParser, key: str) -> Iterator[str]:
    """The names of the classes that fit an option."""
    for action in parser._actions:
        if action.dest == key:
            for base in _classes(getattr(action, "_typehint", None)):
                yield from (cls.__name__ for cls in _leaves(base) if not cls.__name__.startswith("_"))


def _classes(typehint: Any) -> Iterator[type]:
    """The classes that a type hint mentions, other than Python's own."""
    arguments: Iterable[Any] = typehint if isinstance(typehint, list) else get_args(typehint)
    if isinstance(typehint, type) and not arguments and typehint.__module__ not in ("builtins", "collections.abc"):
        yield typehint
    for argument in arguments:
        yield from _classes(argument)


def _leaves(base: type) -> Iterator[type]:
    """A class and its subclasses, as far as they can be instantiated."""
    if not inspect.isabstract(base) and not (base.__subclasses__() and base.__module__.endswith(".base")):
        yield base
    subclasses: list[type] = base.__subclasses__()
    for subclass in subclasses:
        yield from _leaves(subclass)
