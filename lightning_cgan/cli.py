"""The command line: Lightning's own, with the networks sized by the data and a run in one folder.

The only file that imports every room, *so that* short class names such as `--data MNISTData` resolve.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

import lightning_cgan.augmentations
import lightning_cgan.losses
import lightning_cgan.networks
import lightning_cgan.penalties
from lightning_cgan.callbacks import (
    BestCheckpoint,
    Checkpoints,
    Curves,
    Monitor,
    PredictionWriter,
    ProgressBar,
    Report,
    SampleGrid,
    SaveConfig,
    Scores,
)
from lightning_cgan.checkpoint_io import AtomicCheckpointIO, fails_to_restore
from lightning_cgan.choosing import choose_precision, choose_threads, saved_numerics
from lightning_cgan.console import one_line_errors, quiet
from lightning_cgan.data import LabelledImages
from lightning_cgan.errors import UsageError, check_positive, no_such_file
from lightning_cgan.launchers import started_processes, with_cluster
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.numerics import Numerics
from lightning_cgan.parser import FUNCTIONS, OneLineParser, call_function, refuse_nulls
from lightning_cgan.run import folder_of_run, loggers, name_of, newest_checkpoint, wandb_logger

# The options of each; the order is that in which they are called.
_CALLBACKS = {
    "progress_bar": ProgressBar,
    "samples": SampleGrid,
    "curves": Curves,
    "scores": Scores,
    "monitor": Monitor,
    "best_checkpoint": BestCheckpoint,
    "checkpoints": Checkpoints,  # behind the best one, whose score they keep
    "report": Report,
    "predictions": PredictionWriter,
}
_LINKED = ("num_classes", "image_channels", "image_size")


def main(args: ArgsType = None) -> None:
    """Runs the command line.

    Args:
        args: What would stand behind the program's name; taken from `sys.argv` if not given.

    Raises:
        SystemExit: With code 2 after a mistake of the user's, which is told in one line on stderr; with code 130 after
            Ctrl-C, 143 after SIGTERM and 138 after SIGUSR1.
    """
    arguments = sys.argv[1:] if args is None else args
    if isinstance(arguments, list) and arguments and arguments[0] in FUNCTIONS:
        with quiet(), one_line_errors():
            call_function(arguments[0], arguments[1:])
    else:
        run(args, CLI)


def run(args: ArgsType, cli: type[CLI]) -> CLI:
    """Runs a command line as `main` does: quietly, and with errors in one line.

    Args:
        args: What would stand behind the program's name.
        cli: The command line's class.
    """
    with quiet(), one_line_errors():
        return cli(args)


class CLI(LightningCLI):
    """Lightning's command line for a `ConditionalGAN` on `LabelledImages`."""

    run_folder: Path | None = None
    goes_on = False  # whether the folder is that of an earlier run
    saved_numerics: Numerics | None = None  # of the checkpoint that the run resumes from

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            ConditionalGAN,
            LabelledImages,
            subclass_mode_data=True,
            parser_class=OneLineParser,
            parser_kwargs={"prog": "python -m lightning_cgan"},
            save_config_callback=SaveConfig,
            trainer_defaults={"num_sanity_val_steps": 0},
            seed_everything_default=0,
            # The module has optimizers of its own: Lightning's `--optimizer` would replace both.
            auto_configure_optimizers=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of a run beside those of the model, the data and the Trainer."""
        parser.add_argument("--name", type=str | None, default=None, help="The run's name; the config's if not given.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="The folder that holds the folders of runs.")
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="The CPU threads of each process; those of the checkpoint, else as many as pay, if not given.",
        )
        help = "Whether a run leaves files for TensorBoard too, in tensorboard/ in its folder."
        parser.add_argument("--tensorboard", type=bool, default=False, help=help)
        for group, callback in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)
        parser.add_function_arguments(wandb_logger, "wandb", skip={"folder", "name"})
        for network in ("generator", "discriminator"):
            for attribute in _LINKED:
                target = f"model.{network}.init_args.{attribute}"
                parser.link_arguments(f"data.{attribute}", target, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """The config says what is built, also beside a checkpoint; Lightning would let the checkpoint overrule it."""

    def before_instantiate_classes(self) -> None:
        """Gives the run a name, and refuses sizes of networks, which the data decides."""
        config = self.config[self.subcommand]
        if config.name is None:
            config.name = name_of(map(str, config.config or ()))
        if config.ckpt_path == "last":
            config.ckpt_path = self._last_of_its_name(config.runs_dir, config.name)
        if config.ckpt_path is None and self.subcommand != "fit":
            raise UsageError(f"--ckpt_path: expected a checkpoint to {self.subcommand}, got none; name one")
        _check_file("--ckpt_path", config.ckpt_path)
        if self.subcommand == "predict":
            config.return_predictions = False  # they are written
        for group in (*_CALLBACKS, "trainer", "wandb"):
            if not isinstance(given := config.get(group), Namespace) and group != "progress_bar":  # it has no options
                said = "null" if given is None else repr(given)
                raise UsageError(f"--{group}: expected options, got {said}; leave it out for those that it comes with")
        check_positive("--threads", config.threads)
        check_positive("--trainer.check_val_every_n_epoch", config.trainer.check_val_every_n_epoch)
        refuse_nulls(self._parser(self.subcommand), config)
        self._refuse_options_of_one_optimizer()
        self._choose_precision()
        self._count_processes()
        for network in ("generator", "discriminator"):
            for attribute in _LINKED:
                given = config.get(f"model.{network}.init_args.{attribute}")
                if given is not None:
                    raise UsageError(
                        f"--model.{network}.{attribute}: expected to be left out, got {given}; the data decides it "
                        "(--data.image_size and --data.classes change it)"
                    )

    def _last_of_its_name(self, runs_dir: str, name: str) -> str | None:
        found = newest_checkpoint(runs_dir, name)
        if found is None and self.subcommand != "fit":
            raise UsageError(
                f"--ckpt_path: expected a run with a checkpoint in {runs_dir}/{name}, got none; name a file"
            )
        rank_zero_info(
            f"--ckpt_path last: {found or f'no run in {runs_dir}/{name} has a checkpoint; a new one begins'}"
        )
        return None if found is None else str(found)

    def _choose_precision(self) -> None:
        """Takes the precision of the checkpoint, or the one that suits the machine; `config.yaml` keeps it."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit" and config.ckpt_path is not None:
            self.saved_numerics = saved_numerics(str(config.ckpt_path))
        choose_precision(config.trainer, self.saved_numerics)

    def _count_processes(self) -> None:
        """Takes as many processes as torchrun or SLURM have started, unless the user has said how many."""
        trainer, started = self.config[self.subcommand].trainer, started_processes()
        if started and trainer.devices == "auto":
            trainer.num_nodes, trainer.devices = started

    def _choose_threads(self) -> None:
        """Takes as many CPU threads as are of use; `config.yaml` keeps the number."""
        config = self.config[self.subcommand]
        networks, batch_size = (self.model.generator, self.model.discriminator), self.datamodule.batch_size
        config.threads = choose_threads(config.threads, self.trainer, networks, batch_size, self.saved_numerics)

    def _refuse_options_of_one_optimizer(self) -> None:
        trainer = self.config[self.subcommand].trainer
        # Lightning's option, its value that changes nothing, and the end of the names of ours
        options = (("gradient_clip_val", 0, "clip_norm"), ("accumulate_grad_batches", 1, "accumulation"))
        for option, neutral, ours in options:
            if trainer[option] not in (None, neutral):
                raise UsageError(
                    f"--trainer.{option}: expected to be left out, got {trainer[option]}; each network has an "
                    f"option of its own, --model.generator_{ours} and --model.discriminator_{ours}"
                )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the Trainer; a `fit` gets a folder of its own and the loggers that write there."""
        config = self.config_init[self.subcommand]
        if self.subcommand != "fit":
            kwargs.setdefault("logger", False)
        elif config.trainer.logger is not False:
            self.run_folder, self.goes_on = folder_of_run(config.ckpt_path, config.runs_dir, config.name)
            options = (config.trainer.logger, config.wandb, config.tensorboard)
            kwargs["logger"] = loggers(self.run_folder, config.name, *options)
        plugins = config.trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, AtomicCheckpointIO()]
        kwargs["plugins"] = with_cluster(plugins)
        try:
            return super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:  # Lightning about its own options
            raise UsageError(f"--trainer: {error}") from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        shows = config.get("enable_progress_bar") is not False  # Lightning would refuse a bar of ours beside it
        return super()._instantiate_trainer(config, [c for c in callbacks if shows or not isinstance(c, ProgressBar)])

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            if isinstance(error, UsageError) or not fails_to_restore(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            given = self.config[subcommand].ckpt_path
            message = f"expected a checkpoint of this run, got {given}, which is none ({reason}); name another"
            raise UsageError(f"--ckpt_path: {message}") from error

    def fit(self, **kwargs: Any) -> None:
        """Trains, and says where the results are, or after a signal, how to go on."""
        try:
            self._choose_threads()
            self.trainer.fit(**kwargs)
        except Exception:
            self._discard_empty_run()
            raise
        except SystemExit:  # Lightning's answer to Ctrl-C
            self._discard_empty_run()
            self._say_how_to_resume()
            raise SystemExit(128 + (self._checkpoints().stopped_by or signal.SIGINT)) from None
        if self.run_folder and self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(f"Pictures: {self.run_folder}/samples and {self.run_folder}/curves.png")
            last = Path(self._checkpoints().last_model_path)
            print(f"Checkpoint: {last if last.is_file() else 'none, since none could be written'}")

    def _checkpoints(self) -> Checkpoints:
        return next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, Checkpoints))

    def _discard_empty_run(self) -> None:
        if self.run_folder and not self.goes_on and not self._checkpoints().has_begun and self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.finalize("failed")
            shutil.rmtree(self.run_folder, ignore_errors=True)
            for folder in (self.run_folder.parent, self.run_folder.parent.parent):
                with suppress(OSError):  # what is not empty stays
                    folder.rmdir()

    def _say_how_to_resume(self) -> None:
        checkpoint = self._checkpoints().last_model_path
        if checkpoint and self.trainer.is_global_zero:
            files = self.run_folder.glob("config*.yaml") if self.run_folder else ()
            written = max(files, key=lambda file: file.stat().st_mtime, default=None)
            config = f"--config {written}" if written else "(with the same options)"
            print(
                f"Stopped at alternation {self.trainer.global_step:,}. To go on:\n  python -m lightning_cgan fit "
                f"{config} --ckpt_path {checkpoint}"
            )


def _check_file(option: str, path: str | None) -> None:
    """Refuses what is no file; Lightning's `best` means the best of a run that the same process has made."""
    if path is not None and "://" not in path and not Path(path).is_file():
        raise UsageError(no_such_file(option, path))
