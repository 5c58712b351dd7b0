"""Batches of loaders of one's own: what is trained on, and what is refused in one line."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, Generator, MLPDiscriminator, MLPGenerator, NonSaturating, UsageError
from lightning_cgan.training.batch_checks import BatchChecker

IMAGES = torch.linspace(-1, 1, 6 * 2 * 8 * 8).reshape(6, 2, 8, 8)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


def gan(**options: Any) -> ConditionalGAN:
    networks = {
        "generator": MLPGenerator(3, 2, 8, latent_dim=4, hidden=(8,)),
        "discriminator": MLPDiscriminator(3, 2, 8, hidden=(8,), conditioning="projection"),
    }
    return ConditionalGAN(**{"loss": NonSaturating(), **networks, **options})


def loader(*batches: Any) -> Any:
    """Gives these batches, as they are."""
    return DataLoader(list(batches), batch_size=None, collate_fn=lambda batch: batch)


def train(*batches: Any, module: ConditionalGAN | None = None, **options: Any) -> ConditionalGAN:
    torch.manual_seed(0)
    module = module or gan()
    quiet_trainer(-1, **{"max_epochs": 1, **options}).fit(module, loader(*batches))
    return module


def refusal(*batches: Any) -> str:
    """What training says of batches, and that validation, test and their sanity check say the same."""
    with pytest.raises(UsageError) as caught:
        train(*batches)
    message = str(caught.value)
    for run, stage in (("validate", "validation"), ("test", "test")):
        with pytest.raises(UsageError) as caught:
            getattr(quiet_trainer(1), run)(gan(), loader(*batches), verbose=False)
        assert str(caught.value) == message.replace("training batch", f"{stage} batch")
    assert "\n" not in message
    return message


def warnings_of(*batches: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(*batches, **options)
    return [str(one.message) for one in caught if str(one.message).startswith(("images:", "labels:", "batches:"))]


WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_type_train_as_int64(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    expected = train((IMAGES, LABELS), [IMAGES, LABELS])
    torch.manual_seed(0)
    module = train((IMAGES, LABELS.to(kind)), [IMAGES, LABELS.to(kind)])
    for (name, value), other in zip(module.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_images_of_another_precision_train() -> None:
    expected = train((IMAGES, LABELS))
    module = train((IMAGES.double(), LABELS))
    for value, other in zip(module.parameters(), expected.parameters(), strict=True):
        assert torch.equal(value, other)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS / 2, "expected class numbers, whole numbers from 0 to 2, got fractions in training batch 1"),
        (LABELS.where(LABELS < 2, torch.nan), "expected class numbers, whole numbers from 0 to 2, got fractions"),
        (LABELS - 1, "expected class numbers from 0 to 2, got -1 in training batch 1; number the classes from 0"),
        (LABELS.int() * 2, "expected class numbers from 0 to 2, got 4 in training batch 1; number the classes from 0"),
        (LABELS == 1, "expected class numbers, got torch.bool; give int64"),
        (LABELS[:, None], r"expected class numbers, shape \(N,\), got shape \(6, 1\); give labels.squeeze\(1\)"),
        (torch.eye(3)[LABELS], r"got shape \(6, 3\); give one label per image; for one-hot rows, labels.argmax\(1\)"),
        (LABELS.reshape(6, 1, 1), r"got shape \(6, 1, 1\); give one label per image"),
        (
            ("cat", "dog") * 3,
            r"expected a tensor of class numbers, shape \(N,\), got text such as 'cat'; number the cl",
        ),
        (LABELS.tolist(), r"expected a tensor of class numbers, shape \(N,\), got a list of 6 parts; number the cl"),
        (None, "got a NoneType; number the classes from 0"),
    ],
)
def test_labels_that_are_no_classes(labels: Any, message: str) -> None:
    assert re.match(f"labels: .*{message}", refusal((IMAGES, labels)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.permute(0, 2, 3, 1), "got (N, 8, 8, 2); put the channels first: images.permute(0, 3, 1, 2)"),
        (IMAGES[:, :1], "got (N, 1, 8, 8); convert them to 2 channels, or build both networks with image_channels=1"),
        (IMAGES[..., :6], "got (N, 2, 8, 6); resize them to 8 x 8 pixels, or build both networks with another"),
        (IMAGES.flatten(1), "got (N, 128); resize them to 8 x 8 pixels"),
        (IMAGES.to(torch.uint8), "expected floats in [-1, 1], got torch.uint8; give images / 127.5 - 1"),
        (IMAGES.to(torch.int32), "expected floats in [-1, 1], got torch.int32; give floats"),
        (
            (IMAGES + 1) * 127.5,
            "expected pixels in [-1, 1], got 0 to 255 in training batch 1; if they have 8 bits per "
            "channel, give images / 127.5 - 1",
        ),
        (IMAGES / 0, "expected finite pixels in [-1, 1], got NaN or infinity in training batch 1; remove such"),
        (IMAGES.where(IMAGES < 0.5, torch.nan), "expected finite pixels in [-1, 1], got NaN or infinity"),
        (IMAGES.tolist(), "expected a tensor of images, shape (N, 2, 8, 8), got a list of 6 parts; yield pairs"),
    ],
)
def test_images_that_are_none(images: Any, message: str) -> None:
    found = refusal((images, LABELS))
    assert found.startswith("images: ")
    assert message in found


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"image": IMAGES, "label": LABELS}, "a dictionary of image, label"),
        ((IMAGES, LABELS, LABELS), "3 parts"),
        ([IMAGES], "1 parts"),
        (IMAGES, "one tensor of shape (6, 2, 8, 8)"),
        ("cats", "a str"),
    ],
)
def test_batches_that_are_no_pairs(batch: Any, got: str) -> None:
    expected = (
        f"batches: expected (images, labels), got {got}; yield pairs (images, labels), for example with a collate_fn"
    )
    assert refusal(batch) == expected


def test_as_many_labels_as_images() -> None:
    assert refusal((IMAGES, LABELS[:5])).startswith(
        "batches: expected as many labels as images, got 5 labels and 6 images"
    )


def test_several_loaders_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="got a dictionary of a, b; yield pairs"):
        quiet_trainer(1).fit(gan(), {"a": loader((IMAGES, LABELS)), "b": loader((IMAGES, LABELS))})


def test_images_in_another_range_are_warned_of_once() -> None:
    unsigned = (IMAGES + 1) / 2
    assert warnings_of((IMAGES, LABELS), (unsigned, LABELS)) == []  # bright ones come by chance
    assert warnings_of(*[(unsigned, LABELS)] * 3, max_epochs=2) == [
        "images: expected pixels in [-1, 1], got 0 to 1 in training batch 1; if they are in [0, 1], give images * 2 - "
        "1, or add Normalize(0.5, 0.5) after ToTensor()"
    ]
    standardised = (unsigned - 0.1307) / 0.3081
    assert warnings_of((IMAGES * 1.04, LABELS), *[(standardised, LABELS)] * 2) == [
        "images: expected pixels in [-1, 1], got -0.424 to 2.82 in training batch 2; scale them, as ToTensor() and "
        "Normalize(0.5, 0.5) do"
    ]


def test_faults_of_later_batches_end_the_run() -> None:
    good = (IMAGES, LABELS)
    with pytest.raises(UsageError, match="labels: .* got 3 in training batch 3"):
        train(good, good, (IMAGES, LABELS + 1))
    with pytest.raises(UsageError, match="images: .* got NaN or infinity in training batch 2"):
        train(good, (IMAGES.log(), LABELS), good)
    with pytest.raises(UsageError, match="labels: .* got fractions in training batch 2"):
        train(good, (IMAGES, LABELS + 0.5), good)


class LookedAt(Tensor):
    """A tensor that tells when its values are asked for, as on a GPU, which would have to be waited for."""

    asked: list[str] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__):
            cls.asked.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_on_a_gpu_values_wait_to_be_looked_at(recwarn: pytest.WarningsRecorder) -> None:
    """Nothing is read off a tensor in between; labels that are no classes are made such, so that a look-up holds."""
    module = gan()
    checker = BatchChecker(module.generator, module.discriminator)
    LookedAt.asked.clear()
    for labels in (LABELS, LABELS.float(), LABELS + 7, -LABELS):
        images = IMAGES.as_subclass(LookedAt)
        _, safe = checker.check((images, labels.as_subclass(LookedAt)), "training", 4, at_once=False)
        assert torch.equal(safe.as_subclass(Tensor), labels.long().clamp(0, 2))
    assert LookedAt.asked == []
    with pytest.raises(UsageError, match="labels: expected class numbers from 0 to 2, got 7 in training batch 5"):
        checker.raise_faults()
    checker.raise_faults()  # said once
    checker.check((IMAGES * 3, LABELS), "training", 8, at_once=False)
    checker.raise_faults()
    assert [str(one.message) for one in recwarn] == [
        "images: expected pixels in [-1, 1], got -3 to 3 in training batch 9; scale them, as ToTensor() and "
        "Normalize(0.5, 0.5) do"
    ]
    for batch in ((IMAGES / 0, LABELS), (IMAGES, LABELS / 2)):
        checker.check(batch, "training", 1, at_once=False)
        with pytest.raises(UsageError, match="training batch 2"):
            checker.raise_faults()


@pytest.mark.parametrize("every_n_steps", [0, 2, 50])
def test_what_waits_is_looked_at_where_scalars_are_logged_and_at_the_end(
    every_n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = BatchChecker.check

    def later(self: BatchChecker, batch: Any, stage: str, batch_idx: int, at_once: bool = True) -> Any:
        return check(self, batch, stage, batch_idx, at_once=False)

    monkeypatch.setattr(BatchChecker, "check", later)
    module, good = gan(), (IMAGES, LABELS)
    with pytest.raises(UsageError, match="got 7 in training batch 1"):
        train((IMAGES, LABELS + 7), *[good] * 4, module=module, log_every_n_steps=every_n_steps)
    assert module.global_step == {0: 5, 2: 2, 50: 5}[every_n_steps]


def test_half_precision_does_not_hold_all_labels() -> None:
    module = gan(generator=MLPGenerator(300, 2, 8), discriminator=MLPDiscriminator(300, 2, 8))
    for kind in (torch.bfloat16, torch.float32):
        checker = BatchChecker(module.generator, module.discriminator)
        if kind == torch.float32:
            checker.check((IMAGES, LABELS.to(kind)), "training", 0)
            continue
        with pytest.raises(
            UsageError, match=r"got torch.bfloat16, which cannot represent all numbers below 300; give in"
        ):
            checker.check((IMAGES, LABELS.to(kind)), "training", 0)


# ---- short batches ---------------------------------------------------------------------------------------------------


def short(count: int) -> tuple[Tensor, Tensor]:
    return IMAGES[:count], LABELS[:count]


@pytest.mark.parametrize("options", [{"discriminator_steps": 2}, {"generator_accumulation": 2}])
def test_a_short_last_batch_is_cut_to_what_can_be_used(options: dict[str, int]) -> None:
    expected = train(short(6), short(4), module=gan(**options))
    torch.manual_seed(0)
    shown = warnings_of(short(6), short(5), module=(module := gan(**options)))
    assert module.trainer.global_step == 2
    assert shown == [
        "batches: expected a multiple of 2 images in each process, got 5 in a short one, of which 4 are "
        "used; this repeats in each epoch, unless drop_last=True skips short batches"
    ]
    assert module.ema.images_seen == expected.ema.images_seen


def test_trimmed_batches_train_as_if_they_had_come_so() -> None:
    modules = []
    for last in (5, 4):
        torch.manual_seed(0)
        module = gan(discriminator_steps=2, ema_half_life=10.0)
        modules.append(train(short(6), short(last), module=module, max_epochs=2))
    for (name, value), other in zip(modules[0].state_dict().items(), modules[1].state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_a_last_batch_of_too_few_is_no_step() -> None:
    module = gan(discriminator_steps=3)
    assert len(warnings_of(short(6), short(2), module=module, max_epochs=2)) == 1
    assert module.trainer.global_step == 2
    assert module.trainer.fit_loop.epoch_loop.total_batch_idx == 3


def test_a_last_batch_of_one_image_has_no_statistics() -> None:
    generator = MLPGenerator(3, 2, 8, latent_dim=4, hidden=(8,), batch_norm=True)
    module = gan(generator=generator)
    assert len(warnings_of(short(6), short(1), module=module)) == 1
    assert module.trainer.global_step == 1
    assert train(short(6), short(1)).trainer.global_step == 2  # without, one image is as good as any


def test_batches_that_are_always_too_short_end_the_run() -> None:
    with pytest.raises(UsageError, match="discriminator_steps: expected training batches of a multiple of 4 images"):
        train(short(6), module=gan(discriminator_steps=4))
    ends = DataLoader(list(zip(IMAGES[:2], LABELS[:2], strict=True)), batch_size=8)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batches: expected 4 images or more .*, got fewer in two batches in a row"):
        quiet_trainer(5).fit(gan(discriminator_steps=4), ends)


def test_a_full_batch_is_that_of_the_loader() -> None:
    """A set that is smaller than a batch, as of a fold, is cut as a last batch is."""
    six = DataLoader(list(zip(IMAGES, LABELS, strict=True)), batch_size=8)  # type: ignore[arg-type]
    trainer = quiet_trainer(2)
    trainer.fit(gan(discriminator_steps=4), six)
    assert trainer.global_step == 2


# ---- other loops -----------------------------------------------------------------------------------------------------


def test_two_validation_loaders_have_losses_each() -> None:
    module = gan()
    trainer = quiet_trainer(1, max_epochs=1)
    trainer.fit(module, loader((IMAGES, LABELS)), [loader((IMAGES, LABELS)), loader((-IMAGES, LABELS))])
    losses = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
    names = [f"val_{role}_loss/dataloader_idx_{i}" for i in range(2) for role in ("discriminator", "generator")]
    assert sorted(losses) == sorted(names)
    (alone,) = quiet_trainer(1).validate(module, loader((IMAGES, LABELS)), verbose=False)
    assert losses[names[0]] == pytest.approx(alone["val_discriminator_loss"], abs=1e-6)  # the first is as if alone
    assert losses[names[0]] != pytest.approx(losses[names[2]], abs=1e-6)
    tested = quiet_trainer(1).test(module, [loader((IMAGES, LABELS))] * 2, verbose=False)
    assert [sorted(name[-1] for name in found) for found in tested] == [["0", "0"], ["1", "1"]]


@pytest.mark.parametrize("batch", [LABELS, [LABELS], (LABELS.float(),), LABELS.to(torch.uint8)])
def test_labels_to_predict(batch: Any) -> None:
    module = gan()
    torch.manual_seed(0)
    (made,) = quiet_trainer(1).predict(module, loader(LABELS))  # type: ignore[misc]
    ((images, labels),) = quiet_trainer(1).predict(module, loader(batch))  # type: ignore[misc]
    assert torch.equal(labels, LABELS)
    assert torch.equal(images, made[0])


def test_numbered_labels_to_predict() -> None:
    module, numbered = gan(), torch.stack([LABELS, torch.arange(6)], 1)
    (made,) = quiet_trainer(1).predict(module, loader(numbered))  # type: ignore[misc]
    ((images, labels),) = quiet_trainer(1).predict(module, loader([numbered.int()]))  # type: ignore[misc]
    assert torch.equal(images, made[0])
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            [IMAGES, LABELS],
            "predict batch 1: expected labels, shape (N,), or labels and numbers of images, shape (N, 2)",
        ),
        (IMAGES, "got shape (6, 2, 8, 8); give labels alone, as DataLoader(TensorDataset(labels)) does"),
        (LABELS[:, None], "got shape (6, 1); give labels alone"),
        (["cat"], "got a str; give labels alone"),
        ({"label": LABELS}, "got a dictionary of label; give labels alone"),
        (LABELS + 1, "labels: expected class numbers from 0 to 2, got 3 in predict batch 1"),
        (LABELS / 2, "labels: expected class numbers, whole numbers from 0 to 2, got fractions in predict batch 1"),
        (torch.tensor([[0, -1]]), "expected numbers of images from 0, got negative ones"),
    ],
)
def test_labels_to_predict_that_are_none(batch: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        quiet_trainer(1).predict(gan(), loader(batch))
    assert message in str(caught.value)


class Looks(Generator):
    """Keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__(3, 2, 8, 4)
        self.table = nn.Embedding(3, 128)
        self.kinds: set[torch.dtype] = set()

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        self.kinds.add(labels.dtype)
        return torch.tanh(self.table(labels)).reshape(-1, 2, 8, 8)


def test_networks_of_ones_own_see_int64_everywhere() -> None:
    module = gan(generator=Looks())
    batch = (IMAGES, LABELS.double())
    trainer = quiet_trainer(1)
    trainer.fit(module, loader(batch), loader(batch))
    trainer.validate(module, loader(batch), verbose=False)
    trainer.test(module, loader(batch), verbose=False)
    trainer.predict(module, loader([LABELS.double()]))
    assert module.generator.kinds == {torch.int64}
