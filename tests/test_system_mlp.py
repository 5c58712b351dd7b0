"""The step of `mnist_mlp.yaml` against a literal transcription in NumPy, with gradients worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from helpers.paths import CONFIGS
from lightning_cgan.cli.main import CLI, main

Array = np.ndarray[Any, np.dtype[np.float64]]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


LAST = {"generator": "generator.layers.2", "discriminator": "discriminator.head.linear"}


class Transcription:
    """Two networks with one hidden layer each, sigmoid cross-entropy, Adam with its defaults; pixels in [0, 1]."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = {name: value.copy() for name, value in weights.items()}
        self.first = {name: np.zeros_like(value) for name, value in weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in weights.items()}
        self.count = {"generator": 0, "discriminator": 0}

    def layer(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def forward(self, network: str, x: Array) -> tuple[Array, Array]:
        hidden = self.layer(f"{network}.layers.0", x)
        return hidden, self.layer(LAST[network], np.maximum(hidden, 0))

    def backward(self, network: str, x: Array, hidden: Array, d_out: Array) -> tuple[dict[str, Array], Array]:
        weights = self.weights
        d_hidden = (d_out @ weights[f"{LAST[network]}.weight"]) * (hidden > 0)
        gradients = {
            f"{network}.layers.0.weight": d_hidden.T @ x,
            f"{network}.layers.0.bias": d_hidden.sum(0),
            f"{LAST[network]}.weight": d_out.T @ np.maximum(hidden, 0),
            f"{LAST[network]}.bias": d_out.sum(0),
        }
        return gradients, d_hidden @ weights[f"{network}.layers.0.weight"]

    def adam(self, network: str, gradients: dict[str, Array]) -> None:
        self.count[network] += 1
        t = self.count[network]
        for name, gradient in gradients.items():
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            m, v = self.first[name] / (1 - 0.9**t), self.second[name] / (1 - 0.999**t)
            self.weights[name] -= 1e-3 * m / (np.sqrt(v) + 1e-8)

    def step(self, pixels: Array, labels: Array, latents: Array) -> tuple[float, float]:
        n = len(pixels)
        code = np.eye(10)[labels.astype(int)]
        to_generator = np.concatenate([latents, code], axis=1)
        hidden_g, out = self.forward("generator", to_generator)
        fakes = sigmoid(out)

        real_in, fake_in = np.concatenate([pixels, code], axis=1), np.concatenate([fakes, code], axis=1)
        hidden_r, real_logits = self.forward("discriminator", real_in)
        hidden_f, fake_logits = self.forward("discriminator", fake_in)
        # -log sigmoid(real) and -log(1 - sigmoid(fake)): the mean of each, and their sum
        d_loss = np.log1p(np.exp(-real_logits)).mean() + np.log1p(np.exp(fake_logits)).mean()
        of_real, _ = self.backward("discriminator", real_in, hidden_r, -sigmoid(-real_logits) / n)
        of_fake, _ = self.backward("discriminator", fake_in, hidden_f, sigmoid(fake_logits) / n)
        self.adam("discriminator", {name: of_real[name] + of_fake[name] for name in of_real})

        hidden_f, fake_logits = self.forward("discriminator", fake_in)
        g_loss = np.log1p(np.exp(-fake_logits)).mean()  # -log sigmoid(fake)
        _, d_fake_in = self.backward("discriminator", fake_in, hidden_f, -sigmoid(-fake_logits) / n)
        d_out = d_fake_in[:, :784] * fakes * (1 - fakes)
        gradients, _ = self.backward("generator", to_generator, hidden_g, d_out)
        self.adam("generator", gradients)
        return float(d_loss), float(g_loss)


class Witness(Callback):
    """Writes down what goes into each step, and what comes out."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.before: dict[str, Array] = {}

    def weights(self, module: LightningModule) -> dict[str, Array]:
        return {name: value.numpy().copy() for name, value in module.state_dict().items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = self.weights(pl_module)
        input_sampler: Any = pl_module.input_sampler
        sample_update = input_sampler.sample_update

        def watched_deal(*args: Any) -> Any:
            inputs = sample_update(*args)
            self.latents, self.fake_labels = inputs.latents.numpy().copy(), inputs.fake_labels.numpy().copy()
            return inputs

        input_sampler.sample_update = watched_deal

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        images, labels = (tensor.numpy().copy() for tensor in batch)
        logged = trainer.callback_metrics
        self.steps.append(
            {
                "images": images,
                "labels": labels,
                "latents": self.latents,
                "fake_labels": self.fake_labels,
                "weights": self.weights(pl_module),
                "losses": (logged["discriminator_loss"].item(), logged["generator_loss"].item()),
            }
        )


@pytest.fixture
def witnessed(monkeypatch: pytest.MonkeyPatch, mnist_folder: str) -> Callable[[str, str], Witness]:
    def witness_run(precision: str, compile: str) -> Witness:
        witness = Witness()
        fit = CLI.fit

        def watched_fit(cli: CLI, **kwargs: Any) -> None:
            cli.trainer.callbacks.insert(0, witness)  # type: ignore[attr-defined]
            fit(cli, **kwargs)

        monkeypatch.setattr(CLI, "fit", watched_fit)
        config = str(CONFIGS / "mnist_mlp.yaml")
        options = ["--trainer.max_steps", "4", "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"]
        options += ["--trainer.precision", precision, "--model.compile", compile]
        main(["fit", "--config", config, "--data.data_dir", mnist_folder, *options])
        return witness

    return witness_run


@pytest.mark.parametrize(
    ("precision", "compile", "tolerance"),
    [("64-true", "none", 1e-9), pytest.param("32-true", "step", 3e-5, marks=pytest.mark.ci)],
)
def test_step_is_the_transcription(
    witnessed: Callable[[str, str], Witness], precision: str, compile: str, tolerance: float
) -> None:
    witness = witnessed(precision, compile)
    transcription = Transcription({name: value.astype(np.float64) for name, value in witness.before.items()})
    assert len(witness.steps) == 4
    for step in witness.steps:
        assert step["images"].shape == (64, 1, 28, 28)
        assert np.array_equal(step["labels"], step["fake_labels"])
        assert -1 <= step["latents"].min() < -0.9 < 0.9 < step["latents"].max() <= 1
        pixels = (step["images"].reshape(64, 784).astype(np.float64) + 1) / 2
        losses = transcription.step(pixels, step["labels"], step["latents"].astype(np.float64))
        assert step["losses"] == pytest.approx(losses, abs=tolerance, rel=1e-6)
        for name, value in transcription.weights.items():
            assert np.abs(step["weights"][name] - value).max() < tolerance, name
