"""The scores in `report.json` as a Markdown table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_cgan.core.class_names import in_markdown
from lightning_cgan.core.errors import UsageError, no_such_file, printable
from lightning_cgan.evaluation.protocol import FORMAT
from lightning_cgan.runs.folder import report_folder

# The entries of `scores` and `scores_of_real_images`: key, title, number format and description
_SCORES = (
    ("gan_test", "GAN-test", "{:.2%}", "images that a judge gives their own label"),
    ("judge_fid", "judge FID", "{:.2f}", "Fréchet distance from test images, by the features of the judge"),
    ("judge_kid", "judge KID", "{:.4f}", "kernel distance of the same features"),
    ("precision", "precision", "{:.3f}", "generated images within reach of real ones"),
    ("recall", "recall", "{:.3f}", "real images within reach of generated ones"),
    ("density", "density", "{:.3f}", "precision that outliers do not lead astray"),
    ("coverage", "coverage", "{:.3f}", "recall that outliers do not lead astray"),
    (
        "diversity",
        "diversity",
        "{:.3f}",
        "distance between two images of a class, as a multiple of that between real ones",
    ),
)
_STUDENTS = (
    ("gan_train", "GAN-train", "accuracy on test images of a classifier that has learnt from generated ones alone"),
    ("gan_train_gafi", "GAN-train, GaFi", "the same, from images that are made to teach"),
)


@dataclass(frozen=True)
class ScoredReport:
    """The part of a report that a model card shows.

    Attributes:
        table: The scores next to those of real images, as a Markdown table, with a line about the protocol.
        picture: The file `report.png`, if there is one.
    """

    table: str
    picture: Path | None


def find_report(checkpoint: Path, given: str | None) -> ScoredReport | None:
    """Finds the report of a checkpoint: the given file or, by default, the one that `test` has written, if any.

    Raises:
        UsageError: The given file is no report, or that of another checkpoint. Of a file that was not given, this is
            printed instead.
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
        scored = ScoredReport(_table(report), next((p for p in [file.with_name("report.png")] if p.is_file()), None))
        if report["checkpoint"].get("sha256") in (None, hashlib.sha256(checkpoint.read_bytes()).hexdigest()):
            return scored
        message = f"expected the report of {checkpoint}, got {file}, which is of another"
    except Exception as error:  # a broken file raises many kinds of errors
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        message = f"expected a report.json that test wrote, got {file} ({reason})"
    if given is not None:
        raise UsageError(f"--report: {message}; run test again")
    print(f"No scores: {printable(message)}; run test again")
    return None


def _table(report: dict[str, Any]) -> str:
    scores, real = report["scores"], report["scores_of_real_images"]
    rows = [(title, form.format(scores[key]), form.format(real[key]), what) for key, title, form, what in _SCORES]
    real_data_bound = _mean(report["gan_train_of_real_images"])
    rows += [(title, _mean(report[key]), real_data_bound, what) for key, title, what in _STUDENTS if key in report]
    ratio = f"{report['memorisation']['ratio']:.3f}"
    rows.append(
        ("memorisation", ratio, "1", "distance from the nearest training image, as a multiple of that of test images")
    )
    if "parzen_window" in report:
        found, best = (f"{report[key]['mean']:.1f}" for key in ("parzen_window", "parzen_window_of_real_images"))
        rows.append(("Parzen window", found, best, "log-likelihood of test images, in nats"))
    protocol, data = report["protocol"], report["data"]
    said = {"protocol": protocol["name"], "data": data["name"], "version": report["versions"]["lightning_cgan"]}
    said |= {"seeds": protocol["seeds"], "judge": report["judge"]["sha256"][:16]}
    told = {key: in_markdown(value) for key, value in said.items()}  # the file may be from an untrusted author
    lines = ["| score | generated | real images | what it is |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"Protocol {told['protocol']} of lightning_cgan {told['version']} on {told['data']}: "
        f"up to {protocol['images']:,} images; GAN-train: {protocol['epochs']} epochs, of each seed in "
        f"{told['seeds']}. Real images are held-out ones in the place of generated ones. The judge is a "
        f"classifier that has learnt the training split (sha256 {told['judge']}), so no "
        "score compares with one of Inception.",
    ]
    return "\n".join(lines)


def _mean(taught: dict[str, Any]) -> str:
    deviation = "" if taught["deviation"] is None else f" ± {taught['deviation']:.2%}"
    return f"{taught['mean']:.2%}{deviation}"
