"""Weights for other classes: a class makes the same images, and gets the same logits, under its new number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cgan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    discriminate,
)
from lightning_cgan.networks.transfer import transfer_weights

THEIRS, OURS = ("a", "b", "c"), ("c", "new", "a", "b", "other")
GENERATORS: dict[str, tuple[type[Generator], dict[str, Any]]] = {
    "mlp": (MLPGenerator, {"hidden": (16,)}),
    "mlp, embedding": (MLPGenerator, {"hidden": (16,), "label_embedding": 3}),
    "dcgan": (DCGANGenerator, {"channels": (8, 4)}),
    "dcgan, conditional": (DCGANGenerator, {"channels": (8, 4), "conditional_batch_norm": True}),
    "resnet": (ResNetGenerator, {"channels": (8, 4)}),
    "r3gan": (R3GANGenerator, {"channels": (8, 4)}),
}
DISCRIMINATORS: dict[str, tuple[type[Discriminator], dict[str, Any]]] = {
    "mlp": (MLPDiscriminator, {"hidden": (16,)}),
    "dcgan": (DCGANDiscriminator, {"channels": (4, 8)}),
    "resnet": (ResNetDiscriminator, {"channels": (4, 8)}),
    "resnet, spectral": (ResNetDiscriminator, {"channels": (4, 8), "spectral_norm": True}),
    "r3gan": (R3GANDiscriminator, {"channels": (4, 8)}),
}


def shuffled(network: nn.Module) -> None:
    """Gives all tensors values that differ from class to class."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
                if name.endswith(("._u", "._v")):  # estimates of singular vectors
                    tensor /= tensor.norm()


@pytest.mark.parametrize("name", GENERATORS)
def test_a_class_makes_the_same_images(name: str) -> None:
    kind, options = GENERATORS[name]
    theirs, ours = kind(3, 1, 8, latent_dim=4, **options), kind(5, 1, 8, latent_dim=4, **options)
    shuffled(theirs)
    transfer = transfer_weights(ours, theirs.state_dict(), THEIRS, OURS)
    assert not transfer.left
    assert transfer.taken == list(ours.state_dict())
    latents = torch.randn(6, 4)
    theirs.eval(), ours.eval()
    for number, class_name in enumerate(THEIRS):
        expected = theirs(latents, torch.full((6,), number))
        assert torch.allclose(ours(latents, torch.full((6,), OURS.index(class_name))), expected, atol=1e-6)


@pytest.mark.parametrize("conditioning", ["concatenation", "projection", "classifier", "projection_classifier"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_class_gets_the_same_logits(name: str, conditioning: str) -> None:
    kind, options = DISCRIMINATORS[name]
    # Spectral normalisation divides by the largest singular value, which more classes change.
    classes = ("c", "a", "b") if "spectral_norm" in options else OURS
    theirs, ours = (kind(count, 1, 8, conditioning=conditioning, **options) for count in (3, len(classes)))
    shuffled(theirs)
    assert not transfer_weights(ours, theirs.state_dict(), THEIRS, classes).left
    theirs.eval(), ours.eval()
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    for number, class_name in enumerate(THEIRS):
        expected = discriminate(theirs, images, torch.full((6,), number))
        got = discriminate(ours, images, torch.full((6,), classes.index(class_name)))
        assert torch.allclose(got.logits, expected.logits, rtol=1e-4)
        if expected.class_logits is not None:
            assert got.class_logits is not None
            kept = got.class_logits[:, [classes.index(one) for one in THEIRS]]
            assert torch.allclose(kept, expected.class_logits, rtol=1e-4)


def test_a_new_class_begins_as_the_mean() -> None:
    """By hand: rows of an embedding, rows of a classifier, and the columns of one-hot labels."""
    theirs, ours = (MLPDiscriminator(count, 1, 8, (4,), conditioning="projection_classifier") for count in (3, 5))
    transfer_weights(ours, theirs.state_dict(), THEIRS, OURS)
    for name in ("head.embedding.weight", "head.classes.weight", "head.classes.bias"):
        before, after = theirs.state_dict()[name], ours.state_dict()[name]
        assert torch.allclose(after[1], (before[0] + before[1] + before[2]) / 3)
        assert torch.equal(after[0], before[2])
    generators = [MLPGenerator(count, 1, 8, latent_dim=4, hidden=(4,)) for count in (3, 5)]
    transfer_weights(generators[1], generators[0].state_dict(), THEIRS, OURS)
    before, after = (generator.state_dict()["layers.0.weight"] for generator in generators)
    assert torch.equal(after[:, :4], before[:, :4])  # of the latents
    assert torch.equal(after[:, 4], before[:, 6])  # of c
    assert torch.allclose(after[:, 5], before[:, 4:].mean(1))
    assert torch.equal(after[:, 6], before[:, 4])  # of a


def test_what_does_not_fit_keeps_its_values() -> None:
    theirs, ours = MLPGenerator(3, 1, 8, 4, (16,)), MLPGenerator(3, 1, 8, 4, (16, 8))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    transfer = transfer_weights(ours, theirs.state_dict(), THEIRS, THEIRS)
    assert transfer.taken == ["layers.0.weight", "layers.0.bias"]
    assert transfer.left == {
        "layers.2.weight": "64 x 16 there, 8 x 16 here",
        "layers.2.bias": "64 there, 8 here",
        "layers.4.weight": "not there",
        "layers.4.bias": "not there",
    }
    for name in transfer.left:
        assert torch.equal(ours.state_dict()[name], before[name])


def test_other_latents_do_not_shift_the_columns_of_the_classes() -> None:
    theirs, ours = MLPGenerator(3, 1, 8, latent_dim=6, hidden=(16,)), MLPGenerator(3, 1, 8, latent_dim=4, hidden=(16,))
    transfer = transfer_weights(ours, theirs.state_dict(), THEIRS, THEIRS)
    assert transfer.left == {"layers.0.weight": "16 x 9 there, 16 x 7 here"}
    wider = MLPGenerator(5, 1, 8, latent_dim=4, hidden=(16,))  # 4 + 5 columns, as 6 + 3
    assert "layers.0.weight" in transfer_weights(wider, theirs.state_dict(), THEIRS, OURS).left


def test_a_network_of_ones_own_keeps_what_does_not_depend_on_classes() -> None:
    class Own(Generator):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes, 1, 8, 4)
            self.rows, self.pixels = nn.Embedding(num_classes, 4), nn.Linear(4, 64)

        def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
            return self.pixels(latents * self.rows(labels)).tanh().view(-1, 1, 8, 8)

    theirs, ours = Own(3), Own(5)
    transfer = transfer_weights(ours, theirs.state_dict(), THEIRS, OURS)
    assert transfer.taken == ["pixels.weight", "pixels.bias"]
    assert transfer.left == {"rows.weight": "3 x 4 there, 5 x 4 here"}


def test_the_random_numbers_of_a_run_stay_the_same() -> None:
    theirs, ours = MLPGenerator(3, 1, 8, 4, (16,)), MLPGenerator(5, 1, 8, 4, (16,))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    transfer_weights(ours, theirs.state_dict(), THEIRS, OURS)
    assert torch.equal(torch.rand(3), expected)


def test_rows_of_something_else_are_left() -> None:
    """An embedding with one row more than classes: which rows belong to classes is not known."""
    theirs, ours = WithNull(3), WithNull(5)
    transfer = transfer_weights(ours, theirs.state_dict(), THEIRS, OURS)
    assert transfer.left == {"rows.weight": "with rows of something else than classes"}


def test_a_network_whose_number_of_classes_is_a_default() -> None:
    theirs, ours = Counted(), Counted()
    assert not transfer_weights(ours, theirs.state_dict(), THEIRS, ("c", "b", "a")).left
    assert torch.equal(ours.rows.weight, theirs.rows.weight.flip(0))


def test_layers_without_a_shape_are_left() -> None:
    class Lazy(WithNull):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            self.pixels = nn.LazyLinear(64)

    assert "pixels.weight" in transfer_weights(Lazy(3), Lazy(3).state_dict(), THEIRS, THEIRS).left


def test_wrappers_of_the_compiler_are_looked_into() -> None:
    theirs, ours = Counted(), Counted()
    wrapped: Any = torch.compile(ours, backend="eager")
    transfer_weights(wrapped, torch.compile(theirs, backend="eager").state_dict(), THEIRS, THEIRS)  # type: ignore[attr-defined]
    assert torch.equal(ours.rows.weight, theirs.rows.weight)


def test_vectors_of_spectral_norm_keep_their_length() -> None:
    theirs, ours = (
        ResNetDiscriminator(count, 1, 8, channels=(4, 8), conditioning="projection", spectral_norm=True)
        for count in (10, 2)
    )
    transfer_weights(ours, theirs.state_dict(), tuple("abcdefghij"), ("b", "x"))
    for name, vector in ours.state_dict().items():
        if name.endswith(("._u", "._v")):
            assert torch.allclose(vector.norm(), torch.tensor(1.0), atol=1e-4), name


class WithNull(Generator):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 1, 8, 4)
        self.rows, self.pixels = nn.Embedding(num_classes + 1, 4), nn.Linear(4, 64)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.pixels(latents * self.rows(labels)).tanh().view(-1, 1, 8, 8)


class Counted(Generator):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes, 1, 8, 4)
        self.rows, self.pixels = nn.Embedding(num_classes, 4), nn.Linear(4, 64)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.pixels(latents * self.rows(labels)).tanh().view(-1, 1, 8, 8)
