"""Former names of options, values and configs: errors suggest the new name, and earlier configs are still read."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from lightning_cgan.cli.label_options import Loader

OPTIONS = {"monitor": "alarms", "predictions.make_up": "predictions.top_up"}
VALUES = {("model.compile", "alternation"): "step"}
CONFIGS = {f"{name}_best": f"--config {name} --config with/longer" for name in ("mnist", "fashion_mnist")}


def new_name(option: str) -> str | None:
    """The current name of a renamed option, without dashes; None for any other option."""
    for old, new in OPTIONS.items():
        if option == old or option.startswith(f"{old}."):
            return new + option.removeprefix(old)
    return None


def with_new_names(text: str) -> str:
    """Replaces former names in the text of a config by the current ones; text that is not YAML stays as it is."""
    if not any(old.rpartition(".")[2] in text for old in (*OPTIONS, *(value for _, value in VALUES))):
        return text
    try:
        changes = list(_changes(yaml.compose(text, Loader), ""))
    except (yaml.YAMLError, ValueError):
        return text
    for node, new in sorted(changes, key=lambda change: -change[0].start_mark.index):
        text = text[: node.start_mark.index] + new + text[node.end_mark.index :]
    return text


def _changes(node: yaml.Node | None, path: str) -> Iterator[tuple[yaml.Node, str]]:
    """The scalars to rename, each with its new name."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = f"{path}{key.value}"
        if name in OPTIONS:
            yield key, OPTIONS[name].rpartition(".")[2]
        if isinstance(value, yaml.ScalarNode) and (name, value.value) in VALUES:
            yield value, VALUES[name, value.value]
        yield from _changes(value, f"{name}.")
