"""Which classes are kept."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cgan.errors import UsageError, did_you_mean


def class_numbers(classes: Sequence[int | str] | None, names: Sequence[str]) -> list[int]:
    """The numbers of the classes that are named or numbered.

    Args:
        classes: Names or numbers; all classes if there are none given. Where names are digits, a number is a name: a
            command line cannot tell them apart, and the name is what a person means.
        names: The names of all classes.

    Raises:
        UsageError: A class is unknown or named twice.
    """
    if classes is None:
        return list(range(len(names)))
    numbers = []
    for wanted in classes:
        if str(wanted) in names:
            numbers.append(names.index(str(wanted)))
        elif isinstance(wanted, int) and 0 <= wanted < len(names):
            numbers.append(wanted)
        else:
            raise UsageError(
                f"--data.classes: expected names or numbers among {', '.join(names)}, got {wanted!r}"
                f"{did_you_mean(str(wanted), names) or '; name a class that exists'}"
            )
    if len(set(numbers)) < len(numbers) or not numbers:
        raise UsageError(f"--data.classes: expected one or more different classes, got {list(classes)}; name each once")
    return numbers
