"""`LightningCLI` for this package: the data determine the sizes of the networks, and each run has one folder.

This file imports all subpackages, so that short class names such as `--data MNISTData` resolve.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from lightning_cgan.callbacks import (
    BestCheckpoint,
    Checkpoints,
    Curves,
    PredictionWriter,
    ProgressBar,
    Report,
    RunPage,
    SampleGrid,
    SaveConfig,
    Scores,
    Summary,
    TrainingAlarms,
)
from lightning_cgan.cli import checkpoints
from lightning_cgan.cli.checks import LINKED, check_options
from lightning_cgan.cli.cluster import check_processes, started_processes, with_cluster
from lightning_cgan.cli.console import command
from lightning_cgan.cli.machine_defaults import choose_compile, choose_precision, choose_threads, saved_numerics
from lightning_cgan.cli.parser import FUNCTIONS, OneLineParser, call_function
from lightning_cgan.cli.results import print_results, print_resume_command
from lightning_cgan.cli.trainer_messages import message_of_callback, message_of_class, trainer_message
from lightning_cgan.core.compat import cluster_environment_of
from lightning_cgan.core.errors import UsageError, check_name, reason_of
from lightning_cgan.data import LabelledImages
from lightning_cgan.export.initialization import initialize_from
from lightning_cgan.module import ConditionalGAN
from lightning_cgan.runs.checkpoint_io import AtomicCheckpointIO, fails_to_restore
from lightning_cgan.runs.folder import RunFolder, name_of, resolve_run_dir
from lightning_cgan.runs.loggers import ended_wandb_run, loggers, wandb_logger
from lightning_cgan.training.compilation import Compiled
from lightning_cgan.training.numerics import Numerics

_COMPILE_HELP = (
    "What `torch.compile` compiles: `networks` both networks in place; `step` a whole step as one graph, where "
    "possible; `auto` what the run of the checkpoint compiled, or a step where that is known to make a run shorter."
)

# Option groups and their callbacks, in the order in which Lightning calls them
_CALLBACKS = {
    "progress_bar": ProgressBar,
    "samples": SampleGrid,
    "curves": Curves,
    "scores": Scores,
    "alarms": TrainingAlarms,
    "best_checkpoint": BestCheckpoint,
    "checkpoints": Checkpoints,  # after the best one, whose score they save
    "report": Report,
    "page": RunPage,  # after those whose files it shows
    "predictions": PredictionWriter,
}


def main(args: ArgsType = None) -> None:
    """Runs the command line: the arguments after the program's name, by default those of `sys.argv`.

    Raises:
        SystemExit: With code 2 after a usage error, which is reported in one line on stderr; with code 130 after
            Ctrl-C, 143 after SIGTERM and 138 after SIGUSR1.
    """
    arguments = sys.argv[1:] if args is None else args
    if isinstance(arguments, list) and arguments and arguments[0] in FUNCTIONS:
        call_function(arguments)
    else:
        run(args, CLI)


def run(args: ArgsType, cli: type[CLI]) -> CLI:
    """Runs a CLI class as `main` does: without expected warnings, with one-line errors, and process state restored."""
    with command():
        return cli(args)


class RunParser(OneLineParser, LightningArgumentParser):
    """The parser of the commands that make or score a run."""

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Adds the options of a class; `--model.compile` gets another default, which only a command can resolve."""
        if theclass is ConditionalGAN:
            kwargs["skip"] = {"compile"}
        added: list[str] = super().add_class_arguments(theclass, *args, **kwargs)
        if theclass is ConditionalGAN:
            hint: Any = Literal["auto", Compiled]
            groups: Any = self.groups
            groups["model"].add_argument("--model.compile", type=hint, default="auto", help=_COMPILE_HELP)
        return added

    def add_method_arguments(self, theclass: Any, themethod: str, *args: Any, **kwargs: Any) -> list[str]:
        """Adds the options of a command; `--ckpt_path` also takes a list."""
        kwargs["skip"] = {*kwargs.get("skip", ()), "ckpt_path"}
        added: list[str] = super().add_method_arguments(theclass, themethod, *args, **kwargs)
        hint: Any = list[str] | str | None
        self.add_argument("--ckpt_path", type=hint, default=None, help=checkpoints.HELP)
        return [*added, "ckpt_path"]

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """Instantiates the parsed classes; what cannot be instantiated is a usage error."""
        try:
            return super().instantiate_classes(*args, **kwargs)
        except ValueError as error:
            message = message_of_class(str(error))
            if message is None:
                raise
            raise UsageError(message) from error


class CLI(LightningCLI):
    """`LightningCLI` for a `ConditionalGAN` on `LabelledImages`."""

    run_folder: RunFolder | None = None  # of a fit, in the first process
    saved_numerics: Numerics | None = None  # of the checkpoint that the run resumes from
    has_to_choose_compile = False  # until `fit` does so
    checkpoints: Sequence[str] = ()  # of `--ckpt_path`; Lightning loads the first one

    def __init__(self, args: ArgsType = None) -> None:
        typed, known = sys.argv[1:] if args is None else args, self.subcommands()
        if isinstance(typed, list) and typed and typed[0] in known:
            # Building the parsers of Lightning's four commands takes half a second.
            self.subcommands = lambda: {typed[0]: known[typed[0]]}  # type: ignore[method-assign]
        super().__init__(
            ConditionalGAN,
            LabelledImages,
            subclass_mode_data=True,
            parser_class=RunParser,
            parser_kwargs={"prog": "python -m lightning_cgan"},
            save_config_callback=SaveConfig,
            trainer_defaults={"num_sanity_val_steps": 0},
            seed_everything_default=0,
            # The module configures two optimizers, which Lightning's `--optimizer` would replace by one.
            auto_configure_optimizers=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of a run to those of the model, the data and the Trainer."""
        parser.add_argument("--name", type=str | None, default=None, help="The run's name; by default, its config's.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="The folder of all runs.")
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="The CPU threads of each process; if not given, those of the checkpoint, or the fastest number.",
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="The trained weights that `fit` begins with, as far as they fit: a checkpoint, a folder that `export` "
            "wrote, or the name of a shipped generator. Not read with --ckpt_path: a checkpoint has all weights.",
        )
        help = "Whether to write TensorBoard files, to tensorboard/ in the folder of the run."
        parser.add_argument("--tensorboard", type=bool, default=False, help=help)
        for group, callback in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)
        parser.add_function_arguments(wandb_logger, "wandb", skip={"folder", "name"})
        for target in LINKED:
            parser.link_arguments(f"data.{target.rpartition('.')[2]}", target, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuses seeds that NumPy, which Lightning seeds as well, does not accept."""
        super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].seed_everything if self.config.subcommand else 0
        if not 0 <= seed < 2**32:
            raise UsageError(f"--seed_everything: expected a number from 0 to {2**32 - 1}, got {seed}; give another")

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let a checkpoint's hyperparameters override the config."""

    def before_instantiate_classes(self) -> None:
        """Names the run, checks the options, and chooses the precision and the number of processes if not given."""
        config = self.config[self.subcommand]
        if config.name is None:
            config.name = name_of(map(str, config.config or ()))
        check_name("--name", config.name)
        given = config.ckpt_path if isinstance(config.ckpt_path, list) else [config.ckpt_path]
        given = [path for path in given if path is not None]
        found = checkpoints.find_checkpoints(given, str(self.subcommand), config.runs_dir, config.name)
        config.ckpt_path, self.checkpoints = found[0] if found else None, found
        if self.subcommand == "predict":
            config.return_predictions = False  # a callback writes them
        check_options(self._parser(self.subcommand), config, (*_CALLBACKS, "trainer", "wandb"))
        if self.subcommand == "fit" and config.ckpt_path is not None:
            self.saved_numerics = saved_numerics(str(config.ckpt_path))
        choose_precision(config.trainer, self.saved_numerics)
        if config.model.compile == "auto":  # the module has no such mode
            config.model.compile, self.has_to_choose_compile = "none", self.subcommand == "fit"
        if self.subcommand != "fit" and config.threads is not None:
            torch.set_num_threads(config.threads)  # `fit` chooses a number once the networks are built
        started = started_processes()
        if started and config.trainer.devices == "auto":
            config.trainer.num_nodes, config.trainer.devices = started

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the Trainer; `before_fit` adds the loggers."""
        config = self.config_init[self.subcommand]
        if self.subcommand != "fit" or isinstance(config.trainer.logger, (bool, type(None))):
            kwargs.setdefault("logger", False)
        plugins = config.trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, AtomicCheckpointIO()]
        kwargs["plugins"] = with_cluster(plugins)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError, ImportError, MisconfigurationException) as error:  # on options of Lightning
            if isinstance(error, UsageError):
                raise
            raise UsageError(trainer_message(error, self.config[self.subcommand].trainer)) from error
        check_processes(cluster_environment_of(trainer), trainer.num_nodes, trainer.num_devices)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Builds the Trainer, without callbacks that its options disable or that the user's callbacks replace."""
        given = config.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        if config.get("enable_progress_bar") is False or any(isinstance(one, AnyProgressBar) for one in given):
            callbacks = [one for one in callbacks if not isinstance(one, AnyProgressBar)]
        if config.get("enable_checkpointing") is False:
            callbacks = [one for one in callbacks if not isinstance(one, ModelCheckpoint)]
        if config.get("barebones"):
            callbacks, config["log_every_n_steps"] = [], None
        elif config.get("enable_model_summary") is not False and not any(isinstance(c, ModelSummary) for c in given):
            callbacks, config["enable_model_summary"] = [*callbacks, Summary()], False
        return super()._instantiate_trainer(config, callbacks)

    def before_fit(self) -> None:
        """Chooses the run folder, and adds the loggers that write there."""
        config, trainer = self.config_init[self.subcommand], self.trainer
        if config.trainer.logger is False or trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
            return
        folder = Path(config.runs_dir) / config.name  # only the first process writes to it
        if trainer.is_global_zero:
            # Only `Checkpoints` removes the rows of `metrics.csv` that come after the checkpoint to resume from.
            checkpoint = config.ckpt_path if self._checkpoints() else None
            self.run_folder = resolve_run_dir(checkpoint, config.runs_dir, config.name)
            folder = self.run_folder.path
        trainer.loggers = loggers(folder, config.name, trainer.loggers, config.wandb, config.tensorboard)

    def before_test(self) -> None:
        """Loads the generators that take turns with that of the first checkpoint."""
        checkpoints.take_turns(self.model, self.checkpoints)

    before_predict = before_test

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with ended_wandb_run():
                super()._run_subcommand(subcommand)
        except BaseException as error:
            self._discard_empty_run()
            if isinstance(error, UsageError) or not isinstance(error, Exception):
                raise
            if message := message_of_callback(error):
                raise UsageError(f"--trainer.callbacks: {message}; change its options, or omit it") from error
            if not fails_to_restore(error):
                raise
            got = f"{self.config[subcommand].ckpt_path} ({reason_of(error)})"
            raise UsageError(f"--ckpt_path: expected a checkpoint of this model, got {got}; name another") from error
        if subcommand == "fit" and self.trainer.is_global_zero:
            print_results(self.trainer, self.run_folder)

    def _begin_with_weights(self, source: str | None, ckpt_path: str | None) -> None:
        """Sets the weights with which a new run begins."""
        if ckpt_path is not None:
            return
        if source is not None:
            for line in initialize_from(self.model, source, self.datamodule.class_names):
                rank_zero_info(f"--init_from: {line}")
        elif self.model.discriminator_frozen_layers:
            raise UsageError(
                "--model.discriminator_frozen_layers: expected 0 for a run that begins with random weights, got "
                f"{self.model.discriminator_frozen_layers}; name a trained model with --init_from"
            )

    def choose_compile(self) -> None:
        """Replaces `--model.compile auto`, also in `config.yaml`, once the run and the length of it are known."""
        if self.has_to_choose_compile:
            self.has_to_choose_compile = False
            config = self.config[self.subcommand]
            parts = self.trainer, self.model, self.datamodule
            config.model.compile = choose_compile(config, *parts, self.saved_numerics)

    def fit(self, **kwargs: Any) -> None:
        """Chooses the number of CPU threads and what is compiled, and trains; after a signal, prints how to resume."""
        try:
            config, networks = self.config[self.subcommand], (self.model.generator, self.model.discriminator)
            batch_size = self.datamodule.batch_size
            self._begin_with_weights(config.init_from, config.ckpt_path)
            config.threads = choose_threads(config.threads, self.trainer, networks, batch_size, self.saved_numerics)
            self.choose_compile()
            self.trainer.fit(**kwargs)
        except SystemExit:  # raised by Lightning after Ctrl-C
            if self.trainer.is_global_zero:
                print_resume_command(self.trainer, self.run_folder)
            checkpoints = self._checkpoints()
            stopped_by = checkpoints.signals.stopped_by if checkpoints else None
            raise SystemExit(128 + (stopped_by or signal.SIGINT)) from None

    def _checkpoints(self) -> Checkpoints | None:
        return next((c for c in self.trainer.checkpoint_callbacks if isinstance(c, Checkpoints)), None)

    def _discard_empty_run(self) -> None:
        """Removes the folder of a run that has not completed a step."""
        if self.run_folder is None:
            return
        checkpoints = self._checkpoints()
        has_begun = self.trainer.global_step > 0 if checkpoints is None else checkpoints.has_begun
        # If the Trainer spawns processes, they train with copies of the callbacks.
        has_files = any(self.run_folder.path.glob("checkpoints/*")) or (self.run_folder.path / "metrics.csv").exists()
        if not has_begun and not has_files:
            self.run_folder.discard()
