"""Images of chosen classes from a checkpoint, as a person asks for them."""

from __future__ import annotations

import errno
import math
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest
from torchvision.datasets import ImageFolder

from helpers.paths import DIGITS, OLD
from helpers.quiet import quiet_trainer
from helpers.run_files import write_scaled
from lightning_cgan import (
    ArrayData,
    ConditionalGAN,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    NonSaturating,
    PretrainedGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    UsageError,
)
from lightning_cgan.cli.main import main
from lightning_cgan.cli.walk import check_gif_size
from lightning_cgan.core.classes import chosen_classes
from lightning_cgan.core.images import bytes_from_signed
from lightning_cgan.core.output_paths import folders_of_classes
from lightning_cgan.networks.latents import LatentSampler, slerp

CLOTHES = ("T-shirt/top", "Trouser", "Bag")

Fails = Callable[..., str]


def generate(*options: str, checkpoint: str = OLD) -> None:
    main(["generate", checkpoint, *options])


def arrays(*options: str, checkpoint: str = OLD) -> dict[str, np.ndarray]:
    generate("--out", "a.npz", "--overwrite", *options, checkpoint=checkpoint)
    with np.load("a.npz") as loaded:
        return dict(loaded)


def test_arrays_are_what_the_module_makes() -> None:
    made = arrays("--labels", "3,7", "--count", "4", "--seed", "5")
    module = ConditionalGAN.load_from_checkpoint(OLD, map_location="cpu")
    labels = torch.tensor([3] * 4 + [7] * 4)
    latents = LatentSampler(5).latents(labels, torch.arange(4).repeat(2), module.generator.latent_dim, "normal")
    expected = bytes_from_signed(module.generate(labels, latents))
    assert (made["images"] == expected[:, 0].numpy()).all()
    assert made["labels"].tolist() == [3] * 4 + [7] * 4
    assert made["class_names"].tolist() == list("0123456789")


def test_weights_before_averaging() -> None:
    write_scaled("other.ckpt", 3)
    averaged, raw = (arrays("--ema", ema, checkpoint="other.ckpt")["images"] for ema in ("true", "false"))
    assert (averaged == arrays()["images"]).all()
    assert (raw != averaged).any()


def test_an_image_is_the_same_whatever_else_is_made() -> None:
    few = arrays("--labels", "7", "--count", "3")["images"]
    many = arrays("--count", "300")["images"].reshape(10, 300, 8, 8)
    assert (few == many[7, :3]).all()
    assert (arrays("--labels", "7", "--count", "3", "--seed", "1")["images"] != few).any()


def test_sheet_and_folder(tmp_path: Path) -> None:
    generate("--labels", "2,5", "--count", "3")
    assert Image.open("generated.png").size == (
        3 * 58 + 2,
        2 * 58 + 2,
    )  # 8 pixels seven times as large, and two between
    generate("--labels", "2,5", "--count", "3", "--out", "folder")
    read = ImageFolder("folder")
    assert (read.classes, len(read)) == (["2", "5"], 6)
    pixels = np.stack([np.asarray(image)[..., 0] for image, _ in read])
    assert (pixels == arrays("--labels", "2,5", "--count", "3")["images"]).all()
    generate("--labels", "4", "--count", "1", "--out", "folder", "--overwrite")
    assert [str(file) for file in sorted(Path("folder").rglob("*.png"))] == ["folder/4/00000.png"]
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("options", [{}, {"ema": False}, {"seed": 3}, {"truncation": 0.5}, {"count": 300}])
def test_a_sheet_in_python_is_that_of_the_command(options: dict[str, Any]) -> None:
    words = [f"--{name}={value}" for name, value in options.items()]
    generate("--labels", "7,2-3", *words)
    main(["export", OLD, "--out", "exported"])
    with Image.open("generated.png") as expected:
        gan = ConditionalGAN.load_from_checkpoint(OLD, map_location="cpu")
        for module in (
            (gan, gan.train()) if "ema" in options else (gan, PretrainedGenerator.from_pretrained("exported"))
        ):
            picture = module.sheet([7, 2, 3], **options)
            assert (picture.mode, picture.size) == (expected.mode, expected.size)
            assert picture.tobytes() == expected.tobytes()


def test_a_sheet_knows_the_names_of_classes(fails: Fails) -> None:
    gan = ConditionalGAN(MLPGenerator(2, 1, 8, latent_dim=4), MLPDiscriminator(2, 1, 8), NonSaturating())
    assert gan.class_names == ("0", "1")
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 2
    data = ArrayData({"images": images, "labels": labels, "class_names": ["cat", "dog"]}, batch_size=8)
    trainer = quiet_trainer(1)
    trainer.fit(gan, data)
    trainer.save_checkpoint("pets.ckpt")
    generate("--labels", "dog,cat", checkpoint="pets.ckpt")
    for module in (gan, ConditionalGAN.load_from_checkpoint("pets.ckpt")):
        assert module.class_names == ("cat", "dog")
        with Image.open("generated.png") as expected:
            assert module.sheet(["dog", 0]).tobytes() == module.sheet("dog-dog,0").tobytes() == expected.tobytes()
        with pytest.raises(UsageError) as caught:
            module.sheet("dgo")
        message = "labels: expected names or numbers of classes, got dgo; did you mean dog?"
        assert str(caught.value) == message
        assert fails("generate", "pets.ckpt", "--labels", "dgo", "--out", "x.png") == f"error: --{message}"


def test_endings_in_capitals() -> None:
    for name, options in (("x.PNG", ()), ("x.NPZ", ()), ("x.Gif", ("--walk", "classes", "--frames", "2"))):
        generate("--labels", "2,5", "--count", "3", "--out", name, *options)
    assert (Image.open("x.PNG").format, Image.open("x.Gif").format) == ("PNG", "GIF")
    assert np.load("x.NPZ")["labels"].tolist() == [2] * 3 + [5] * 3


@pytest.mark.parametrize(("walk", "frames"), [("latents", 4 * 5), ("classes", 3 * 5)])
def test_walks_go_round(walk: str, frames: int) -> None:
    generate("--walk", walk, "--frames", "5", "--labels", "0-2", "--count", "2", "--out", "walk.gif")
    film = Image.open("walk.gif")
    assert film.n_frames == frames
    assert film.info["loop"] == 0
    shown = []
    for number in range(frames):
        film.seek(number)
        shown.append(np.asarray(film.convert("L"), dtype=float))
    steps = [abs(one - other).mean() for one, other in zip(shown, [*shown[1:], shown[0]], strict=True)]
    assert 0 < max(steps) < abs(shown[0] - shown[frames // 2]).mean()  # small steps, also that to the beginning


@pytest.mark.parametrize("walk", ["latents", "classes"])
def test_walk_larger_than_a_gif(fails: Callable[..., str], tmp_path: Path, walk: str) -> None:
    line = fails("generate", OLD, "--walk", walk, "--frames", "1", "--count", "1130", "--out", "walk.gif")
    expected = "expected at most 1,129 images of each class, as many as a GIF can hold, got 1,130"
    assert line == f"error: --count: {expected}; choose fewer"
    assert list(tmp_path.iterdir()) == []


def test_walk_of_more_classes_than_a_gif_has_rows() -> None:
    with pytest.raises(UsageError, match=r"^--labels: expected at most 1,129 classes, .* got 1,130; choose"):
        check_gif_size(1130, 1, (1, 8, 8))
    check_gif_size(1129, 1129, (1, 8, 8))
    with pytest.raises(UsageError, match=r"^--labels: expected at most 225 classes, .* got 226; choose"):
        check_gif_size(226, 1, (5, 8, 8))


def parse_labels(labels: str | None, class_names: tuple[str, ...]) -> list[int]:
    return chosen_classes(labels, class_names, "--labels")


def test_labels_by_name_number_and_range() -> None:
    assert parse_labels(None, CLOTHES) == [0, 1, 2]
    assert parse_labels("Bag, T-shirt/top,1", CLOTHES) == [2, 0, 1]
    assert parse_labels("1-2", CLOTHES) == parse_labels("Trouser-Bag", CLOTHES) == [1, 2]
    assert parse_labels("9", ("4", "9")) == [1]
    assert parse_labels("4-9,0", ("4", "9")) == [0, 1]
    with pytest.raises(
        UsageError, match="--labels: expected names or numbers of classes, got Trousr; did you mean Trouser?"
    ):
        parse_labels("Trousr", CLOTHES)


def test_truncated_latents_are_normal_within_the_limit() -> None:
    labels, numbers = torch.zeros(5_000, dtype=torch.int64), torch.arange(5_000)
    drawn = LatentSampler(truncation=0.8).latents(labels, numbers, 100, "normal").flatten().double()
    assert drawn.abs().max() <= 0.8
    inside = math.erf(0.8 / math.sqrt(2))
    density = math.exp(-0.32) / math.sqrt(2 * math.pi)
    assert drawn.mean().abs() < 0.005
    assert drawn.square().mean().item() == pytest.approx(
        1 - 2 * 0.8 * density / inside, rel=0.01
    )  # a truncated normal's
    whole = LatentSampler().latents(labels, numbers, 100, "normal")
    assert whole.std().item() == pytest.approx(1, rel=0.01)
    assert kstest(whole.flatten().numpy(), "norm").pvalue > 0.001
    assert len(torch.unique(whole, dim=0)) == 5_000
    level = LatentSampler(scale=2, truncation=3).latents(labels, numbers, 100, "uniform").flatten().numpy()
    assert kstest(level, "uniform", (-2, 4)).pvalue > 0.001


def test_latents_of_a_number_are_the_same_in_any_company() -> None:
    labels, numbers = torch.tensor([3, 3, 0, 3]), torch.tensor([700, 2, 2, 256])
    drawn = LatentSampler(seed=4).latents(labels, numbers, 5, "normal")
    assert drawn.shape == (4, 5)
    for row, label, number in zip(drawn, labels, numbers, strict=True):
        assert torch.equal(LatentSampler(seed=4).latents(label[None], number[None], 5, "normal")[0], row)
    for other in (LatentSampler(seed=5), LatentSampler(seed=4, scale=1.1)):
        assert (other.latents(labels, numbers, 5, "normal") != drawn).all()
    assert (LatentSampler(seed=4).latents(labels, numbers, 5, "normal", variant=1) != drawn).all()


def test_between_is_an_arc() -> None:
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    half = slerp(first, second, 0.5)
    assert torch.allclose(half, torch.tensor([[math.sqrt(2), math.sqrt(2)]]))
    assert torch.allclose(slerp(first, second, 0.0), first)
    assert torch.allclose(slerp(first, second, 1.0), second, atol=1e-6)


SIZES = {"num_classes": 4, "image_channels": 1, "image_size": 16}
PAIRS = [
    (DCGANGenerator(**SIZES, channels=(8, 4)), DCGANDiscriminator(**SIZES, channels=(4, 8))),
    (
        DCGANGenerator(**SIZES, channels=(8, 4), conditional_batch_norm=True),
        DCGANDiscriminator(**SIZES, channels=(4, 8)),
    ),
    (MLPGenerator(**SIZES, label_embedding=3), MLPDiscriminator(**SIZES, label_embedding=3)),
    (R3GANGenerator(**SIZES), R3GANDiscriminator(**SIZES)),
    (ResNetGenerator(**SIZES, channels=(8, 4)), ResNetDiscriminator(**SIZES, channels=(4, 8))),
]


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_mixtures_of_one_class_are_the_class(number: int) -> None:
    generator, discriminator = PAIRS[number]
    module = ConditionalGAN(generator, discriminator, NonSaturating())
    for layer in module.modules():
        if isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight)  # some begin alike for all classes
    latents, labels = module.sample_latents(4, seed=0), torch.tensor([0, 3, 1, 1])
    whole = module.generate(labels, latents)
    assert torch.allclose(module.generate(torch.eye(4)[labels], latents), whole, atol=1e-5)
    mixed = module.generate(torch.lerp(torch.eye(4)[labels], torch.eye(4)[2].expand(4, 4), 0.5), latents)
    assert not torch.allclose(mixed, whole, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "--out: expected a new name, got generated.png, which exists; name another, or add --overwrite"),
        ("--labels 3,12", "--labels: expected names or numbers of classes, got 12; choose from 0, 1,"),
        (
            "--labels 1-x",
            "--labels: expected names or numbers of classes, got 1-x; choose from 0, 1, 2, 3, 4, 5, 6, 7,",
        ),
        ("--labels []", "--labels: expected classes, got none; name some, or omit them for all"),
        ("--labels 7-3", "--labels: expected a range from a class to a later one, got 7-3; swap its ends"),
        (
            "--seed 99999999999999999999",
            "--seed: expected a whole number of 64 bits, got 99999999999999999999; give another",
        ),
        ("--out .", "--out: expected the path of a file or folder, got '.'; name another"),
        ("--imports json,", "--imports: cannot import : Empty module name; check that it is installed"),
        ("--count 0", "--count: expected 1 or more, got 0; give a positive number"),
        ("--truncation 0", "--truncation: expected a number above 0, got 0.0; 1 keeps two thirds of latents"),
        (
            "--walk latents --out x.png",
            "--out: expected a name in .gif with --walk, and another one without, got x.png",
        ),
        ("--out x.gif", "--out: expected a name in .gif with --walk, and another one without, got x.gif; change one"),
        (
            "--out x.JPG",
            "--out: expected a folder, or a type of file that this command writes, got x.JPG; choose an extension that",
        ),
        (
            "--walk latents --out x.mp4",
            "--out: expected a name in .gif with --walk, and another one without, got x.mp4",
        ),
        (
            "--out photos --overwrite",
            "--out: expected a folder with nothing but class folders of images, got photos",
        ),
        ("--out generated.png/x", "--out: expected a folder to write to, got generated.png, which is not"),
        ("--imports no_such_module", "--imports: cannot import no_such_module: No module named 'no_such_module'"),
        ("--device warp", "--device: expected a device of this machine, got warp ("),
        ("--cuont 3", "--cuont: no such option; did you mean --count?"),
        ("--count x", "--count: expected int or null, got x"),
    ],
)
def test_mistakes(fails: Fails, options: str, message: str) -> None:
    generate()
    Path("photos").mkdir()
    Path("photos/cat.jpg").touch()
    out = [] if "--out" in options or not options else ["--out", "new.png"]
    assert fails("generate", OLD, *out, *options.split()).startswith(f"error: {message}")
    assert sorted(file.name for file in Path().rglob("*")) == ["cat.jpg", "generated.png", "photos"]


SPECIAL = {
    "pipe": os.mkfifo,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path),
    "link to nothing": lambda path: os.symlink("nowhere", path),
}


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("command", ["generate", "export"])
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_what_is_no_file_is_left_alone(fails: Fails, command: str, kind: str, options: tuple[str, ...]) -> None:
    place = {"generate": "x.png", "export": "x.onnx"}[command]
    SPECIAL[kind](place)
    before = os.lstat(place)
    assert fails(command, OLD, "--out", place, *options) == (
        f"error: --out: expected the path of a file or folder, got '{place}', which is a {kind}; name another"
    )
    assert (os.lstat(place).st_ino, os.listdir()) == (before.st_ino, [place])
    for reader in ("generate", "export"):
        line = fails(reader, place)
        assert line == f"error: source: expected a file, got {place}, which is a {kind}; name a file"


@pytest.mark.parametrize(
    ("place", "kind"), [("/dev/null", "device"), ("/dev/full", "device"), ("/dev/zero", "device"), (".", "folder")]
)
def test_devices_and_folders_are_no_checkpoints(fails: Fails, place: str, kind: str) -> None:
    expected = {
        "device": f"expected a file, got {place}, which is a device; name a file",
        "folder": f"expected a folder that export wrote, got {place} (FileNotFoundError: no config.json); name another",
    }
    assert fails("generate", place) == f"error: source: {expected[kind]}"
    line = fails("fit", "--config", DIGITS, "--ckpt_path", place)
    assert line == f"error: --ckpt_path: expected a file, got {place}, which is a {kind}; name a file"


@pytest.mark.parametrize("out", ["x.png", "x.npz", "x.gif", "x"])
@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room, or name another"), (errno.EACCES, "name another")]
)
def test_a_disk_that_takes_no_more(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, out: str, number: int, remedy: str
) -> None:
    walk = ("--walk", "classes", "--frames", "1") if out == "x.gif" else ()
    generate("--out", out, "--labels", "3", "--count", "2", *walk)
    before = {file: file.is_file() and file.read_bytes() for file in Path().rglob("*")}

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr(np, "savez_compressed", fail)
    assert fails("generate", OLD, "--out", out, "--overwrite", "--labels", "7", *walk) == (
        f"error: --out: expected a path to write to, got {out} ({os.strerror(number)}); {remedy}"
    )
    assert {file: file.is_file() and file.read_bytes() for file in Path().rglob("*")} == before


def test_a_name_that_is_too_long(fails: Fails) -> None:
    assert fails("generate", OLD, "--out", f"{'x' * 300}.png") == (
        "error: --out: expected a name of at most 200 bytes, got 304; give a shorter one"
    )


def test_what_is_no_checkpoint(fails: Fails) -> None:
    assert fails("generate", "last.ckpt") == "error: source: no such file: last.ckpt; check the path"
    Path("text.ckpt").write_text("hello")
    assert fails("generate", "text.ckpt").startswith(
        "error: source: expected a complete checkpoint, got text.ckpt, which"
    )
    torch.save({"state_dict": {}}, "other.ckpt")
    assert fails("generate", "other.ckpt").startswith("error: source: expected one that a ConditionalGAN wrote")
    assert fails("generate").startswith("error: source: expected a file, got none; name one")
    assert fails("generat", OLD) == "error: generat: no such command; did you mean generate?"


def test_names_of_classes_are_no_paths(tmp_path: Path) -> None:
    checkpoint = torch.load(OLD, weights_only=True)
    checkpoint["lightning_cgan"]["data"] = {"classes": ["..", "a/b", "a-b", ".", "/tmp", *"56789"]}
    torch.save(checkpoint, "named.ckpt")
    generate("--count", "1", "--out", "inner/folder", checkpoint="named.ckpt")
    made = sorted(file.name for file in Path("inner/folder").iterdir())
    assert made == sorted(["0-", "1-a-b", "2-a-b", "3-", "4--tmp", *(f"{label}-{label}" for label in range(5, 10))])
    assert [file.name for file in Path("inner").iterdir()] == ["folder"]
    for names in (5, ["a"], [1] * 10):
        odd = {**checkpoint["lightning_cgan"], "data": {"classes": names}}
        torch.save({**checkpoint, "lightning_cgan": odd}, "odd.ckpt")
        assert arrays(checkpoint="odd.ckpt")["class_names"].tolist() == list("0123456789")


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["a/b", "a-b", "0-a-b"], ["0-a-b", "1-a-b", "2-0-a-b"]),
        (["Cat", "cat", "dog"], ["0-Cat", "1-cat", "2-dog"]),  # one folder on macOS and on Windows
        (["a/b", "cat"], ["a-b", "cat"]),
    ],
)
def test_no_two_classes_share_a_folder(names: list[str], folders: list[str]) -> None:
    assert folders_of_classes(Path("x"), names) == [Path("x", folder) for folder in folders]


def test_a_damaged_file_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole = Path(OLD).read_bytes()
    Path("last.ckpt").write_bytes(whole[:9000])
    Path("last.ckpt.previous").write_bytes(whole)
    with pytest.warns(UserWarning, match="loaded its backup"):
        made = arrays(checkpoint="last.ckpt")["images"]
    assert (made == arrays()["images"]).all()


def test_class_names_and_own_networks(
    run: Callable[..., Path], fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from lightning_cgan import MLPGenerator\n\n\nclass Mine(MLPGenerator):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = run("--trainer.max_steps", "1", "--data.classes", "[4, 9]", "--model.generator", "my_networks.Mine")
    last = str(folder / "checkpoints" / "last.ckpt")
    monkeypatch.delitem(sys.modules, "my_networks")
    assert "got my_networks.Mine; import its module first" in fails("generate", last)
    generate("--labels", "9", "--count", "2", "--out", "nines", "--imports", "my_networks", checkpoint=last)
    assert [str(file) for file in sorted(Path("nines").rglob("*.png"))] == ["nines/9/00000.png", "nines/9/00001.png"]
