"""Class-conditional sampling from a trained generator."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import Self

from lightning_cgan.core.classes import Classes, chosen_classes
from lightning_cgan.core.compat import convert_tensors
from lightning_cgan.core.errors import UsageError, check_positive, check_seed, check_truncation
from lightning_cgan.core.images import grid, pil_image
from lightning_cgan.core.rng import rng_at
from lightning_cgan.core.turns import in_turns
from lightning_cgan.networks.base import Generator
from lightning_cgan.networks.inversion import Inversion, LatentSearch, pixel_errors
from lightning_cgan.networks.latents import Distribution, LatentSampler, sample_latents
from lightning_cgan.networks.modes import in_evaluation_mode

HALVES = (torch.bfloat16, torch.float16)
_BATCH = 256
_ROUNDING = 0.01  # the tolerance of a sum in half precision


class Sampler(nn.Module):
    """Generates images of given labels.

    Attributes:
        generator: Generates the images.
        generator_ema: The same network with the moving average of the weights, if there is one.
        latents: The distribution of the latents that it was trained with.
        class_names: The name of each class; their numbers if no names are known.
        others: Generators of the same classes and images, with which this one takes turns in `generate_numbered`. They
            move to other devices and precisions with it, but its weights do not include theirs.
        origin: The `name` and `sha256` of the file that the weights are from, and the `step` and `seed` of its run;
            None if not known.
    """

    generator: Generator
    generator_ema: Generator | None
    latents: Distribution
    class_names: tuple[str, ...]
    others: tuple[Sampler, ...] = ()
    origin: Mapping[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes of the generator."""
        return self.generator.num_classes

    def sample_latents(self, count: int, seed: int | None = None) -> Tensor:
        """Samples latents as in training, shape (count, latent_dim), float32, on the CPU.

        A seed, of 64 bits, makes them reproducible. Without it they come from PyTorch's global generator.
        """
        check_seed("seed", seed)
        rng = None if seed is None else rng_at(seed)
        # A fixed type: a run in half precision in another thread changes PyTorch's default type.
        return sample_latents((count, self.generator.latent_dim), self.latents, rng, torch.float32)

    def chosen_generator(self, ema: bool) -> Generator:
        """Returns the averaged generator if `ema` is set and it exists, else the trained one."""
        return self.generator_ema if ema and self.generator_ema is not None else self.generator

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor | Sequence[int] | int,
        latents: Tensor | None = None,
        seed: int | None = None,
        ema: bool = True,
    ) -> Tensor:
        """Generates one image per label, with the generator in evaluation mode; its own mode does not change.

        Args:
            labels: Class numbers, shape (N,), or one number; or mixtures of classes, shape (N, num_classes), floats
                whose rows add up to 1, to interpolate between classes.
            latents: Shape (N, latent_dim). If not given, `sample_latents` samples them.
            seed: Makes the sampled latents reproducible.
            ema: Whether to use the moving average of the generator's weights, if there is one.

        Returns:
            Images, shape (N, C, H, W), in [-1, 1], on the module's device, in the precision of the weights. A moving
            average has float32 or better, even if a run trains in half precision.

        Raises:
            UsageError: Labels are neither class numbers nor mixtures of classes, latents have another shape, or the
                seed is not an integer of 64 bits.
        """
        labels = _as_labels(labels, self.num_classes)
        if latents is None:
            latents = self.sample_latents(len(labels), seed)
        expected = (len(labels), self.generator.latent_dim)
        got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        if got != expected:
            raise UsageError(
                f"latents: expected a tensor of shape {expected}, got {got}; sample_latents returns such a tensor"
            )
        network = self.chosen_generator(ema)
        weight = next(network.parameters(), torch.empty(0))
        evaluated = in_evaluation_mode(network)  # unaffected by other users of the network
        images: Tensor = evaluated(latents.to(weight.device, weight.dtype), labels.to(weight.device))
        return images

    def generate_numbered(
        self, labels: Tensor, numbers: Tensor, latent_sampler: LatentSampler, variant: int = 0
    ) -> Tensor:
        """Generates the images of some numbers within their classes, labels (N,) and numbers (N,); see `LatentSampler`.

        With `others`, the generators take turns (`core/turns.py`), and each image is the one that its generator alone
        would make of its number. Returns what `generate` does.
        """
        makers = [partial(_of_numbers, one, labels, numbers, latent_sampler, variant) for one in self.generators]
        return in_turns(makers, numbers)

    @property
    def generators(self) -> tuple[Sampler, ...]:
        """All that take turns: itself, and then the others."""
        return self, *self.others

    def sheet(
        self,
        labels: Classes | Sequence[int] | int | None = None,
        count: int = 8,
        seed: int = 0,
        truncation: float | None = None,
        ema: bool = True,
    ) -> Image.Image:
        """Generates a picture with a row per class: the sheet that the command `generate` writes.

        A notebook displays what a cell ends with, so `gan.sheet()` shows the picture; `gan.sheet().save("sheet.png")`
        writes it. An image depends only on the seed, its class and its number within the class.

        Args:
            labels: The classes, from top to bottom, by name or by number, such as `[0, 3, 7]`, `["Bag", 7]` or
                `"0-3,7"`; all if not given. A class that is given twice has one row.
            count: The number of images per class.
            seed: Different seeds give different images.
            truncation: The largest distance of a latent from 0. Smaller values give more typical and less varied images
                (Brock et al. 2019, arXiv:1809.11096, section 3.1).
            ema: Whether to use the moving average of the generator's weights, if there is one.

        Returns:
            The picture, in RGB. Images smaller than 56 pixels are magnified by a whole factor.

        Raises:
            UsageError: A class is unknown, or an option is out of range.
        """
        check_positive("count", count)
        check_truncation("truncation", truncation)
        check_seed("seed", seed)
        given: Any = labels  # also a tensor or an array
        given = given.tolist() if hasattr(given, "tolist") else given
        given = [given] if isinstance(given, int | float) else given
        chosen = chosen_classes(given, self.class_names, "labels")
        sampler = LatentSampler(seed, truncation)
        return pil_image(grid(torch.cat(self.rows_of(chosen, count, sampler, ema)), columns=count))

    def invert(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | int | None = None,
        steps: int = 300,
        restarts: int = 4,
        seed: int = 0,
        ema: bool = True,
    ) -> Inversion:
        """Finds the latents whose generated images are nearest to given images, by the squared error of pixels.

        Adam descends from the nearest of 256 samples (Zhu et al. 2016, arXiv:1609.03552, section 3.1). Several latents
        may give the same image, so those found are not always those that an image was made of. What is found depends
        on the image, its label and the seed, not on the other images. The generator, its mode and the gradients of its
        parameters do not change.

        Args:
            images: Shape (N, C, H, W), in [-1, 1].
            labels: Class numbers, shape (N,), or one number for all images. If not given, the three classes with the
                nearest samples are tried, and the best one is found.
            steps: The number of steps from each start.
            restarts: The number of samples from which the search starts, in each class.
            seed: Of the samples.
            ema: Whether to use the moving average of the generator's weights, if there is one.

        Returns:
            What is nearest to each image. Uniform latents are in [-1, 1], and normal ones are not longer than 99.9 % of
            all samples.

        Raises:
            UsageError: Images, labels or options are not as described, or no gradients reach the latents.
        """
        for option, number in (("steps", steps), ("restarts", restarts)):
            check_positive(option, number)
        check_seed("seed", seed)
        given = self._checked_images(images)
        classes = None if labels is None else _one_per_image(_as_labels(labels, self.num_classes), len(given))
        network = in_evaluation_mode(self.chosen_generator(ema))
        device = next(network.parameters(), torch.empty(0)).device
        search = LatentSearch(network, self.latents, steps, restarts, seed)
        with torch.inference_mode(False), torch.enable_grad():
            found = search.find(given.to(device).clone(), None if classes is None else classes.to(device))
        latents, numbers = (part.cpu() for part in found)
        made = self.generate_batches(numbers, latents, ema)
        errors = pixel_errors(made, given)
        if not errors.isfinite().all():
            raise UsageError("generator: expected finite images, got others; its training has failed, take another")
        return Inversion(latents, numbers, made, errors)

    def _checked_images(self, images: Tensor) -> Tensor:
        """Images in float32, on the CPU; refuses those of other shapes and values than the generator's."""
        network = self.generator
        shape = network.image_shape
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        if not isinstance(images, Tensor) or images.shape[1:] != shape or not len(images):
            expected = f"expected a tensor of shape (N, {', '.join(map(str, shape))}), N 1 or more"
            raise UsageError(f"images: {expected}, got {got}; resize or convert them")
        given = images.detach().float().cpu()
        if not (images.is_floating_point() and bool((given.abs() <= 1 + _ROUNDING).all())):  # false for NaN
            values = f"{images.dtype} from {float(given.min()):g} to {float(given.max()):g}"
            raise UsageError(f"images: expected floats in [-1, 1], got {values}; convert bytes by images / 127.5 - 1")
        return given

    def rows_of(self, classes: Sequence[int], count: int, sampler: LatentSampler, ema: bool) -> list[Tensor]:
        """Generates the first images of each class, (count, C, H, W) in [-1, 1], float32, on the CPU."""
        latents = (sampler.first([label], count, self.generator.latent_dim, self.latents) for label in classes)
        labels = (torch.full((count,), label) for label in classes)
        return [self.generate_batches(*row, ema) for row in zip(labels, latents, strict=True)]

    def generate_batches(self, labels: Tensor, latents: Tensor, ema: bool = True) -> Tensor:
        """Generates any number of images in bounded memory, like `generate`; returns them in float32, on the CPU."""

        def make(labels: Tensor, latents: Tensor) -> Tensor:
            return self.generate(labels, latents, ema=ema).float().cpu()

        return in_batches(make, labels, latents)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keeps the moving average in float32 where everything else becomes half precision, as with `bf16-true`."""
        for other in self.others if recurse else ():
            convert_tensors(other, fn)
        average = self._modules.get("generator_ema")
        if average is None or not recurse:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self
        self._modules["generator_ema"] = None
        try:
            super()._apply(fn)  # type: ignore[no-untyped-call]
        finally:
            self._modules["generator_ema"] = average
        convert_tensors(average, in_full_precision(fn))
        return self


def _of_numbers(
    sampler: Sampler, labels: Tensor, numbers: Tensor, latent_sampler: LatentSampler, variant: int, indices: Tensor
) -> Tensor:
    """Generates the images at some indices (n,), on the CPU, as one generator alone does."""
    labels, numbers = labels[indices.to(labels.device)], numbers[indices.to(numbers.device)]
    sizes = sampler.generator.latent_dim, sampler.latents
    return sampler.generate(labels, latent_sampler.latents(labels, numbers, *sizes, variant))


def _as_labels(labels: Any, num_classes: int) -> Tensor:
    """Returns class numbers (N,) as int64, or mixtures of classes (N, num_classes)."""
    try:
        given = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _other_labels(reprlib.repr(labels), num_classes) from error
    if given.ndim < 2:
        if given.numel() and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
            raise _other_labels(f"{given.dtype} of shape {tuple(given.shape)}", num_classes)
        given = given.to(torch.int64).reshape(-1)
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < num_classes:
            expected, got = f"expected class numbers from 0 to {num_classes - 1}", sorted(set(given.tolist()))
            raise UsageError(f"labels: {expected}, got {got}; give classes of the model")
    elif given.shape[1:] != (num_classes,) or given.is_complex():
        raise _other_labels(f"{given.dtype} of shape {tuple(given.shape)}", num_classes)
    else:
        are_mixtures = (given >= 0).all(1) & ((given.float().sum(1) - 1).abs() < _ROUNDING)  # false for NaN
        if not are_mixtures.all():
            raise _other_labels(reprlib.repr(given[~are_mixtures][0].tolist()), num_classes)
    return given


def _one_per_image(labels: Tensor, count: int) -> Tensor:
    """Class numbers, one for each of so many images; one number counts for all."""
    if labels.ndim != 1 or len(labels) not in (1, count):
        expected = f"expected one class number, or one for each of {count:,} images"
        raise UsageError(f"labels: {expected}, got shape {tuple(labels.shape)}; give their numbers")
    return labels.expand(count)


def _other_labels(got: str, num_classes: int) -> UsageError:
    expected = f"expected class numbers, or mixtures (N, {num_classes}) whose rows are 0 or more and add up to 1"
    return UsageError(f"labels: {expected}, got {got}; give classes of the model")


def in_full_precision(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wraps a conversion of tensors: it still moves them, but does not convert them to half precision."""

    def converted(tensor: Tensor) -> Tensor:
        result = convert(tensor)
        return tensor.to(result.device) if result.dtype in HALVES and tensor.dtype not in HALVES else result

    return converted


def in_batches(make: Callable[[Tensor, Tensor], Tensor], labels: Tensor, latents: Tensor) -> Tensor:
    """Makes the images of labels (N,) or (N, num_classes) and latents (N, latent_dim), some at a time."""
    parts = zip(labels.split(_BATCH), latents.split(_BATCH), strict=True)
    return torch.cat([make(*part) for part in parts])
