"""Type hints and values of Python's, in the words of somebody who types options."""

from __future__ import annotations

import re
from collections.abc import Iterator


def plain(hint: str) -> str:
    """A type hint, as text, in the words of somebody who types options.

    Args:
        hint: Such as `<class 'int'>` or `typing.Optional[list[torch.Tensor]]`.
    """
    text = re.sub(r"<class '([\w.]+)'>", r"\1", hint)
    text = re.sub(r"(?:typing\.)?Callable\[\[[^\]]*\], (.*)\]", r"\1", text)
    text = re.sub(r"(?:typing\.)?Optional\[([^\[\]]*)\]", r"\1 or null", text)
    text = re.sub(r"(?:typing\.)?Union\[([^\[\]]*)\]", lambda match: match[1].replace(", ", " or "), text)
    text = re.sub(r"(?<![\w'])(?:\w+\.)+(\w+)", r"\1", text)  # the last part of a dotted path
    return re.sub(r"\bSequence\b", "list", re.sub(r"\bNone(Type)?\b", "null", text))


def parts_of(types: str) -> Iterator[str]:
    """The types of a list of them, which stand between commas that are in no brackets.

    Args:
        types: Such as `<class 'int'>, list[tuple[int, int]]`.
    """
    depth, part = 0, ""
    for letter in f"{types},":
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter


def as_typed(value: str) -> str:
    """A value of Python's as one types it.

    Args:
        value: Such as `None`.
    """
    text = " ".join(value.split())
    nested = re.fullmatch(r"NestedArg\(key='[^']*', val='?(.*?)'?\)", text)
    text = nested[1] if nested else text
    return {"None": "null", "True": "true", "False": "false"}.get(text, text) or "nothing"
