"""Python's type hints and values, in the notation of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator


def plain(hint: str) -> str:
    """A type hint, such as `<class 'int'>` or `typing.Optional[int]`, in the notation of the command line."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", hint)
    text = re.sub(r"(?:typing\.)?Callable\[\[[^\]]*\], (.*)\]", r"\1", text)
    text = re.sub(r"(?:typing\.)?Optional\[([^\[\]]*)\]", r"\1 or null", text)
    text = re.sub(r"(?:typing\.)?Union\[([^\[\]]*)\]", lambda match: match[1].replace(", ", " or "), text)
    text = re.sub(r"(?<![\w'])(?:\w+\.)+(\w+)", r"\1", text)  # only the last part of a dotted path
    text = re.sub(r"\b[Tt]uple\[", "[", text)
    return re.sub(r"\bSequence\b", "list", re.sub(r"\bNone(Type)?\b", "null", text))


def parts_of(types: str) -> Iterator[str]:
    """Splits a list of types, such as `<class 'int'>, list[tuple[int, int]]`, at the commas outside of brackets."""
    depth, part = 0, ""
    for letter in f"{types},":
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter


def as_typed(value: str) -> str:
    """A Python value, given as text such as `None`, as it is typed on the command line."""
    text = " ".join(value.split())
    nested = re.fullmatch(r"NestedArg\(key='[^']*', val='?(.*?)'?\)", text)
    text = nested[1] if nested else text
    return {"None": "null", "True": "true", "False": "false"}.get(text, text) or "nothing"
