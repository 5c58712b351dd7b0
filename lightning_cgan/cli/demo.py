"""The command `demo`: a web page that shows images of a chosen class."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lightning_cgan.core.class_names import in_markdown
from lightning_cgan.core.errors import UsageError, extra, printable
from lightning_cgan.core.images import grid, picture_of, pil_image, save_png
from lightning_cgan.export.source import Source, load_source
from lightning_cgan.networks.latents import LatentSampler, slerp

_NO_TRUNCATION = 3.0  # 99.7 % of a standard normal distribution are within
_COLUMNS = 10
_IN_A_WALK = 8
_STYLE = """
.gradio-container main { width: 100%; max-width: 1080px; margin: 0 auto; }
#images img, #walk img { image-rendering: pixelated; }
#images, #images .gallery-container, #images .grid-wrap { height: auto !important; min-height: 0; max-height: none; }
#images .grid-wrap { overflow: visible !important; }
footer { display: none !important; }
"""


def demo(source: str, host: str = "127.0.0.1", port: int = 7860, imports: str | None = None) -> None:
    """Serves a web page that shows images of a chosen class, and walks from one image to another.

    The page is served until Ctrl-C, only to this machine unless `host` is given, and loads nothing from the internet.

    Args:
        source: A checkpoint of a run, a folder or ONNX file written by `export`, or the name of a generator that comes
            with the package: `mnist`, `fashion_mnist` or `digits`.
        host: The address to listen on; `0.0.0.0` serves all networks of the machine.
        port: The port to listen on; 0 chooses a free one.
        imports: Modules of custom networks to import first, separated by commas.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the temporary folder would remain
    with tempfile.TemporaryDirectory(prefix="lightning_cgan-") as folder:
        page = None
        try:
            gradio = _import_gradio(folder)
            port = _free_port(host, port)
            page = build_page(DemoBackend(load_source(source, imports), Path(folder)), source)
            print(f"Demo of {source}: {_launch(page, gradio, host, port, folder)} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # a second signal would interrupt the clean-up
            print()
            if page is not None:
                page.close(verbose=False)


def _launch(page: Any, gradio: Any, host: str, port: int, folder: str) -> str:
    """Serves the page and returns its URL."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # local fonts only
    style = {"theme": gradio.themes.Soft(**fonts), "css": _STYLE, "footer_links": [], "ssr_mode": False}
    server = {"server_name": f"[{host}]" if ":" in host else host, "server_port": port, "allowed_paths": [folder]}
    _, address, _ = page.launch(**style, **server, share=False, quiet=True, prevent_thread_lock=True)
    return str(address)


def _import_gradio(folder: str) -> Any:
    """Imports Gradio, configured to send no analytics and to keep its files in a folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", folder)
    with extra("demo"), _delayed_interrupts():
        import gradio
    return gradio


@contextmanager
def _delayed_interrupts() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM to the end of the block, since compiled code in it would crash."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda *which: received.append(which[0])) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for caught in received:
        signal.raise_signal(caught)


def _free_port(host: str, port: int) -> int:
    """The port if it is free; for 0, any free port."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
            free: int = server.getsockname()[1]
            return free
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", error)  # negative: unknown host
        other = "port" if isinstance(error, OverflowError) or number in (errno.EADDRINUSE, errno.EACCES) else "host"
        expected = "expected a free address of this machine"
        raise UsageError(f"--host, --port: {expected}, got {host}:{port} ({reason}); choose another {other}") from error


class DemoBackend:
    """Makes the images of the page, and PNG sheets for download in a folder."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.metadata = source.metadata

    def images(
        self, label: int, seed: float | None, count: float | None, truncation: float | None
    ) -> tuple[list[Image.Image], str]:
        """Makes images of a class, the same as `generate` with that seed, and a sheet of all of them.

        An empty field counts as its smallest value; the largest truncation counts as none.
        """
        seed, count = int(seed or 0), int(count or 1)
        bound = truncation if truncation is not None and truncation < _NO_TRUNCATION else None
        made = self.source.first_images(label, count, LatentSampler(seed, bound))
        name = f"class-{label}-seed-{seed}-count-{count}" + ("" if bound is None else f"-truncation-{bound:g}")
        sheet = self.folder / f"{name}.png"
        save_png(grid(made, columns=min(_COLUMNS, len(made))), sheet)
        return [pil_image(picture_of(image)) for image in made], str(sheet)

    def walk(
        self, first: int, last: int, first_seed: float | None, last_seed: float | None, part: float | None
    ) -> Image.Image:
        """A grid of images at a part, from 0 to 1, of the way from one class and seed to another.

        An empty field counts as 0. If the source cannot mix classes, the last class is ignored.
        """
        last, part = last if self.source.mixes else first, part or 0
        start, end = (
            self.metadata.sample_latents(label, _IN_A_WALK, LatentSampler(int(seed or 0)))
            for label, seed in ((first, first_seed), (last, last_seed))
        )
        latents = slerp(start, end, part)
        if first == last:
            labels = torch.full((_IN_A_WALK,), first)
        else:
            codes = torch.eye(len(self.metadata.class_names))
            labels = torch.lerp(codes[first], codes[last], part).expand(_IN_A_WALK, -1)
        made = self.source.make(labels, latents)
        return pil_image(grid(made, columns=_IN_A_WALK // 2, smallest_cell=200))


def build_page(backend: DemoBackend, name: str) -> Any:
    """Builds the page, a `gradio.Blocks`, for a generator of a name."""
    import gradio

    metadata = backend.metadata
    with gradio.Blocks(title="Choose a class", analytics_enabled=False) as page:
        channels, height, width = metadata.image_shape
        kind = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels, one below the other")
        gradio.Markdown("# Choose a class, get an image of it")
        gradio.Markdown(f"{in_markdown(name)}: {len(metadata.class_names)} classes, {height} × {width} pixels, {kind}")
        with gradio.Tab("Images"):
            _add_images(gradio, page, backend)
        with gradio.Tab("Walk"):
            _add_walk(gradio, page, backend)
    return page


def _add_images(gradio: Any, page: Any, backend: DemoBackend) -> None:
    with gradio.Row():
        with gradio.Column(scale=1, min_width=280):
            label = _class_chooser(gradio, backend.metadata.class_names, "Class", 0, elem_id="class")
            seed = _seed_chooser(gradio, "Seed", 0)
            count = gradio.Number(10, label="Images", precision=0, minimum=1, maximum=100)
            hint = "Smaller values: more typical, less varied images. The maximum means no truncation."
            bound = gradio.Slider(0.1, _NO_TRUNCATION, value=_NO_TRUNCATION, step=0.1, label="Truncation", info=hint)
            make = gradio.Button("Generate", variant="primary", elem_id="generate")
            make_others = gradio.Button("Next seed")
            sheet = gradio.DownloadButton("Download the sheet", elem_id="download")
        with gradio.Column(scale=3):
            options = {"show_label": False, "format": "png", "buttons": ["download", "fullscreen"], "height": "auto"}
            gallery = gradio.Gallery(columns=5, object_fit="contain", interactive=False, elem_id="images", **options)
    how = {"fn": backend.images, "inputs": [label, seed, count, bound], "outputs": [gallery, sheet]}
    make.click(**how)
    make_others.click(lambda now: (now or 0) + 1, [seed], [seed]).then(**how)
    label.input(**how)
    page.load(**how)


def _add_walk(gradio: Any, page: Any, backend: DemoBackend) -> None:
    names = backend.metadata.class_names
    with gradio.Row():
        first = _class_chooser(gradio, names, "From class" if backend.source.mixes else "Class", 0)
        first_seed = _seed_chooser(gradio, "From seed", 0)
        last = _class_chooser(
            gradio, names, "To class", len(names) - 1 if backend.source.mixes else 0, visible=backend.source.mixes
        )
        last_seed = _seed_chooser(gradio, "To seed", 1)
    part = gradio.Slider(0, 1, value=0, step=0.01, label="Position between the two", elem_id="way")
    options = {"show_label": False, "format": "png", "buttons": ["download", "fullscreen"]}
    picture = gradio.Image(interactive=False, elem_id="walk", **options)
    how = {"fn": backend.walk, "inputs": [first, last, first_seed, last_seed, part], "outputs": [picture]}
    for part_of_page in (first, first_seed, last, last_seed, part):
        part_of_page.change(**how, show_progress="hidden", trigger_mode="always_last")
    page.load(**how)


def _class_chooser(gradio: Any, names: Sequence[str], title: str, chosen: int, **options: Any) -> Any:
    choices = [(printable(name, 80), number) for number, name in enumerate(names)]
    return gradio.Dropdown(choices, value=chosen, label=title, **options)


def _seed_chooser(gradio: Any, title: str, value: int) -> Any:
    return gradio.Number(value, label=title, precision=0, minimum=0, maximum=2**53 - 1)
