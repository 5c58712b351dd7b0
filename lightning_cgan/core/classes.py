"""Select classes by name, by number or as a range."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from operator import index
from unicodedata import normalize

from lightning_cgan.core.errors import UsageError, did_you_mean

# A list of names and numbers, or comma-separated text. `str` comes before `int`: jsonargparse would turn '007' into 7.
Classes = list[str | int] | str

_SHOWN = 20  # the most classes that a message lists
_NUMBER = re.compile("0|[1-9][0-9]*")  # no leading zeros, so that converting to a number loses nothing


def class_numbers(classes: Classes | None, names: Sequence[str]) -> list[int]:
    """The numbers of the classes to keep; see `find_classes`. Raises `UsageError` also if one is named twice."""
    numbers = find_classes(classes, names, "--data.classes")
    if len(set(numbers)) < len(numbers) or not numbers:
        raise UsageError(f"--data.classes: expected one or more different classes, got {classes}; name each once")
    return numbers


def chosen_classes(classes: Classes | None, names: Sequence[str], option: str) -> list[int]:
    """The numbers of the classes to show, each once; see `find_classes`. Raises `UsageError` also if there are none."""
    numbers = list(dict.fromkeys(find_classes(classes, names, option)))
    if not numbers:
        raise UsageError(f"{option}: expected classes, got none; name some, or omit them for all")
    return numbers


def find_classes(wanted: Classes | None, names: Sequence[str], option: str) -> list[int]:
    """The numbers of classes, in the order in which they are given.

    Classes are wanted as a list or comma-separated text of names, numbers and ranges; in a list, text is never a
    number. Text that equals one of the `names` of all classes means that class, even if it looks like a number or a
    range; so does a number whose digits equal a name. Any other number is the index of a class, from 0. Any other text
    may be a range with both ends included, such as `2-5` or `Trouser-Bag`. If both ends are names that are numbers, the
    range goes by their values, whatever the order of the classes; else by index. An unknown class raises a `UsageError`
    that names the option.
    """
    if wanted is None:
        return list(range(len(names)))
    found: list[int] = []
    for item in _items(wanted, names) if isinstance(wanted, str) else wanted:
        number = _by_name_or_number(item, names, option)
        if number is not None:
            found.append(number)
        elif isinstance(item, str) and (ends := _range_ends(item, names)):
            found += _in_range(*ends, item, names, option)
        else:
            raise _unknown_class(item, names, option)
    return found


def _items(text: str, names: Sequence[str]) -> Iterator[str | int]:
    """The items of comma-separated text; commas within class names do not separate."""
    parts = text.split(",")
    most = 2 * max(name.count(",") for name in names) + 1  # both ends of a range may be names with commas
    while parts:
        for count in range(min(most, len(parts)), 0, -1):
            part = ",".join(parts[:count]).strip()
            if count == 1 or _by_name(part, names) is not None or _range_ends(part, names):
                break
        del parts[:count]
        yield int(part) if _NUMBER.fullmatch(part) else part


def _by_name_or_number(wanted: str | int, names: Sequence[str], option: str) -> int | None:
    """The number of the class with this name or number, if there is one."""
    named = _by_name(str(wanted), names)
    if named is not None or isinstance(wanted, str | bool):
        return named
    try:
        number = index(wanted)
    except TypeError:
        return None
    if not 0 <= number < len(names):
        return None
    alike = [name for name in names if name.isdecimal() and int(name) == number]
    if alike and names[number] not in alike:
        warnings.warn(
            f"{option}: no class is called {number}, so it is the number of {names[number]}, counted from 0; for the "
            f"class {alike[0]}, write {alike[0]}",
            stacklevel=2,
        )
    return number


def _by_name(text: str, names: Sequence[str]) -> int | None:
    """The number of the class with this name, ignoring surrounding spaces and the Unicode normal form."""
    if text in names:
        return names.index(text)
    alike = [number for number, name in enumerate(names) if _normalized(name) == _normalized(text)]
    return alike[0] if len(alike) == 1 else None


def _normalized(name: str) -> str:
    return normalize("NFC", name).strip()


def _range_ends(text: str, names: Sequence[str]) -> tuple[str, str] | None:
    """The two ends of a range, if the text is one."""
    for hyphen in re.finditer("-", text):
        ends = text[: hyphen.start()].strip(), text[hyphen.end() :].strip()
        if all(_by_name(end, names) is not None or (_NUMBER.fullmatch(end) and int(end) < len(names)) for end in ends):
            return ends
    return None


def _in_range(first: str, last: str, text: str, names: Sequence[str], option: str) -> list[int]:
    """The classes of a range, both ends included."""
    named = [end.isdecimal() and _by_name(end, names) is not None for end in (first, last)]
    if all(named):
        counted = sorted((int(name), number) for number, name in enumerate(names) if name.isdecimal())
        found = [number for value, number in counted if int(first) <= value <= int(last)]
    elif any(named) and first.isdecimal() and last.isdecimal():
        missing = first if named[1] else last
        raise UsageError(f"{option}: expected a range between two classes, got {text}; there is no class {missing}")
    else:
        ends = [_by_name_or_number(int(end) if _NUMBER.fullmatch(end) else end, names, option) for end in (first, last)]
        found = list(range(ends[0] or 0, (ends[1] or 0) + 1))
    if not found:
        raise UsageError(f"{option}: expected a range from a class to a later one, got {text}; swap its ends")
    return found


def _unknown_class(wanted: str | int, names: Sequence[str], option: str) -> UsageError:
    got = f"'{wanted}' in quotes" if isinstance(wanted, str) and _NUMBER.fullmatch(wanted) else str(wanted)
    every = [f"{number} ({name})" if str(number) != name else name for number, name in enumerate(names)]
    known = f"; choose from {', '.join(every[:_SHOWN])}{', …' if len(every) > _SHOWN else ''}"
    hint = known if str(wanted).isdecimal() else did_you_mean(str(wanted), names) or known
    return UsageError(f"{option}: expected names or numbers of classes, got {got or 'nothing'}{hint}")
