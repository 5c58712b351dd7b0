"""Shapes, pixel ranges and grids of images; all conversions of pixel ranges are in this file.

Networks and losses use images in [-1, 1]. Data in memory are pixels of 8 bits, uint8 in [0, 255], or of 16 bits, int16:
the value less 32,768, since PyTorch calculates little with uint16. Displays use 8 bits. A network that works in [0, 1]
internally converts its own inputs and outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import pad

from lightning_cgan.core.errors import UsageError

ImageSize = int | tuple[int, int]  # one side of a square, or height and width
BitDepth = Literal[8, 16]

MOST_CHANNELS = 16
_PADDING = 2
_COLOURS = (1, 3)  # the channels of images that a display can show as they are
_IN_PNG = (1, 3, 4)  # and that a PNG file can hold
_OFFSET = 2**15  # between 16-bit values and the int16 that stand for them
LARGEST_SIDE = 65_500  # pixels; the limit of GIF files
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk: no content, its name, its checksum


def height_and_width(size: ImageSize | Sequence[int], option: str = "image_size") -> tuple[int, int]:
    """The height and the width of images of a size; raises `UsageError` if it is none."""
    sides: list[Any] = [size, size] if isinstance(size, Integral) else list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides) or min(sides) < 1:
        raise UsageError(
            f"{option}: expected a whole number of pixels, or height and width, got {size}; give 28 or [24, 40]"
        )
    height, width = map(int, sides)
    return height, width


def image_shape_of(channels: int, size: ImageSize) -> tuple[int, int, int]:
    """Channels, height and width of an image."""
    return (channels, *height_and_width(size))


def image_size_of(height: int, width: int) -> ImageSize:
    """A height and a width as an image size: one number if they are equal."""
    return height if height == width else (height, width)


def size_text(size: ImageSize) -> str:
    """A size as options take it: `28` or `[24, 40]`."""
    return str(size) if isinstance(size, int) else str(list(size))


def signed_from_pixels(pixels: Tensor) -> Tensor:
    """Converts pixels of 16 bits (int16), or of 8 bits (any other type), to float32 in [-1, 1]."""
    if pixels.dtype == torch.int16:
        return pixels.to(torch.float32).add_(0.5).div_(_OFFSET - 0.5)
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def bytes_from_signed(images: Tensor) -> Tensor:
    """Converts images in [-1, 1] to uint8 in [0, 255], rounding to nearest; values outside are clamped."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def pixels_from_signed(images: Tensor, bit_depth: BitDepth = 8) -> Tensor:
    """Converts images in [-1, 1] to pixels, uint8 or int16, rounding to nearest; values outside are clamped."""
    if bit_depth == 8:
        return bytes_from_signed(images)
    return images.float().mul(_OFFSET - 0.5).sub_(0.5).round_().clamp_(-_OFFSET, _OFFSET - 1).to(torch.int16)


def pixels_from_array(values: np.ndarray) -> Tensor:
    """Converts an array of uint8 or uint16 to pixels."""
    if values.dtype == np.uint8:
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))
    flipped = np.require(values.astype(np.uint16, copy=False), requirements="C") ^ _OFFSET  # the highest bit
    return torch.from_numpy(flipped.view(np.int16))


def array_from_pixels(pixels: Tensor) -> np.ndarray:
    """Converts pixels to an array of uint8 or uint16."""
    values = pixels.cpu().numpy()
    return values if values.dtype == np.uint8 else values.view(np.uint16) ^ _OFFSET


def bit_depth_of(pixels: Tensor) -> BitDepth:
    """How many bits pixels have."""
    return 16 if pixels.dtype == torch.int16 else 8


def signed_from_unit(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to [-1, 1]."""
    return images * 2 - 1


def unit_from_signed(images: Tensor) -> Tensor:
    """Converts images in [-1, 1] to [0, 1]."""
    return (images + 1) / 2


def cell_size(image_shape: Sequence[int], smallest_cell: int = 56) -> tuple[int, int]:
    """The height and the width, in pixels, that an image of shape (C, H, W) takes in a `grid`."""
    channels, height, width = image_shape
    factor = _magnification(height, width, smallest_cell)
    sheets = 1 if channels in _COLOURS else channels
    return sheets * (height * factor + _PADDING), width * factor + _PADDING


def grid(images: Tensor, columns: int, smallest_cell: int = 56) -> Tensor:
    """Arranges images (N, C, H, W) in [-1, 1], row by row, on a white background: a picture (3, H', W'), uint8.

    Images smaller than `smallest_cell` are magnified by a whole factor until they are not, so that details are visible.
    Images that are neither gray (C = 1) nor coloured (C = 3) become a gray grid for each channel, one below the other.
    """
    if images.shape[1] not in _COLOURS:
        sheets = [grid(images[:, channel, None], columns, smallest_cell) for channel in range(images.shape[1])]
        below = [pad(sheet, (0, 0, _PADDING, 0), value=255) for sheet in sheets[1:]]
        return torch.cat([sheets[0], *below], dim=1)
    pixels = bytes_from_signed(images.detach().cpu())
    factor = _magnification(pixels.shape[-2], pixels.shape[-1], smallest_cell)
    pixels = pixels.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if len(pixels) == 1:
        return pixels[0]
    return _laid_out(pixels, min(columns, len(pixels)))


def picture_of(image: Tensor) -> Tensor:
    """An image (C, H, W) in [-1, 1] as a picture, uint8, in its own size; channels as in `grid`."""
    return bytes_from_signed(image) if len(image) in _COLOURS else grid(image[None], columns=1, smallest_cell=1)


def _magnification(height: int, width: int, smallest_cell: int) -> int:
    return -(-smallest_cell // max(height, width))


def _laid_out(pixels: Tensor, columns: int) -> Tensor:
    """As torchvision's `make_grid`, whose import would add two seconds to every `generate`."""
    rows = -(-len(pixels) // columns)
    cells = pad(pixels, (_PADDING, 0, _PADDING, 0), value=255)
    cells = torch.cat([cells, cells.new_full((rows * columns - len(cells), *cells.shape[1:]), 255)])
    picture = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return pad(picture, (0, _PADDING, 0, _PADDING), value=255)


def pil_image(picture: Tensor) -> Image.Image:
    """Converts a picture, shape (C, H, W), uint8, to a PIL image; with C = 1, to a gray one."""
    pixels = picture.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save_png(picture: Tensor, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Writes a picture, shape (C, H, W), uint8, to a PNG file; missing folders are created.

    The `texts` are kept in the file, where Pillow's `Image.open(path).info` finds them by their names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    for name, text in (texts or {}).items():
        info.add_itxt(name, text)
    pil_image(picture).save(path, format="PNG", pnginfo=info)


def check_bit_depth(option: str, bit_depth: BitDepth, channels: int) -> None:
    """Raises `UsageError` if `save_image` cannot write images of this depth."""
    if bit_depth == 16 and channels in (3, 4):
        raise UsageError(
            f"{option}: expected 8 for files of images with {channels} channels, since Pillow writes no colours of 16 "
            "bits, got 16; omit it, or write arrays"
        )


def image_suffix(channels: int) -> str:
    """The ending of the file that `save_image` writes an image with this number of channels to."""
    return ".png" if channels in _IN_PNG else ".tif"


def save_image(pixels: Tensor, path: Path) -> None:
    """Writes pixels, shape (C, H, W), to a file without loss; missing folders are created.

    Gray, coloured and transparent images (C = 1, 3 or 4) become PNG files, others TIFF files with a gray page for each
    channel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    values = array_from_pixels(pixels)
    if len(values) in _IN_PNG:
        Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0)).save(path, format="PNG")
    else:
        first, *others = map(Image.fromarray, values)
        first.save(path, format="TIFF", save_all=True, append_images=others, compression="tiff_deflate")


def is_whole_image(path: Path, channels: int) -> bool:
    """Whether a file that `save_image` wrote is complete."""
    if path.suffix == ".png":
        return is_whole_png(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error")  # Pillow warns of a truncated directory of a page
            for page in range(channels):
                image.seek(page)
                image.load()
    except Exception:  # a damaged file can raise any exception
        return False
    return True


def png_of(picture: Tensor) -> bytes:
    """The content of a PNG file with a picture, shape (C, H, W), uint8."""
    content = BytesIO()
    pil_image(picture).save(content, format="PNG")
    return content.getvalue()


def is_whole_png(path: Path) -> bool:
    """Whether a PNG file is complete: a truncated one lacks the last chunk."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_END_OF_PNG)))
        return file.read() == _END_OF_PNG


def save_gif(frames: Sequence[Image.Image], path: Path, seconds: float, seconds_of_last: float | None = None) -> None:
    """Writes pictures of one size to a GIF file that loops; colours beyond 256 become the nearest ones.

    Each picture is shown for `seconds`, the last one for `seconds_of_last` if given.
    """
    milliseconds = [round(1000 * seconds)] * (len(frames) - 1) + [round(1000 * (seconds_of_last or seconds))]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
