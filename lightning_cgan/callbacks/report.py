"""`report.json` and `report.png`, the scores that `test` writes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_cgan.callbacks.shared import splits_of
from lightning_cgan.core.errors import UsageError, check_positive, writing
from lightning_cgan.core.files import write_atomic
from lightning_cgan.evaluation.fakes import Gafi, ImageMaker
from lightning_cgan.evaluation.protocol import FULL, QUICK, Evaluation, LabelledSplits
from lightning_cgan.evaluation.report_plot import plot_report
from lightning_cgan.runs.folder import report_folder

_PROTOCOLS = {"full": FULL, "quick": QUICK}


class Report(Callback):
    """Scores a checkpoint by a protocol in `test`, and writes `report.json` and `report.png`.

    Among the scores is the test accuracy of students: classifiers that are trained on generated images. A summary is
    logged as `test_…` scalars. The first process computes all scores. On a CPU, a second run on the same machine with
    the same number of threads gives identical numbers.

    If the module has `others`, generators that take turns with it, students also learn from the images of all of them,
    as many as of one; all other scores are those of the module alone.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> report = Report("quick", folder="report", parzen=True)
        >>> trainer = Trainer(callbacks=[report], logger=False)
        >>> report in trainer.callbacks
        True

    Args:
        protocol: `full` scores eight samples of images, and trains three students for ten epochs, each on as many
            generated images as there are training images; `quick` scores one sample, and trains one student for three
            epochs on 10,000 images; `none` writes no report.
        folder: The folder of the files; if not given, one next to the checkpoint and named after it.
        gafi: Adds students trained on images that are selected for training: new ones in each epoch, from more widely
            sampled latents, without those that the judge is unsure of.
        parzen: Adds the Parzen-window log-likelihood of the 2014 paper.
        students: The number of students, instead of the protocol's. One is enough if several runs are averaged.

    Raises:
        UsageError: `students` is less than 1.
    """

    def __init__(
        self,
        protocol: Literal["full", "quick", "none"] = "full",
        folder: str | None = None,
        gafi: Gafi | None = None,
        parzen: bool = False,
        students: int | None = None,
    ) -> None:
        check_positive("--report.students", students)
        self.protocol = protocol
        self.students = students
        self.folder = folder
        self.gafi = gafi
        self.parzen = parzen
        self._checkpoint: Path | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises an error in every process if there is no folder to write to."""
        self._checkpoint = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        if self.protocol != "none" and self.folder is None and self._checkpoint is None:
            raise UsageError("--report.folder: expected a folder, since there is no checkpoint, got none; name one")
        if self.protocol == "none" and _others(pl_module):
            expected = "expected a protocol for students of several generators"
            raise UsageError(f"--report.protocol: {expected}, got none; give quick, or a single checkpoint")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Scores the module, writes the report and logs its summary."""
        data = splits_of(trainer)
        if self.protocol == "none" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if data is None:
            rank_zero_warn("No report was written: it needs a data module with splits, as LabelledImages has")
            return
        summary = self._write(pl_module, data) if trainer.is_global_zero else {}
        pl_module.log_dict(trainer.strategy.broadcast(summary), rank_zero_only=False)

    @torch.inference_mode(False)  # training students needs gradients
    def _write(self, pl_module: LightningModule, data: LabelledSplits) -> dict[str, float]:
        folder = Path(self.folder) if self.folder is not None else report_folder(cast(Path, self._checkpoint))
        with writing("--report.folder", folder):
            folder.mkdir(parents=True, exist_ok=True)
        rank_zero_info(f"Protocol {self.protocol}: training students takes minutes on a GPU, and longer on a CPU")
        protocol = _PROTOCOLS[self.protocol]
        if self.students is not None:
            protocol = dataclasses.replace(protocol, seeds=tuple(range(self.students)))
        others = _others(pl_module)
        evaluation = Evaluation(cast(ImageMaker, pl_module), data, pl_module.device, protocol, others)
        found, report_images = evaluation.report(self.gafi, self.parzen)
        report = {"checkpoint": _identify(self._checkpoint), **found}
        if others:
            report["generators"] = [dict(one.origin or {}) for one in (cast(Any, pl_module), *others)]
        text = json.dumps(report, indent=1) + "\n"
        with writing("--report.folder", folder):
            write_atomic(folder / "report.png", lambda file: plot_report(report, report_images, data.class_names, file))
            write_atomic(folder / "report.json", lambda file: file.write_bytes(text.encode()))
        rank_zero_info(f"Report: {folder / 'report.json'} and {folder / 'report.png'}")
        return _summary(report)


def _others(module: Any) -> tuple[Any, ...]:
    """The generators that take turns with a module, if it has any."""
    return tuple(getattr(module, "others", ()))


def _identify(checkpoint: Path | None) -> dict[str, Any]:
    """The name of a checkpoint and the hash of its content."""
    if checkpoint is None or not checkpoint.is_file():  # such as one on another machine, or a sharded one
        return {"name": checkpoint.name} if checkpoint else {}
    return {"name": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}


def _summary(report: dict[str, Any]) -> dict[str, float]:
    scores = ("gan_test", "judge_fid", "judge_kid", "precision", "recall", "density", "coverage", "diversity")
    summary = {f"test_{name}": report["scores"][name] for name in scores}
    summary["test_memorisation"] = report["memorisation"]["ratio"]
    students = [name for name in report if name.startswith("gan_train")]
    summary |= {f"test_{name}": report[name]["mean"] for name in students}
    if "parzen_window" in report:
        summary["test_parzen_window"] = report["parzen_window"]["mean"]
    return summary
