"""The scores of a report as rows of a table, for people."""

from __future__ import annotations

from typing import Any, NamedTuple


class ScoreRow(NamedTuple):
    """A row of the table: a score of generated images, next to that of real ones."""

    title: str
    generated: str
    real: str
    what: str


class Score(NamedTuple):
    """How a score is shown: its title, number format and description."""

    title: str
    form: str
    what: str


# The entries of `scores` and `scores_of_real_images` in a report; `val_…` in the scalars of a run
SCORES = {
    "gan_test": Score("GAN-test", "{:.2%}", "images that a judge classifies as their own label"),
    "judge_fid": Score("judge FID", "{:.2f}", "Fréchet distance to test images, between features of the judge"),
    "judge_kid": Score("judge KID", "{:.4f}", "kernel distance between the same features"),
    "precision": Score("precision", "{:.3f}", "generated images close to real ones"),
    "recall": Score("recall", "{:.3f}", "real images close to generated ones"),
    "density": Score("density", "{:.3f}", "precision, robust to outliers"),
    "coverage": Score("coverage", "{:.3f}", "recall, robust to outliers"),
    "diversity": Score("diversity", "{:.3f}", "distance between two images of a class, relative to that of real ones"),
}
_STUDENTS = {
    "gan_train": ("GAN-train", "accuracy on test images of a classifier trained on generated ones only"),
    "gan_train_gafi": ("GAN-train, GaFi", "the same, with generated images selected for training"),
    "gan_train_of_several": ("GAN-train, {} generators", "the same, with images of {} generators, as many as of one"),
    "gan_train_gafi_of_several": ("GAN-train, GaFi, {} generators", "the same, with images selected for training"),
}


def score_rows(report: dict[str, Any]) -> list[ScoreRow]:
    """The scores of a `report.json`, formatted."""
    scores, real = report["scores"], report["scores_of_real_images"]
    rows = [
        ScoreRow(score.title, score.form.format(scores[key]), score.form.format(real[key]), score.what)
        for key, score in SCORES.items()
    ]
    real_data_bound = _mean(report["gan_train_of_real_images"])
    count = len(report.get("generators", ()))
    rows += [
        ScoreRow(title.format(count), _mean(report[key]), real_data_bound, what.format(count))
        for key, (title, what) in _STUDENTS.items()
        if key in report
    ]
    ratio = f"{report['memorisation']['ratio']:.3f}"
    what = "distance to the nearest training image, relative to that of test images"
    rows.append(ScoreRow("memorisation", ratio, "1", what))
    if "parzen_window" in report:
        found, best = (f"{report[key]['mean']:.1f}" for key in ("parzen_window", "parzen_window_of_real_images"))
        rows.append(ScoreRow("Parzen window", found, best, "log-likelihood of test images, in nats"))
    return rows


def about_generators(report: dict[str, Any]) -> str:
    """Names the generators of a row with several, such as `last.ckpt (step 3,000, seed 0)`; empty if there are none.

    The names are those of files, and unescaped.
    """
    known = [one for one in report.get("generators", ()) if one]
    return ", ".join(f"{one['name']} (step {one['step']:,}, seed {one['seed']})" for one in known)


def _mean(found: dict[str, Any]) -> str:
    deviation = "" if found["deviation"] is None else f" ± {found['deviation']:.2%}"
    return f"{found['mean']:.2%}{deviation}"
