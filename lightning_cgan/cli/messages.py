"""Shortens errors of jsonargparse to one line: the option as it was typed, the expected value and the given one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_cgan.cli.hints import as_typed, parts_of, plain
from lightning_cgan.cli.options import class_names, options_of, parameters_of
from lightning_cgan.cli.renamed import CONFIGS, VALUES, new_name
from lightning_cgan.cli.shipped import SHIPPED, given_configs, is_config
from lightning_cgan.core.errors import did_you_mean, no_such_file

_MOST = 12  # names in a message


@dataclass(frozen=True)
class Complaint:
    """An error in an option."""

    key: str  # the option without its hyphens; empty if the message names none
    path: str  # the dotted path of the class that the option belongs to; empty if none
    is_called: bool  # whether the package supplies the class's first argument, as for an optimizer
    text: str  # the message of jsonargparse about the option
    parser: ArgumentParser
    given: Sequence[str]  # the command line


def one_line(message: str, parser: ArgumentParser, given: Sequence[str] = ()) -> str:
    """Shortens a message of jsonargparse to one line, with options as they were typed in the given command line."""
    complaint = _innermost(message, parser, given)
    for pattern, explain in _EXPLANATIONS:
        if match := re.search(pattern, complaint.text):
            return explain(match, complaint)
    text = " ".join(complaint.text.split())
    return f"--{complaint.key}: {text}" if complaint.key else text


_DEEPER = re.compile(
    r"""Parser key "(?P<key>[^"]+)"[^\n:]*:|Problem with given class_path '(?P<path>[\w.]+)':"""
    r"""|(?P<call>expects a function or a callable class: )(?=Parser key)"""
    r"""|^(?:argument )?(?:-\w/)?--(?P<typed>[\w.]+)(?:/--[\w.+]+)?: """
)


def _innermost(message: str, parser: ArgumentParser, given: Sequence[str]) -> Complaint:
    """The innermost part of a message; if there are several, that of the first, which the user has named."""
    keys, path, is_called = [], "", False
    while found := _DEEPER.search(message):
        if re.match(r"\s*Unable to load config", message[found.end() :]):
            keys, message = [found["key"] or found["typed"]], message[found.end() :]
            break
        keys += [key for key in (found["key"], found["typed"]) if key]
        path, is_called = found["path"] or path, bool(found["call"]) or (is_called and not found["path"])
        is_all = found["typed"] or found["key"] == "config"
        message = message[found.end() :] if is_all else _block(message, found)
    if not path and (called := re.search(r"Got value: Namespace\(class_path='([\w.]+)'", message)):
        path, is_called = called[1], True
    message = re.sub(r"- Expected a path but .* either not accessible or invalid\n", "", message)
    message = re.sub(r"\.? Got value: Namespace\(.*", "", message)
    return Complaint(".".join(keys), path, is_called, message, parser, given)


def _block(message: str, found: re.Match[str]) -> str:
    """The text under a heading: the rest of its line, and the following lines with deeper indentation."""
    line = message[message.rfind("\n", 0, found.start()) + 1 :]
    rest, *below = message[found.end() :].split("\n")
    inner = takewhile(lambda other: not other.strip() or _depth(other) > _depth(line), below)
    return "\n".join([rest, *inner])


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


# ---- options ---------------------------------------------------------------------------------------------------------


def _no_value(match: re.Match[str], complaint: Complaint) -> str:
    indices = (
        index
        for index, arg in enumerate(complaint.given)
        if re.fullmatch(rf"(--{re.escape(complaint.key)}|-{complaint.key[:1]})([.+].*)?", arg)
        and (index + 1 == len(complaint.given) or complaint.given[index + 1].startswith("-"))
    )
    if (index := next(indices, None)) is None:
        return f"--{complaint.key}: expected a value, got none; type it after the option"
    option, following = complaint.given[index], "".join(complaint.given[index + 1 : index + 2])
    is_value = following.startswith("-") and following not in options_of(complaint.parser)
    hint = f"; if {following} is the value, type {option}={following}" if is_value else "; type it after the option"
    return f"{option}: expected a value, got none{hint}"


def _too_much(match: re.Match[str], complaint: Complaint) -> str:
    return f"--{complaint.key}: expected no value, got {match[1]}; type --{complaint.key} alone"


def _unknown_argument(match: re.Match[str], complaint: Complaint) -> str:
    option = match[1].split("=")[0]
    if new := new_name(option.removeprefix("--")):
        return f"{option}: no such option; it is now called --{new}"
    if complaint.key:
        return _unknown_init_arg(re.match(r"--(.*)", option) or match, complaint)
    if not option.startswith("-"):
        before = list(complaint.given[: complaint.given.index(match[1])] if match[1] in complaint.given else ())
        if next((given for given in reversed(before) if given.startswith("-")), None) == "--ckpt_path":
            expected = "expected one value, since a shell separates values at spaces"
            return f"--ckpt_path: {expected}, got {option} as well; write a list as '[a.ckpt, b.ckpt]', in quotes"
        return f"{option}: expected an option, got a value that belongs to none; --help lists them"
    return f"{option}: no such option{_near(option, options_of(complaint.parser)) or '; --help lists them'}"


def _unknown_config_key(match: re.Match[str], complaint: Complaint) -> str:
    hint = _near(match[1], [option.removeprefix("--") for option in options_of(complaint.parser)])
    return f"{match[1]}: no such option (in a config){hint or '; --help lists them'}"


def _near(wanted: str, known: Sequence[str]) -> str:
    """The end of a message, which suggests the most similar option; of the same group, if that exists."""
    group, _, name = wanted.rpartition(".")
    others = [option.rpartition(".")[2] for option in known if group and option.rpartition(".")[0] == group]
    if others:
        return re.sub(r"mean ", rf"mean {group}.", did_you_mean(name, others))
    return did_you_mean(wanted, known)


def _unknown_init_arg(match: re.Match[str], complaint: Complaint) -> str:
    known = parameters_of(complaint.path, complaint.parser, complaint.key, complaint.is_called)
    hint = did_you_mean(match[1], known) or (f"; it takes {', '.join(known)}" if known else "; it has none")
    return f"--{complaint.key}.{match[1]}: {complaint.path.rpartition('.')[2] or 'the class'} has no such option{hint}"


def _option_of_a_value(match: re.Match[str], complaint: Complaint) -> str:
    option = f"--{complaint.key}.{match[1]}"
    known = class_names(complaint.parser, complaint.key)
    if complaint.path or not known:
        return f"{option}: no such option; --{complaint.key} has no options"
    example = f"--{complaint.key}{'+=' if 'list' in complaint.text else ' '}{known[0]}"
    return f"{option}: expected a class that has the option, got none; name the class before it, such as {example}"


def _no_config(match: re.Match[str], complaint: Complaint) -> str:
    options = [option for option in options_of(complaint.parser) if option.startswith(f"--{complaint.key}.")]
    example = f", such as {options[0]}" if options else ""
    value = match[1].strip("'\"")
    return f"--{complaint.key}: expected a file with its options, got {value}; give each option{example}"


# ---- classes ---------------------------------------------------------------------------------------------------------


def _unknown_class(match: re.Match[str], complaint: Complaint) -> str:
    known = class_names(complaint.parser, complaint.key)
    if not known and "Subtypes:" in complaint.text:
        return _wrong_union(match, complaint)
    hint = did_you_mean(match[1], known) or (_listed(known) if len(known) < _MOST else "")
    return f"--{complaint.key}: expected the name of a class, got {match[1]}{hint or '; give its dotted path'}"


def _wrong_class(match: re.Match[str], complaint: Complaint) -> str:
    given = re.search(r"Given value: ([^\n]+)", complaint.text)
    got = match["got"] or (given[1] if given else complaint.path)
    article = "an" if match["base"][0] in "AEIOU" else "a"
    hint = _listed(class_names(complaint.parser, complaint.key)) or "; give its dotted path"
    return f"--{complaint.key}: expected {article} {match['base']}, got {as_typed(got)}{hint}"


def _listed(known: Sequence[str]) -> str:
    shown = [*known[:_MOST], *(["…"] if len(known) > _MOST else [])]
    return f"; known are {', '.join(shown)}" if known else ""


def _unknown_module(match: re.Match[str], complaint: Complaint) -> str:
    problem = f"cannot import {complaint.path}: {match[1].strip()}"
    return f"--{complaint.key}: {problem}; check the dotted path, and that it is installed"


# ---- values ----------------------------------------------------------------------------------------------------------


def _wrong_literal(match: re.Match[str], complaint: Complaint) -> str:
    new = VALUES.get((complaint.key, match[2].strip("'\"")))
    hint = f"; it is now called {new}" if new else did_you_mean(match[2], re.findall(r"[\w-]+", match[1]))
    return f"--{complaint.key}: expected one of {match[1]}, got {as_typed(match[2])}{hint}"


def _wrong_type(match: re.Match[str], complaint: Complaint) -> str:
    return _expected(complaint.key, [match[1]], match[2])


def _wrong_union(match: re.Match[str], complaint: Complaint) -> str:
    subtypes, given = (
        re.search(pattern, complaint.text) for pattern in (r"Subtypes: \[(.+)\]\n", r"Given value: ([^\n]+)")
    )
    wanted, got = list(parts_of(subtypes[1] if subtypes else "")), given[1] if given else "nothing"
    wanted = [part for part in wanted if "torch.Tensor" not in part] or wanted  # a tensor cannot be typed
    known = class_names(complaint.parser, complaint.key)
    if known and any(part.startswith("list[") for part in wanted):
        example = got if got in known else known[0]
        return f"{_expected(complaint.key, wanted, got, '')}; add one with --{complaint.key}+={example}"
    return _expected(complaint.key, wanted, got)


def _expected(key: str, wanted: Iterable[str], got: str, hint: str | None = None) -> str:
    literals = [part for part in wanted if "Literal[" in part]
    choices = ", ".join(part.partition("[")[2][:-1] for part in literals)
    every = f"one of {choices}" if "," in choices else choices
    names = ([every] if literals else []) + [plain(part) for part in wanted if part not in literals]
    shown = as_typed(got)
    if hint is None and literals:
        hint = did_you_mean(shown, re.findall(r"[\w-]+", choices))
    elif hint is None and not shown.startswith("[") and any(re.match("list|tuple", name) for name in names):
        hint = "; a list is typed in brackets, such as [a, b]"
    return f"--{key}: expected {' or '.join(dict.fromkeys(names))}, got {shown}{hint or ''}"


def _missing(match: re.Match[str], complaint: Complaint) -> str:
    names = [re.sub(r"^ *(fit|validate|test|predict)[.]", "", name).strip() for name in match[1].split(",")]
    if names[0] in ("checkpoint", "source"):  # arguments of `generate`, `invert`, `export` and `demo`
        return f"{names[0]}: expected a file, got none; name one, such as runs/mnist/…/checkpoints/last.ckpt"
    if names == ["images"]:
        return "images: expected files or folders, got none; name some after the source"
    if key := complaint.key:
        return f"--{key}: expected a value for {' and '.join(names)}, got none; give --{key}.{names[0]}"
    if names == ["subcommand"]:
        return "expected a command, got none; --help lists them"
    options = ", ".join(f"--{name}" for name in names)
    return f"expected {options}, got none; start from a config, such as --config FILE.yaml"


def _wrong_command(match: re.Match[str], complaint: Complaint) -> str:
    known = [*re.findall(r"'?(\w+)'?", match[2]), "generate", "invert", "export", "demo", "search"]
    hint = did_you_mean(match[1], known) or f"; choose from {', '.join(known)}"
    return f"{match[1]}: no such command{hint}"


# ---- files -----------------------------------------------------------------------------------------------------------


def _no_file(match: re.Match[str], complaint: Complaint) -> str:
    also = [*SHIPPED.values(), *map(Path, SHIPPED)]
    path = match[1].removesuffix("/.")
    if now := CONFIGS.get(Path(path).stem):
        return f"--{complaint.key or 'config'}: no such file: {path}; it is now {now}"
    return no_such_file(f"--{complaint.key or 'config'}", path, also_known=also)


def _broken_yaml(match: re.Match[str], complaint: Complaint) -> str:
    reason = " ".join(match[1].split())
    return f"--config: not a readable YAML file{_which(complaint)} ({reason}); fix it there"


def _no_mapping(match: re.Match[str], complaint: Complaint) -> str:
    got = " ".join(match[1].split())[:40] or "nothing"
    return f"--config: expected options and their values{_which(complaint)}, got {got}; --help lists the options"


def _which(complaint: Complaint) -> str:
    """Names the first of the given files that is not a config."""
    wrong = [config for config in given_configs(complaint.given) if not is_config(config)]
    return f" in {wrong[0]}" if wrong else ""


def _number_as_key(match: re.Match[str], complaint: Complaint) -> str:
    return f"--config: expected the name of an option, got {match[1]}; --help lists them"


Explain = Callable[[re.Match[str], Complaint], str]

# Patterns of jsonargparse's messages, from the most to the least specific, and the functions that shorten them
_EXPLANATIONS: tuple[tuple[str, Explain], ...] = (
    (r"^expected (?:one|at least one) argument", _no_value),
    (r"ignored explicit argument '(.*)'", _too_much),
    (r"[Uu]nrecognized arguments: (\S+)", _unknown_argument),
    (r"does not accept option '([^']+)'", _unknown_config_key),
    (r"Option '([^']+)' is not accepted", _unknown_init_arg),
    (r"NestedArg\(key='([^']+)'", _option_of_a_value),
    (r"Unable to load config ([^\n]+)", _no_config),
    (r"Import path (?:(?P<got>\S+) )?does not correspond to a subclass of (?P<base>\w+)", _wrong_class),
    (r"Expected '(?P<got>[\w.]+)' to be a subclass of <class '(?P<base>\w+)'>", _wrong_class),
    (r"Expected a dot import path string: (\S+)", _unknown_class),
    (r"Not a valid subclass of (?P<base>\w+)\. Got value: (?P<got>[^\n]+)", _wrong_class),
    (r"(No module named [^\n]+|[^\n]*has no attribute [^\n]+)", _unknown_module),
    (r"following arguments are required: ([^\n]+)", _missing),
    (r"(?:[Dd]oes not exist|not found|No such file|is not a file)[^\n]*?'([^'\n]+)'", _no_file),
    (r"invalid choice: '([^']*)' \(choose from ([^)]*)\)", _wrong_command),
    (r"Subtypes: \[[^\n]+\]", _wrong_union),
    (r"Expected a (?:typing\.)?Literal\[([^\]]*)\][.\s]+Got value: (\S+)", _wrong_literal),
    (r"Expected a ([^\n]+?)\.\s+Got value: ([^\n]+)", _wrong_type),
    (r"(?:Problems parsing config: |^\s*(?=while (?:parsing|scanning)))([\s\S]+)", _broken_yaml),
    (r"Unexpected config: ([\s\S]*)", _no_mapping),
    (r"Key must be a string, got: (.*)\.", _number_as_key),
)
