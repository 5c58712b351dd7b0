"""The judges that are shipped, and those that are trained."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from helpers.labelled import opened
from helpers.pictures import opened_flat, write_numbered
from lightning_cgan import UsageError
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation import judge as judge_module
from lightning_cgan.evaluation.classifiers import Judge, accuracy
from lightning_cgan.evaluation.judge import SHIPPED, fingerprint_of, get_judge
from lightning_cgan.evaluation.protocol import QUICK, Evaluation

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "least"), [("MNISTData", 0.993), ("FashionMNISTData", 0.925), ("DigitsData", 0.95)])
def test_shipped_judges_are_small_and_good(name: str, least: float) -> None:
    file = SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size < 1_000_000
    with safe_open(file, "pt") as weights:
        assert float(weights.metadata()["test_accuracy"]) >= least
        assert set(weights.keys()) == set(Judge(10, 1, 28).state_dict())


def test_shipped_judge_is_as_good_as_it_says() -> None:
    data = opened()
    found = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU)
    with safe_open(SHIPPED / "DigitsData.safetensors", "pt") as weights:
        said = float(weights.metadata()["test_accuracy"])
    assert accuracy(found.judge, data.in_order("test")) == pytest.approx(said, abs=1 / 360)
    by_hand = [
        (found.judge(images).argmax(1) == labels).float().mean().item()
        for images, labels in data.in_order("validation")
    ]
    assert by_hand == [pytest.approx(found.validation_accuracy, abs=1 / 120)]


@pytest.mark.ci
@pytest.mark.parametrize("steps", [60, 600])  # the last as it comes
def test_another_set_gets_a_judge_of_its_own_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    if steps == 60:
        monkeypatch.setattr(judge_module, "_FEWEST_STEPS", steps)
        monkeypatch.setattr(judge_module, "_EPOCHS", 1)
    else:
        assert steps == judge_module._FEWEST_STEPS
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", str(tmp_path / "cache"))
    data = opened(classes=[0, 1], image_size=12)
    before = torch.get_rng_state()
    first = get_judge(data.in_order("train"), data.in_order("validation"), 2, CPU)
    assert torch.equal(torch.get_rng_state(), before)  # the run that asks goes on as if it had not
    assert first.validation_accuracy > 0.9
    (file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(judge_module, "train_judge", None)  # it would fail
    second = get_judge(data.in_order("train"), data.in_order("validation"), 2, CPU)
    assert second.sha256 == first.sha256
    images, _ = next(iter(data.in_order("test")))
    assert torch.equal(second.judge(images), first.judge(images))
    assert file.name.endswith(f"{first.fingerprint[:32]}.safetensors")


def test_fingerprints_differ_where_sets_differ() -> None:
    data = opened()
    train = data.in_order("train")
    assert isinstance(train.images, Tensor)
    changed, relabelled = train.images.clone(), train.labels.clone()
    changed[3, 0, 4, 4] ^= 1
    relabelled[3] = (relabelled[3] + 1) % 10
    sets = [
        train,
        OrderedLoader(changed, train.labels, 64),
        OrderedLoader(train.images, relabelled, 64),
        OrderedLoader(train.images.view(-1, 1, 4, 16), train.labels, 64),
        opened(validation_fraction=0.2).in_order("train"),
    ]
    assert len({fingerprint_of(images) for images in sets}) == len(sets)
    assert fingerprint_of(train) == fingerprint_of(opened().in_order("train"))


def test_fingerprints_of_files_are_of_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_numbered(tmp_path / "flat", {"a": 6, "b": 6})
    for file in sorted(folder.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()

    def loader() -> OrderedLoader:
        return opened_flat(folder, memory_budget=0).in_order("train")

    before = loader()
    fingerprint = fingerprint_of(before)
    assert fingerprint_of(loader()) == fingerprint
    edited, size = Path(before.images.paths[0]), os.path.getsize(before.images.paths[0])  # type: ignore[union-attr]
    Image.new("RGB", (8, 8), (200, 100, 50)).save(edited)
    assert os.path.getsize(edited) == size
    assert fingerprint_of(loader()) != fingerprint
    monkeypatch.setattr(Path, "read_bytes", None)  # it would fail
    assert fingerprint_of(before) == fingerprint  # read once for a run
    monkeypatch.undo()
    edited.unlink()
    with pytest.raises(UsageError, match=f"^--data.data_dir: expected images, got {edited}, which cannot be read"):
        before.images.index_select(0, torch.arange(3)).sha256  # type: ignore[union-attr]  # noqa: B018


@pytest.fixture
def quickly_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Judges that have learnt nothing; tells how many there were."""
    trained: list[int] = []

    def train(train: OrderedLoader, num_classes: int, device: torch.device) -> Judge:
        trained.append(num_classes)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return Judge(num_classes, 1, 8).eval()

    monkeypatch.setattr(judge_module, "train_judge", train)
    return trained


@pytest.mark.parametrize("place", ["/proc/nowhere/cache", "file", "file/cache"])
def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly_trained: list[int], place: str
) -> None:
    Path("file").touch()
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", place)
    data = opened(classes=[0, 1], image_size=8)
    splits = data.in_order("train"), data.in_order("validation")
    with pytest.warns(
        UserWarning, match=f"^{place}/judge-1-.* was not written: .*; set LIGHTNING_CGAN_CACHE to a fold"
    ):
        found = get_judge(*splits, 2, CPU)
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", str(tmp_path / "cache"))
    kept = get_judge(*splits, 2, CPU)
    assert get_judge(*splits, 2, CPU).sha256 == kept.sha256 == found.sha256  # that of the file, which is not there
    assert quickly_trained == [2, 2]


@pytest.mark.parametrize("damage", ["empty", "torn", "nonsense", "another size", "unknown accuracy", "folder"])
def test_a_damaged_file_of_the_cache_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly_trained: list[int], damage: str
) -> None:
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", str(tmp_path / "cache"))
    data = opened(classes=[0, 1], image_size=8)
    splits = data.in_order("train"), data.in_order("validation")
    first = get_judge(*splits, 2, CPU)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    card = {"fingerprint": first.fingerprint, "validation_accuracy": "much" if damage == "unknown accuracy" else "0.5"}
    if damage == "another size":
        judge_module.save_judge(Judge(3, 1, 8), file, **card)
    elif damage == "unknown accuracy":
        judge_module.save_judge(Judge(2, 1, 8), file, **card)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"empty": b"", "torn": whole[:-100], "nonsense": b"nonsense" * 9}[damage])
    if damage == "folder":
        with pytest.warns(UserWarning, match="was not written"):
            assert get_judge(*splits, 2, CPU).sha256 == first.sha256
    else:
        assert get_judge(*splits, 2, CPU).sha256 == first.sha256
        assert file.read_bytes() == whole
    assert quickly_trained == [2, 2]


@pytest.mark.parametrize("kept", [None, b"", b'{"mean": 0.', b"7", "unwritable"])
def test_a_bound_that_cannot_be_kept_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes | str | None
) -> None:
    monkeypatch.setenv("LIGHTNING_CGAN_CACHE", "/proc/nowhere" if kept == "unwritable" else str(tmp_path / "cache"))
    taught: list[int] = []

    def train_student(*_: object) -> dict[str, float]:
        taught.append(1)
        return {"mean": 0.5}

    evaluation = SimpleNamespace(
        about_data={}, device=CPU, protocol=QUICK, validation=None, _train_students=train_student
    )
    evaluation.train = opened().in_order("train")
    if kept == "unwritable":
        with pytest.warns(UserWarning, match="^/proc/nowhere/real_data_bound-.* was not written"):
            assert Evaluation.real_data_bound(evaluation) == {"mean": 0.5}  # type: ignore[arg-type]
        return
    assert Evaluation.real_data_bound(evaluation) == {"mean": 0.5}  # type: ignore[arg-type]
    (file,) = (tmp_path / "cache").iterdir()
    if kept is not None:
        file.write_bytes(kept.encode() if isinstance(kept, str) else kept)
    assert Evaluation.real_data_bound(evaluation) == {"mean": 0.5}  # type: ignore[arg-type]
    assert len(taught) == (1 if kept is None else 2)
