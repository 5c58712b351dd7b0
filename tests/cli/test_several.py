"""`--ckpt_path` with several checkpoints, whose generators take turns: in `predict`, and for the students of `test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from helpers.labelled import opened
from helpers.paths import DIGITS
from lightning_cgan import ConditionalGAN
from lightning_cgan.callbacks.page_content import render_page
from lightning_cgan.cli.checkpoints import find_checkpoints
from lightning_cgan.cli.main import main
from lightning_cgan.data.loader import OrderedLoader
from lightning_cgan.evaluation.gan_train import gan_train
from lightning_cgan.evaluation.judge import get_judge
from lightning_cgan.evaluation.score_rows import score_rows
from lightning_cgan.export.score_table import find_report
from lightning_cgan.networks.latents import LatentSampler

Fails = Callable[..., str]
CPU = torch.device("cpu")
SMALL = ("--trainer.max_steps", "20", "--data.image_size", "8", "--scores.images", "0", "--trainer.accelerator", "cpu")
SEEDS = {
    "0": (),
    "1": ("--model.generator.latent_dim", "8", "--checkpoints.every_n_train_steps", "10"),
    "2": ("--model.ema_half_life", "null", "--model.latents", "uniform"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short runs of three seeds: with other latents, and without an average."""
    folder = tmp_path_factory.mktemp("several")
    for seed, options in SEEDS.items():
        common = (
            "--config",
            DIGITS,
            *SMALL,
            "--runs_dir",
            str(folder),
            "--name",
            seed,
            "--checkpoints.save_top_k",
            "-1",
        )
        main(["fit", *common, "--seed_everything", seed, *options])
    return folder


@pytest.fixture
def paths(runs: Path) -> list[str]:
    return [str(next(runs.glob(f"{seed}/*/checkpoints/last.ckpt"))) for seed in SEEDS]


def config_of(path: str) -> list[str]:
    return ["--config", str(Path(path).parents[1] / "config.yaml")]


def listed(paths: list[str]) -> str:
    return f"[{', '.join(paths)}]"


def predict(paths: list[str], folder: str, per_class: int, *options: str) -> dict[str, bytes]:
    numbers = ["--data.predictions_per_class", str(per_class), "--predictions.folder", folder]
    main(["predict", *config_of(paths[0]), "--ckpt_path", listed(paths), *numbers, *options])
    return files_of(folder)


def files_of(folder: str) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*.png")}


def modules_of(paths: list[str]) -> list[ConditionalGAN]:
    return [ConditionalGAN.load_from_checkpoint(path, map_location="cpu") for path in paths]


def rounded(images: Tensor) -> Tensor:
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


# ---- predict -----------------------------------------------------------------------------------------------------------


def test_each_makes_what_it_makes_alone(paths: list[str]) -> None:
    made = predict(paths, "made", 8, "--predictions.seed", "3")
    alone = []
    for number, path in enumerate(paths):
        main(["generate", path, "--count", "8", "--seed", "3", "--out", f"alone_{number}"])
        alone.append(files_of(f"alone_{number}"))
    assert made == {file: alone[int(Path(file).stem) % 3][file] for file in made}
    assert len(made) == 80
    assert all(len({files[file] for files in alone}) == 3 for file in made)  # no two make the same
    # and image by image, with nothing but a generator and its latents
    for number in range(8):
        module = modules_of(paths)[number % 3]
        label, sampler = torch.tensor([4]), LatentSampler(seed=3)
        latents = sampler.latents(label, torch.tensor([number]), module.generator.latent_dim, module.latents)
        pixels = pil_to_tensor(Image.open(f"made/4/{number:05d}.png"))
        assert (pixels.int() - rounded(module.generate(label, latents))[0].int()).abs().max() <= 1
    about = json.loads(Path("made/predictions.json").read_text())
    assert [(one["name"], one["step"], one["seed"]) for one in about["checkpoints"]] == [
        ("last.ckpt", 20, seed) for seed in range(3)
    ]
    assert len({one["sha256"] for one in about["checkpoints"]}) == 3


def test_who_makes_an_image_depends_on_its_number_alone(paths: list[str]) -> None:
    whole = predict(paths, "made", 11)
    assert whole == predict(paths, "batches", 11, "--data.batch_size", "7")
    for number in (0, 1, 4, 5, 9):
        Path("made/3", f"{number:05d}.png").unlink()
    Path("made/8/00007.png").write_bytes(whole["8/00007.png"][:30])
    assert predict(paths, "made", 11) == whole
    few = predict(paths, "few", 4)
    assert predict(paths, "few", 11) == whole
    assert few == {file: whole[file] for file in few}


@pytest.mark.ci
def test_two_processes_make_the_same(paths: list[str]) -> None:
    numbers = ["--data.predictions_per_class", "11", "--predictions.folder", "two", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "lightning_cgan", "predict", *config_of(paths[0]), "--ckpt_path", listed(paths)]
    done = subprocess.run(
        [*command, *numbers], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert files_of("two") == predict(paths, "one", 11)


def test_what_is_doubtful_is_replaced_by_the_same_generator(paths: list[str]) -> None:
    data = opened(image_size=8)
    judge = get_judge(data.in_order("train"), data.in_order("validation"), 10, CPU).judge
    made = predict(paths, "sure", 6, "--predictions.min_confidence", "0.2", "--predictions.latent_scale", "1.1")
    modules, sampler, attempts = modules_of(paths), LatentSampler(scale=1.1), set()
    for label in range(10):
        for number in range(6):
            module, address = modules[number % 3], (torch.tensor([label]), torch.tensor([number]))
            for attempt in range(8):
                latents = sampler.latents(*address, module.generator.latent_dim, module.latents, attempt)
                pixels = rounded(module.generate(address[0], latents))
                if judge(pixels / 127.5 - 1).softmax(1)[0, label] >= 0.2:
                    attempts.add(attempt)
                    found = pil_to_tensor(Image.open(f"sure/{label}/{number:05d}.png"))
                    assert (found.int() - pixels[0].int()).abs().max() <= 1
                    break
            else:
                assert f"{label}/{number:05d}.png" not in made
    assert len(attempts) > 2


def test_folders_of_other_generators_are_refused(paths: list[str], fails: Fails) -> None:
    predict(paths[:2], "made", 1)
    common = ["predict", *config_of(paths[0]), "--predictions.folder", "made", "--data.predictions_per_class", "1"]
    for given, differing in (
        (paths[0], "generators"),
        (listed(paths), "generators"),
        (listed([paths[0], paths[2]]), "generators"),
        (listed([paths[2], paths[1]]), "latents, weights"),
    ):
        options = ("--model.latents", "uniform", *SEEDS["2"][:2]) if "latents" in differing else ()
        assert fails(*common, "--ckpt_path", given, *options) == (
            f"error: --predictions.folder: expected images made with the same {differing}, got others in made; "
            "name another folder"
        )
    for index, path in enumerate(paths[:2]):  # which other names and places do not change
        Path(f"{index}.ckpt").write_bytes(Path(path).read_bytes())
    main([*common, "--ckpt_path", "[0.ckpt, 1.ckpt]"])


# ---- test --------------------------------------------------------------------------------------------------------------


@pytest.mark.ci
def test_students_of_several_generators(paths: list[str]) -> None:
    options = ["--report.protocol", "quick", "--report.gafi.min_confidence", "0.05"]
    reports = {}
    for name, given in (("several", listed(paths)), ("single", paths[0])):
        main(["test", *config_of(paths[0]), "--ckpt_path", given, *options, "--report.folder", name])
        reports[name] = json.loads(Path(name, "report.json").read_text())
    several, single = reports["several"], reports["single"]
    # all else is of the first
    assert single == {name: several[name] for name in several if "several" not in name and name != "generators"}
    assert [(one["name"], one["step"], one["seed"]) for one in several["generators"]] == [
        ("last.ckpt", 20, seed) for seed in range(3)
    ]
    assert several["generators"][0]["sha256"] == several["checkpoint"]["sha256"]

    data, modules = opened(image_size=8), modules_of(paths)

    def images(split: str, seed: int) -> OrderedLoader:
        labels = data.in_order(split).labels
        drawn = [module.sample_latents(len(labels), seed) for module in modules]
        seen, pixels = [0] * 10, []
        for place, label in enumerate(labels.tolist()):
            turn = seen[label] % 3
            seen[label] += 1
            pixels.append(rounded(modules[turn].generate([label], drawn[turn][place : place + 1])))
        return OrderedLoader(torch.cat(pixels), labels, 500)

    training, selection = images("train", 1_001_000), images("validation", 1_002_000)
    expected = gan_train(lambda _: training, selection, data.in_order("test"), 10, 3, (0,), CPU)
    assert several["gan_train_of_several"]["mean"] == pytest.approx(expected["mean"], abs=0.02)  # rounding of a pixel
    rows = {row.title: row for row in score_rows(several)}
    assert rows["GAN-train, 3 generators"].generated == f"{several['gan_train_of_several']['mean']:.2%}"
    assert rows["GAN-train, 3 generators"].real == rows["GAN-train"].real
    assert "GAN-train, GaFi, 3 generators" in rows
    assert not [row.title for row in score_rows(single) if "generators" in row.title]


@pytest.mark.usefixtures("_quick_judge")
def test_report_page_and_card_name_all_generators(
    runs: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_cgan.evaluation.gan_train.learn", lambda *_: None)  # students may stay as they are
    folder = Path(paths[1]).parent
    chosen = f"[{folder}/last.ckpt, {folder}/step_*10.ckpt]"
    main(["test", *config_of(paths[1]), "--ckpt_path", chosen, "--report.protocol", "quick"])
    named = "last.ckpt (step 20, seed 1), step_00000010.ckpt (step 10, seed 1)"
    page = render_page(folder.parent).decode()
    assert "GAN-train, 2 generators" in page
    assert f"Several generators: {named}." in page
    scored = find_report(Path(paths[1]), None)
    assert scored is not None
    assert "| GAN-train, 2 generators | " in scored.table
    plain = scored.table.replace("&#95;", "_").replace("&#46;", ".").replace("&#40;", "(").replace("&#41;", ")")
    assert f"Several generators: {named}." in plain


# ---- what is named -----------------------------------------------------------------------------------------------------


def test_ways_to_name_them(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    monkeypatch.setenv("HOME", str(runs))

    def found(*given: str) -> list[str]:
        paths = find_checkpoints(given, "test", str(runs), "2")
        return [f"{Path(path).parents[2].name}/{Path(path).name}" for path in paths]

    assert found("*/*/checkpoints/last.ckpt") == ["0/last.ckpt", "1/last.ckpt", "2/last.ckpt"]
    assert found("last", "[01]/**/last.ckpt") == ["2/last.ckpt", "0/last.ckpt", "1/last.ckpt"]
    assert found("~/1/*/checkpoints/step_*") == ["1/step_00000010.ckpt", "1/step_00000020.ckpt"]
    Path("odd [1].ckpt").touch()
    assert find_checkpoints(["odd [1].ckpt", "s3://bucket/*.ckpt"], "test", "runs", "2") == [
        "odd [1].ckpt",
        "s3://bucket/*.ckpt",
    ]


def test_a_config_and_a_pattern_name_them(runs: Path, paths: list[str]) -> None:
    Path("several.yaml").write_text(f"ckpt_path:\n- {paths[0]}\n- {paths[1]}\n")
    numbers = ["--data.predictions_per_class", "2"]
    main(["predict", *config_of(paths[0]), "--config", "several.yaml", *numbers, "--predictions.folder", "listed"])
    pattern = f"{runs}/[01]/*/checkpoints/last.ckpt"
    main(["predict", *config_of(paths[0]), "--ckpt_path", pattern, *numbers, "--predictions.folder", "matched"])
    assert files_of("listed") == files_of("matched") == predict(paths[:2], "typed", 2)


@pytest.fixture
def others(runs: Path) -> dict[str, str]:
    """Checkpoints that do not go with those of the runs, and a path to nothing."""
    short = ("--config", DIGITS, *SMALL[:2], "--trainer.max_steps", "1", *SMALL[4:], "--runs_dir", "runs")
    for name, options in {
        "classes": ("--data.image_size", "8", "--data.classes", "[0, 1]"),
        "order": ("--data.image_size", "8", "--data.classes", "[1, 0, 2-9]"),
        "size": ("--data.image_size", "16"),
    }.items():
        main(["fit", *short, "--name", name, *options])
    found = {
        name: str(next(Path("runs", name).glob("*/checkpoints/last.ckpt"))) for name in ("classes", "order", "size")
    }
    Path("text.ckpt").write_text("no checkpoint")
    Path("copy.ckpt").write_bytes(next(runs.glob("0/*/checkpoints/last.ckpt")).read_bytes())
    return {**found, "missing": "lst.ckpt", "text": "text.ckpt", "copy": "copy.ckpt"}


TEN = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_what_does_not_go_together(paths: list[str], others: dict[str, str], fails: Fails) -> None:
    first = paths[0]
    for name, message in {
        "missing": "no such file: lst.ckpt; did you mean text.ckpt?",
        "text": "expected a complete checkpoint, got text.ckpt, which is damaged or not a checkpoint (File is not a zip "
        "file); name another",
        "classes": f"expected generators of the same classes, {TEN} as in {first}, got 0, 1 in {others['classes']}; name "
        "checkpoints with the same --data.classes",
        "order": f"expected generators of the same classes, {TEN} as in {first}, got 1, 0, 2, 3, 4, 5, 6, 7, 8, 9 in "
        f"{others['order']}; name checkpoints with the same --data.classes",
        "size": f"expected images of the same shape, 1 x 8 x 8 as in {first}, got 1 x 16 x 16 in {others['size']}; name "
        "checkpoints with the same --data.image_size and --data.image_channels",
        "copy": f"expected different generators, got the same weights in {first} and copy.ckpt; name one of them",
    }.items():
        for command in ("test", "predict"):
            given = listed([first, others[name]])
            assert fails(command, *config_of(first), "--ckpt_path", given) == f"error: --ckpt_path: {message}"
    assert not Path("predictions").exists()


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("fit", "[{0}, {1}]", "expected one checkpoint to fit, got 2; name one; test and predict take several"),
        (
            "validate",
            "[{0}, {1}]",
            "expected one checkpoint to validate, got 2; name one; test and predict take several",
        ),
        ("predict", "[{0}, {0}]", "expected different checkpoints, got {0} twice; name it once"),
        ("predict", "[]", "expected a checkpoint to predict, got none; name one"),
        ("test", "no_*.ckpt", "expected a pattern of files, got no_*.ckpt, which none matches; check the path"),
        ("test", "{0},{1}", "no such file: {0},{1}; write a list as '[a.ckpt, b.ckpt]', in brackets"),
        (
            "test",
            "{0} {1} {2}",
            "expected one value, since a shell separates values at spaces, got {1} as well; write a list as "
            "'[a.ckpt, b.ckpt]', in quotes",
        ),
    ],
)
def test_mistakes(paths: list[str], fails: Fails, command: str, given: str, message: str) -> None:
    values = given.format(*paths)
    typed = values.split() if given[0] == "{" else [values]
    assert (
        fails(command, *config_of(paths[0]), "--ckpt_path", *typed) == f"error: --ckpt_path: {message.format(*paths)}"
    )


def test_without_a_report_there_are_no_students(paths: list[str], fails: Fails) -> None:
    message = fails("test", *config_of(paths[0]), "--ckpt_path", listed(paths), "--report.protocol", "none")
    assert message == (
        "error: --report.protocol: expected a protocol for students of several generators, got none; give quick, or a "
        "single checkpoint"
    )
