"""The configs that come with the package, and those that a command line names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from lightning_cgan.core.errors import UsageError

_PACKAGE = Path(__file__).parent.parent
# A wheel has the configs inside the package, a checkout beside it.
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
# Also those to lay over another, such as `with/tensorboard`
SHIPPED = {file.relative_to(_CONFIGS).with_suffix("").as_posix(): file for file in _CONFIGS.rglob("*.yaml")}

_OPTIONS = ("--config", "-c")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def with_shipped(args: Sequence[str]) -> list[str]:
    """The same arguments, with the paths of configs that are shipped in the place of their names."""
    changed = []
    for option, value, arg in _pairs(args):
        is_name = option in _OPTIONS and value in SHIPPED and not Path(value).is_file()
        changed.append(f"{arg.removesuffix(value)}{SHIPPED[value]}" if is_name else arg)
    return changed


def given_configs(args: Sequence[str]) -> list[Path]:
    """The files of configs that a command line names, and that exist."""
    named = [Path(value) for option, value, arg in _pairs(args) if option in _OPTIONS and arg != option]
    return [file for file in named if file.is_file()]


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each argument, with the option that it is the value of, and the value."""
    for before, arg in zip(["", *args], args, strict=False):
        option, value = arg.split("=", 1) if "=" in arg else (before, arg)
        yield option, value, arg


def is_config(file: Path) -> bool:
    """Whether a file holds options and their values."""
    try:
        return isinstance(yaml.load(file.read_text(encoding="utf-8"), _Loader), dict)
    except (yaml.YAMLError, ValueError, OSError):
        return False


def check_keys(file: Path) -> None:
    """Refuses a config that says an option twice: YAML's reader takes the last of them, and nobody knows.

    Raises:
        UsageError: It does.
    """
    try:
        left = [(yaml.compose(file.read_text(encoding="utf-8"), _Loader), "")]
    except (yaml.YAMLError, ValueError, OSError):
        return  # jsonargparse tells what is wrong with it
    while left:
        node, place = left.pop()
        lines: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = f"{place}{key.value}", key.start_mark.line + 1
            if name in lines and key.value != "<<":
                expected = f"expected each option once in {file}, got {name} in lines {lines[name]} and {line}"
                raise UsageError(f"--config: {expected}; take one of them out")
            lines[name] = line
            left.append((value, f"{name}."))
