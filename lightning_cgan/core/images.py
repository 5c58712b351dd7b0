"""Pixel ranges and grids; all conversions of pixel ranges are in this file.

Networks and losses use images in [-1, 1]; files and displays use whole numbers in [0, 255]; a network that works in [0,
1] internally converts its own inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import pad

_PADDING = 2
LARGEST_SIDE = 65_500  # pixels; the limit of GIF files
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk: no content, its name, its checksum


def signed_from_bytes(pixels: Tensor) -> Tensor:
    """Converts uint8 pixels in [0, 255] to float32 in [-1, 1]."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def bytes_from_signed(images: Tensor) -> Tensor:
    """Converts images in [-1, 1] to uint8 in [0, 255], rounding to nearest; values outside are clamped."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def signed_from_unit(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to [-1, 1]."""
    return images * 2 - 1


def unit_from_signed(images: Tensor) -> Tensor:
    """Converts images in [-1, 1] to [0, 1]."""
    return (images + 1) / 2


def cell_size(image_size: int, smallest_cell: int = 56) -> int:
    """The distance, in pixels, from one image of a `grid` to the next."""
    return image_size * -(-smallest_cell // image_size) + _PADDING


def grid(images: Tensor, columns: int, smallest_cell: int = 56) -> Tensor:
    """Arranges images (N, C, H, W) in [-1, 1], row by row, on a white background: a picture (3, H', W'), uint8.

    Images lower than `smallest_cell` are magnified by a whole factor until they are not, so that details are visible.
    """
    pixels = bytes_from_signed(images.detach().cpu())
    factor = -(-smallest_cell // pixels.shape[-2])
    pixels = pixels.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if len(pixels) == 1:
        return pixels[0]
    return _laid_out(pixels, min(columns, len(pixels)))


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
