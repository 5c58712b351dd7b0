"""Images beside a run: the mode of the network is that of the run."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.pairs import PAIRS, built
from helpers.quiet import quiet_trainer
from lightning_cgan import ConditionalGAN, DigitsData, Generator, MLPDiscriminator, NonSaturating
from lightning_cgan.networks.modes import in_evaluation_mode


class Own(Generator):
    """What users' networks are like: dropout, hooks, containers and methods that name layers a second time."""

    def __init__(self) -> None:
        super().__init__(10, 1, 8, 4)
        self.embedding = nn.Embedding(10, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 16), nn.Linear(16, 64)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older form, which keeps its weight as a plain attribute
            nn.utils.spectral_norm(self.layers[1])
        nn.utils.parametrizations.weight_norm(self.layers[0])
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.5)
        self.order = [(self.layers[0], {"then": self.dropout}), (self.layers[1], {})]
        self.normalize = self.norm.forward
        self.calls = 0
        self.register_forward_hook(lambda *_: self._count())

    def _count(self) -> None:
        self.calls += 1

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        features = latents + self.embedding(labels)
        for layer, others in self.order:
            features = layer(features)
            if others:
                features = self.normalize(others["then"](features))
        return torch.tanh(features).reshape(-1, 1, 8, 8)


def gan(generator: Generator, **options: Any) -> ConditionalGAN:
    return ConditionalGAN(generator, MLPDiscriminator(10, 1, 8, hidden=(16,)), NonSaturating(), **options)


@pytest.mark.parametrize("name", ["own", *PAIRS])
def test_images_are_those_of_evaluation_mode(name: str) -> None:
    generator = Own() if name == "own" else built(PAIRS[name])[0]
    latents, labels = torch.randn(6, generator.latent_dim), torch.arange(6)
    generator.train()(latents, labels)  # statistics and singular values move
    modes = {module: module.training for module in generator.modules()}
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    made = gan(generator).generate(labels, latents)
    assert {module: module.training for module in generator.modules()} == modes
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key]), key
    with torch.no_grad():
        assert torch.equal(made, generator.eval()(latents, labels))


def test_nothing_but_modules_is_copied() -> None:
    generator = Own()
    twin = in_evaluation_mode(generator)
    assert twin is not generator
    for one, other in ((twin.parameters(), generator.parameters()), (twin.buffers(), generator.buffers())):
        assert [id(tensor) for tensor in one] == [id(tensor) for tensor in other]
    assert not any(module.training for module in twin.modules())
    assert all(module.training for module in generator.modules())
    twin(torch.zeros(1, 4), torch.zeros(1).long())
    assert generator.calls == 1  # hooks see both
    generator.embedding.weight = nn.Parameter(torch.zeros(10, 4))
    assert twin.embedding.weight is generator.embedding.weight


def test_layers_that_are_in_evaluation_mode_stay_so() -> None:
    """As of a run that keeps the statistics of some layers."""
    generator = Own()
    generator.norm.eval()
    gan(generator).generate([1, 2])
    assert not generator.norm.training
    assert generator.dropout.training


def test_an_error_leaves_the_mode() -> None:
    class Broken(Own):
        def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
            raise RuntimeError("broken")

    module = gan(Broken())
    with pytest.raises(RuntimeError, match="broken"):
        module.generate([1])
    assert all(network.training for network in module.generator.modules())


@pytest.mark.parametrize("compiles", ["in place", "wrapped"])
def test_compiled_networks_are_as_good(compiles: str) -> None:
    module = gan(Own())
    labels, latents = torch.arange(4), torch.randn(4, 4)
    expected = module.generate(labels, latents)
    if compiles == "in place":
        module.generator.compile(backend="eager")
    else:
        module.generator = torch.compile(module.generator, backend="eager")  # type: ignore[assignment]
    assert torch.equal(module.generate(labels, latents), expected)
    assert module.generator.training


class Watching(Own):
    """Tells whether it was ever called in a mode that is not that of its caller's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        is_run = threading.current_thread() is threading.main_thread()
        self.seen.append((is_run, self.training and self.dropout.training))
        return super().forward(latents, labels)


@pytest.mark.parametrize("ema_half_life", [None, 100.0])
def test_images_of_threads_beside_a_run(ema_half_life: float | None) -> None:
    """Two threads make images while a run trains and validates: its weights are those of a run that is alone."""
    runs = []
    for threads in (0, 2):
        torch.manual_seed(0)
        module, ended = gan(Watching(), ema_half_life=ema_half_life), threading.Event()

        def make(module: ConditionalGAN = module, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                module.generate([3, 4], seed=1)

        beside = [threading.Thread(target=make) for _ in range(threads)]
        for thread in beside:
            thread.start()
        try:
            trainer = quiet_trainer(10, val_check_interval=3, limit_val_batches=1)
            trainer.fit(module, DigitsData(batch_size=16))
        finally:
            ended.set()
            for thread in beside:
                thread.join()
        runs.append(module)
    for value, other in zip(runs[0].state_dict().values(), runs[1].state_dict().values(), strict=True):
        assert torch.equal(value, other)
    assert all(network.training for network in runs[1].generator.modules())
    seen = [
        mode for network in (runs[1].generator, runs[1].generator_ema) if network is not None for mode in network.seen
    ]
    assert len({is_run for is_run, _ in seen}) == 2
    assert not any(training for is_run, training in seen if not is_run)
