"""Begin a training with weights of another one, for the same or for other classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor

from lightning_cgan.core.class_names import usable_names
from lightning_cgan.core.compat import original_of
from lightning_cgan.core.errors import UsageError, printable
from lightning_cgan.export.source import load_source
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.networks.transfer import Transfer, transfer_weights

_OPTION = "--init_from"


def initialize_from(module: ConditionalGAN, source: str, class_names: Sequence[str] | None = None) -> list[str]:
    """Sets the weights of a module to those of a trained one, as far as they fit by name and shape.

    What belongs to a class, such as rows of embeddings and columns of one-hot labels, follows the name of the class. A
    class that the source does not know begins as the mean of those that it knows. The moving average begins with that
    of the source. Optimizers, schedules and counters begin anew: to continue a run, resume it instead.

    Examples:
        >>> generator = DCGANGenerator(2, 1, 16, latent_dim=32, channels=(64, 32), conditional_batch_norm=True)
        >>> module = ConditionalGAN(generator, DCGANDiscriminator(2, 1, 16), NonSaturating())
        >>> for line in initialize_from(module, "digits", class_names=["7", "ten"]):
        ...     print(line)
        generator: 16 of 16 tensors
        discriminator: there is none; it begins with new weights
        classes begin: '7' as there; 'ten' as the mean of '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'

    Args:
        module: The module, before its training.
        source: A checkpoint; or a folder that `export` wrote, or the name of a shipped generator: these hold the
            weights of the generator alone.
        class_names: The names of the module's classes; if not given, those that it has.

    Returns:
        What was taken and what was not, in sentences.

    Raises:
        UsageError: There is no such source, none of its weights fit, some for frozen layers are missing, or
            `class_names` does not name each class.
    """
    classes = module.class_names
    if class_names is not None:
        named = usable_names("class_names", list(class_names), module.num_classes)
        if named is None or isinstance(class_names, str):
            expected = f"expected {module.num_classes} names, one for each class"
            raise UsageError(f"class_names: {expected}, got {printable(str(class_names), 100)}; name each class")
        classes = named
    with torch.random.fork_rng([]):  # building the networks of the source samples weights
        weights, their_classes, latents = _read(source)
    found: dict[str, Transfer] = {}
    for part in ("generator", "generator_ema", "discriminator"):
        network, own = getattr(module, part), _of_part(weights, part)
        if network is not None and own:
            found[part] = transfer_weights(network, own, their_classes, classes)
    # Biases and counters of one value fit anywhere.
    state = module.state_dict()
    fits = any(state[f"{part}.{name}"].numel() > 1 for part, transfer in found.items() for name in transfer.taken)
    if not fits:
        why = "; ".join(_sentence(part, transfer) for part, transfer in found.items())
        raise UsageError(
            f"{_OPTION}: expected weights that fit these networks, got none in {source} ({why}); build the networks of "
            "its config"
        )
    has_new_classes = not set(classes) <= set(their_classes)
    _check_frozen(module, found.get("discriminator"), source, has_new_classes)
    lines = [_sentence(part, transfer) for part, transfer in found.items()]
    if "discriminator" not in found:
        lines.append("discriminator: there is none; it begins with new weights")
    if any(set(transfer.taken) & (transfer.of_classes or set()) for transfer in found.values()):
        lines.append(f"classes begin: {_about_classes(their_classes, classes)}")
    unknown = [part for part, transfer in found.items() if transfer.of_classes is None]
    if unknown and tuple(their_classes) != tuple(classes):
        lines.append(f"{' and '.join(unknown)}: not known which weights belong to classes; these keep their order")
    if latents != module.latents:
        lines.append(f"latents: {latents} there, {module.latents} here")
    return lines


def _check_frozen(module: ConditionalGAN, transfer: Transfer | None, source: str, has_new_classes: bool) -> None:
    """Refuses frozen layers that would keep new weights, or the same weights for all new classes."""
    option, discriminator = "--model.discriminator_frozen_layers", module.discriminator
    if not module.discriminator_frozen_layers:
        return
    weights = (original_of(discriminator) or discriminator).named_parameters()
    frozen = {name for name, weight in weights if not weight.requires_grad}
    lacking = sorted(frozen - set(transfer.taken if transfer else ()))
    if lacking:
        raise UsageError(
            f"{option}: expected weights for each frozen layer, got none for {lacking[0]} in {source}; freeze fewer "
            "layers, or begin with a checkpoint"
        )
    of_classes = sorted(frozen & (transfer.of_classes or set() if transfer else set()))
    if has_new_classes and of_classes:
        raise UsageError(
            f"{option}: expected layers that the labels do not enter, since there are new classes, got "
            f"{module.discriminator_frozen_layers} with {of_classes[0]}; give 0, or another --model.discriminator."
            "conditioning, such as projection"
        )


def _read(source: str) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Returns the weights of a source, the names of its classes, and the distribution of its latents."""
    if not source.strip():
        expected = "expected a file, a folder or the name of a shipped generator"
        raise UsageError(f"{_OPTION}: {expected}, got an empty text; name one, or omit it")
    if Path(source).suffix.lower() in (".onnx", ".pt2") and Path(source).is_file():
        expected = "expected a checkpoint, a folder that export wrote or a shipped generator"
        raise UsageError(f"{_OPTION}: {expected}, got {source}, whose weights have no names; give one of those")
    try:
        sampler = load_source(source).sampler
    except UsageError as error:
        raise UsageError(f"{_OPTION}: {str(error).removeprefix('source: ')}") from error
    assert sampler is not None, "only ONNX files have none"
    return sampler.state_dict(), sampler.class_names, sampler.latents


def _of_part(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Returns the weights of a network; an average that is not there is the generator."""
    if part == "generator_ema" and not any(name.startswith(f"{part}.") for name in weights):
        part = "generator"
    return {name.partition(".")[2]: value for name, value in weights.items() if name.startswith(f"{part}.")}


def _sentence(part: str, transfer: Transfer) -> str:
    total = len(transfer.taken) + len(transfer.left)
    left = ", ".join(f"{name} ({reason})" for name, reason in transfer.left.items())
    which = f"; not {shorten(left, 200, placeholder=' …')}" if left else ""
    return f"{part}: {len(transfer.taken)} of {total} tensors{which}"


def _about_classes(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Says with which weights each class begins."""
    known = _listed([name for name in ours if name in theirs])
    new = _listed([name for name in ours if name not in theirs])
    parts = [f"{known} as there"] if known else []
    parts += [f"{new} as the mean of {_listed(theirs)}"] if new else []
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return shorten(", ".join(map(repr, names)), 100, placeholder=" …")
