"""The Judge of a data set: shipped with the package, cached by an earlier run, or trained when needed.

A Judge is a reference classifier, trained on the training split of its data set only. It is identified by the
fingerprint of that split, so data sets that differ in one image, class or size have different Judges. Its network is in
`classifiers.py`; the scores in its feature space, such as the judge FID (`frechet_distance`), are in `scores.py`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from lightning_cgan.core.files import cache_folder, write_atomic, write_to_cache
from lightning_cgan.core.images import ImageSize, image_size_of
from lightning_cgan.core.rng import rng_at
from lightning_cgan.data.loader import OrderedLoader, ShufflingLoader
from lightning_cgan.evaluation.classifiers import Judge, accuracy, forked_rng, learn
from lightning_cgan.objectives.augmentations import Translation

SHIPPED = Path(__file__).parent / "judges"
_KIND = "judge-1"  # changes with network and training: kinds are not comparable
_BATCH_SIZE = 128
_EPOCHS = 16
_FEWEST_STEPS, _MOST_STEPS = 600, 20_000


@dataclass(frozen=True)
class JudgeRecord:
    """A Judge and its metadata."""

    judge: Judge
    fingerprint: str  # of the training split
    sha256: str  # of the file with its weights
    validation_accuracy: float  # from 0 to 1


def get_judge(train: OrderedLoader, validation: OrderedLoader, num_classes: int, device: torch.device) -> JudgeRecord:
    """Finds the Judge of a training split, or trains and caches one; validation images measure its accuracy."""
    fingerprint = fingerprint_of(train)
    cached = cache_folder() / f"{_KIND}-{fingerprint[:32]}.safetensors"
    found = _find([*sorted(SHIPPED.glob("*.safetensors")), cached], fingerprint, num_classes, train)
    if found is None:
        rank_zero_info("Training a judge, the classifier that the scores of this data set need; it is cached")
        judge = train_judge(train, num_classes, device)
        card = _card(fingerprint=fingerprint, validation_accuracy=accuracy(judge, validation))
        content = _content(judge, card)
        write_to_cache(cached, content)
        found = _load(content, card, num_classes, train)
    found.judge.to(device)
    return found


def _find(files: list[Path], fingerprint: str, num_classes: int, train: OrderedLoader) -> JudgeRecord | None:
    """The Judge of a data set from the first file that contains it; damaged files are skipped."""
    for file in files:
        with suppress(OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            with safe_open(file, "pt") as opened:
                card = dict(opened.metadata() or {})
            if card.items() >= {"kind": _KIND, "fingerprint": fingerprint}.items():
                return _load(file.read_bytes(), card, num_classes, train)
    return None


def train_judge(train: OrderedLoader, num_classes: int, device: torch.device, seed: int = 0) -> Judge:
    """Trains a Judge on images shifted by up to two pixels in 28; `seed` determines weights, order, shifts, dropout."""
    batches = ShufflingLoader(train.images, train.labels, min(_BATCH_SIZE, len(train.labels)), seed=seed)
    is_in_memory = isinstance(train.images, Tensor)  # files are decoded again in each epoch
    epochs = max(_EPOCHS, -(-_FEWEST_STEPS // len(batches))) if is_in_memory else _EPOCHS
    steps = min(epochs * len(batches), _MOST_STEPS)
    shift, rng = Translation(1 / 14, fill=-1.0), rng_at(seed)

    def augment(images: Tensor) -> Tensor:
        return shift(images, torch.rand(len(images), shift.num_uniforms, generator=rng).to(images.device))

    with forked_rng(seed, device):
        judge = Judge(num_classes, *_sizes(train)).to(device)
        optimizer = AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
        scheduler = OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps + 1)
        while batches.images_seen < steps * batches.batch_size:
            rest = steps - batches.images_seen // batches.batch_size
            learn(judge, (batch for _, batch in zip(range(rest), batches, strict=False)), optimizer, scheduler, augment)
    return judge.eval()


def save_judge(judge: Judge, file: Path, **card: object) -> None:
    """Atomically writes a Judge's weights and metadata to a file."""
    content = _content(judge, _card(**card))
    write_atomic(file, lambda unfinished: unfinished.write_bytes(content))


def _card(**entries: object) -> dict[str, str]:
    return {"kind": _KIND, **{name: str(value) for name, value in entries.items()}}


def _content(judge: Judge, card: dict[str, str]) -> bytes:
    """The bytes of a Judge's file: always the same for the same Judge, since reports contain their hash."""
    content = save({name: tensor.contiguous().cpu() for name, tensor in judge.state_dict().items()}, card)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()  # fixed order
    header += b" " * (-len(header) % 8)  # aligns the data after it
    return len(header).to_bytes(8, "little") + header + content[end:]


def fingerprint_of(images: OrderedLoader) -> str:
    """A hash in hexadecimal digits that identifies labelled images, or the content of the files that hold them."""
    content = hashlib.sha256(images.labels.cpu().numpy().tobytes())
    if isinstance(images.images, Tensor):
        content.update(repr(tuple(images.images.shape)).encode())
        content.update(images.images.cpu().contiguous().numpy().tobytes())
    else:
        content.update(repr(_sizes(images)).encode())
        content.update(images.images.sha256.encode())
    return content.hexdigest()


def _sizes(images: OrderedLoader) -> tuple[int, ImageSize]:
    """The number of channels and the image size."""
    if isinstance(images.images, Tensor):
        channels, height, width = images.images.shape[1:]
        return channels, image_size_of(height, width)
    return images.images.channels, images.images.size


def _load(content: bytes, card: dict[str, str], num_classes: int, train: OrderedLoader) -> JudgeRecord:
    with forked_rng(0):  # initial weights would change the global generator
        judge = Judge(num_classes, *_sizes(train))
    judge.load_state_dict(load(content))
    sha256 = hashlib.sha256(content).hexdigest()
    return JudgeRecord(judge.eval(), card["fingerprint"], sha256, float(card["validation_accuracy"]))
