"""Options that list labels, that is image classes by name: the names are quoted so that YAML does not convert them.

YAML reads `00014` as the number 12, `on` as true and `2020-01-01` as a date, but all of them can be folder names. So
class names are quoted before jsonargparse reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MODE = "yaml_with_classes"  # the mode of a parser that keeps class names as text

_KEYS = ("classes", "labels")
_OPTION = re.compile(r"--(data[.](init_args[.])?classes|samples[.]labels|labels)[+]?")
_NUMBER = re.compile("0|-?[1-9][0-9]*")  # unchanged when read as a number and written back
_NULL = "tag:yaml.org,2002:null"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def with_classes(args: list[str]) -> list[str]:
    """The same command line, with class names quoted so that they are read as text."""
    changed = []
    for before, arg in zip(["", *args], args, strict=False):
        option, equals, value = arg.partition("=") if arg.startswith("-") else (before, "", arg)
        is_value = _OPTION.fullmatch(option) and (equals or not arg.startswith("--"))
        changed.append(f"{option}=" * bool(equals) + _as_text(option, value) if is_value else arg)
    return changed


def _as_text(option: str, value: str) -> str:
    """The value of an option that lists classes, quoted for jsonargparse, which reads it as YAML."""
    try:
        node = yaml.compose(value, Loader)
    except (yaml.YAMLError, ValueError):
        return json.dumps([value]) if option.endswith("+") else value  # not YAML, so it is read as text
    if isinstance(node, yaml.SequenceNode) and (node.flow_style or "\n" in value):  # `- name` alone is a name
        return _quoted(value, _plain_items(node))
    if option.endswith("+"):
        return json.dumps([int(value) if _NUMBER.fullmatch(value) else value])
    if value == "null" and option != "--labels":  # resets the value of a config
        return value
    is_text = isinstance(node, yaml.ScalarNode) and node.tag != _NULL
    return value if is_text else json.dumps([value])


def _load(text: str) -> Any:
    """Reads YAML as jsonargparse does, but keeps class names as text."""
    if any(key in text for key in _KEYS):
        with suppress(yaml.YAMLError, ValueError):  # jsonargparse reports the error
            text = _quoted(text, _plain_classes(yaml.compose(text, Loader)))
    return get_loader("yaml")(text)


def _plain_classes(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """The unquoted class names in a config."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen:  # a YAML alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                left.append(value)
                if str(key.value).rpartition(".")[2] in _KEYS and id(value) not in seen:
                    yield from _plain_items(value)


def _plain_items(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """The unquoted names in a list, or a single name instead of a list; null instead of a list means all classes."""
    if isinstance(node, yaml.SequenceNode):
        yield from (item for item in node.value if _is_plain(item) and not _NUMBER.fullmatch(item.value))
    elif _is_plain(node) and node.tag != _NULL:
        yield node


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style


def _quoted(text: str, nodes: Iterator[yaml.ScalarNode]) -> str:
    """The text with quotes around the given nodes."""
    values = {(node.start_mark.index, node.end_mark.index): node.value for node in nodes}
    for (start, end), value in sorted(values.items(), reverse=True):
        anchor, written = re.fullmatch(r"(&\S+\s+)?(.*)", text[start:end], re.DOTALL).groups()  # type: ignore[union-attr]
        if not written.startswith("!"):  # an explicit YAML tag
            text = f"{text[:start]}{anchor or ''}{json.dumps(value, ensure_ascii=False)}{text[end:]}"
    return text


set_loader(MODE, _load, (yaml.YAMLError,))
