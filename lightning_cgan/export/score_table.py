"""The scores in `report.json` as a Markdown table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_cgan.core.class_names import in_markdown
from lightning_cgan.core.errors import UsageError, no_such_file, printable, reason_of
from lightning_cgan.evaluation.protocol import FORMAT
from lightning_cgan.evaluation.score_rows import about_generators, score_rows
from lightning_cgan.runs.folder import report_folder


@dataclass(frozen=True)
class ScoredReport:
    """The part of a report that a model card shows."""

    table: str  # scores next to those of real images, in Markdown, with a line about the protocol
    picture: Path | None  # `report.png`, if there is one


def find_report(checkpoint: Path, given: str | None) -> ScoredReport | None:
    """Finds the report of a checkpoint: the given file or, by default, the one that `test` has written, if any.

    A report of another checkpoint is refused; one that was not given is ignored with a line.
    """
    file = Path(given) if given is not None else report_folder(checkpoint) / "report.json"
    if not file.is_file():
        if given is not None:
            raise UsageError(no_such_file("--report", given))
        return None
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        if report["format"] not in (1, FORMAT):
            raise ValueError(f"format {report['format']}")
        picture = file.with_name("report.png")
        scored = ScoredReport(_table(report), picture if picture.is_file() else None)
        if report["checkpoint"].get("sha256") in (None, hashlib.sha256(checkpoint.read_bytes()).hexdigest()):
            return scored
        message = f"expected the report of {checkpoint}, got {file}, which is of another checkpoint"
    except Exception as error:  # a broken file raises many kinds of errors
        message = f"expected a report.json that test wrote, got {file} ({reason_of(error)})"
    if given is not None:
        raise UsageError(f"--report: {message}; run test again")
    print(f"No scores: {printable(message)}; run test again")
    return None


def _table(report: dict[str, Any]) -> str:
    protocol, data = report["protocol"], report["data"]
    texts = (protocol["name"], report["versions"]["lightning_cgan"], data["name"], protocol["seeds"])
    name, version, data_name, seeds = map(in_markdown, texts)  # the file may be from an untrusted author
    judge = in_markdown(report["judge"]["sha256"][:16])
    lines = ["| score | generated | real images | what it is |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in score_rows(report)]
    lines += [
        "",
        f"Protocol {name} of lightning_cgan {version} on {data_name}: up to {protocol['images']:,} images; GAN-train: "
        f"{protocol['epochs']} epochs with each seed of {seeds}. The column of real images has the scores of held-out "
        f"images in place of generated ones. The judge is a classifier trained on the training split (sha256 {judge}), "
        "so no score is comparable with one of Inception.",
    ]
    if generators := about_generators(report):
        lines += ["", f"Several generators: {in_markdown(generators, 1000)}."]
    return "\n".join(lines)
