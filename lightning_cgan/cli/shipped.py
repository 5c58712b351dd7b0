"""Shipped configs by name, and the config files of a command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from lightning_cgan.cli.label_options import Loader
from lightning_cgan.core.errors import UsageError

_PACKAGE = Path(__file__).parent.parent
# A wheel contains the configs inside the package, a checkout next to it.
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
# Includes overlays such as `with/tensorboard`
SHIPPED = {file.relative_to(_CONFIGS).with_suffix("").as_posix(): file for file in _CONFIGS.rglob("*.yaml")}

_OPTIONS = ("--config", "-c")


def with_shipped(args: Sequence[str]) -> list[str]:
    """Replaces the names of shipped configs by their paths."""
    changed = []
    for option, value, arg in _pairs(args):
        is_name = option in _OPTIONS and value in SHIPPED and not Path(value).is_file()
        changed.append(f"{arg.removesuffix(value)}{SHIPPED[value]}" if is_name else arg)
    return changed


def given_configs(args: Sequence[str]) -> list[Path]:
    """The existing config files that a command line names."""
    named = [Path(value) for option, value, arg in _pairs(args) if option in _OPTIONS and arg != option]
    return [file for file in named if file.is_file()]


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each argument as (its option, its value, the argument); a value without `=` belongs to the option before it."""
    for before, arg in zip(["", *args], args, strict=False):
        option, value = arg.split("=", 1) if "=" in arg else (before, arg)
        yield option, value, arg


def is_config(file: Path) -> bool:
    """Whether a file contains a YAML mapping of options to values."""
    try:
        return isinstance(yaml.load(file.read_text(encoding="utf-8"), Loader), dict)
    except (yaml.YAMLError, ValueError, OSError):
        return False


def check_keys(file: Path, option: str = "--config") -> None:
    """Refuses a config that contains an option twice, of which YAML readers silently use the last."""
    try:
        left = [(yaml.compose(file.read_text(encoding="utf-8"), Loader), "")]
    except (yaml.YAMLError, ValueError, OSError):
        return  # jsonargparse reports the error
    while left:
        node, prefix = left.pop()
        lines: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if name in lines and key.value != "<<":
                expected = f"expected each option once in {file}, got {name} in lines {lines[name]} and {line}"
                raise UsageError(f"{option}: {expected}; remove one of them")
            lines[name] = line
            left.append((value, f"{name}."))
