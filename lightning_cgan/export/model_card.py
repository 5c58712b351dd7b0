"""The model card of an exported generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lightning_cgan.core.class_names import in_markdown
from lightning_cgan.core.serialization import class_path
from lightning_cgan.export.metadata import ExportMetadata
from lightning_cgan.export.score_table import ScoredReport
from lightning_cgan.networks.base import Generator

_MOST_NAMES = 100
_CARD = """\
---
{front_matter}---

# {name}

A conditional generator, the trained part of a GAN: choose a label, get an image of it. Made with `lightning_cgan`.

![One row for each class, of random samples](samples.png)

{metadata}

## Use

```bash
pip install lightning_cgan
```

```python
{snippet}```

Loading a folder imports nothing: a network that is not part of the package must be imported first.

## Scores

{scores}
"""
_SNIPPET = """\
{own_import}from lightning_cgan import PretrainedGenerator

generator = PretrainedGenerator.from_pretrained(".")  # this folder, or its name on the Hugging Face Hub
images = generator.generate([0, 0, {last}], seed=0)  # {shape}, in [-1, 1]
print(images.shape, [generator.class_names[label] for label in (0, {last})])
"""
_NO_REPORT = """\
No report: run `python -m lightning_cgan test` with the checkpoint, and export it again."""


@dataclass(frozen=True)
class Training:
    """What a checkpoint says about the training of its generator."""

    steps: int
    data: Mapping[str, Any]  # empty unless from a data module of the package; see `LabelledImages.about_training`
    averaged: bool  # whether the weights are a moving average


def card_text(
    name: str,
    generator: Generator,
    metadata: ExportMetadata,
    training: Training,
    report: ScoredReport | None,
    front: Mapping[str, Any],
) -> str:
    """The model card of a generator in Markdown, with scores if there are any; `front` is the YAML at the top."""
    module = class_path(type(generator)).rpartition(".")[0]
    own_import = "" if module.partition(".")[0] == "lightning_cgan" else f"import {module}\n\n"
    last = len(metadata.class_names) - 1
    picture = "\n\n![The report as a picture](report.png)" if report and report.picture else ""
    return _CARD.format(
        front_matter=yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True),
        name=in_markdown(name),
        metadata=_table(generator, metadata, training),
        snippet=_SNIPPET.format(own_import=own_import, last=last, shape=(3, *metadata.image_shape)),
        scores=f"{report.table}{picture}" if report else _NO_REPORT,
    )


def _table(generator: Generator, metadata: ExportMetadata, training: Training) -> str:
    names, data = metadata.class_names, training.data
    listed = ", ".join(
        f"{number} {in_markdown(name)}" if str(number) != name else name
        for number, name in enumerate(names[:_MOST_NAMES])
    )
    weights = sum(parameter.numel() for parameter in generator.parameters())
    averaged = "a moving average of the run" if training.averaged else "those of the last step"
    channels, height, width = metadata.image_shape
    colour = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")
    distribution = "standard normal" if metadata.latents == "normal" else "uniform in [-1, 1]"
    rows = [
        ("network", f"`{type(generator).__name__}`, {weights:,} weights, {averaged}"),
        ("images", f"{height} × {width} pixels, {colour}"),
        ("latents", f"{metadata.latent_dim}, {distribution}"),
        (f"{len(names)} classes", listed + (", …" if len(names) > _MOST_NAMES else "")),
        ("training", f"{training.steps:,} steps" + _number(data, "batch size", " of {:,} images each")),
    ]
    if "data set" in data:
        images = _number(data, "training images", ", {:,} training images")
        rows.insert(0, ("data set", in_markdown(data["data set"]) + images))
    return "\n".join(["| | |", "|---|---|", *(f"| {title} | {text} |" for title, text in rows)])


def _number(data: Mapping[str, Any], key: str, form: str) -> str:
    return form.format(data[key]) if isinstance(data.get(key), int) else ""
