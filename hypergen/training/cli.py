"""`hypergen fit|validate|test`: recipes in YAML, run by Lightning's command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from hypergen._utils.errors import (
    HypergenError,
    RunNotFoundError,
    UsageError,
    did_you_mean,
)
from hypergen._utils.io import dump_json
from hypergen.generators import load
from hypergen.training.base import TrainingModule
from hypergen.training.loggers import quiet
from hypergen.training.messages import explain
from hypergen.training.module import GeneratorModule
from hypergen.training.recipes import module_class, resolve_recipe
from hypergen.training.run import (
    GENERATOR,
    LAST,
    open_run,
    run_callbacks,
    run_loggers,
    train,
    trainer_defaults,
    write_config,
)

VERBS = ("fit", "validate", "test")


class RecipeCLI(LightningCLI):
    """Reads a recipe: `data`, `model` and `trainer`, and the options of the run itself.

    The generator is named without spec and encoder: these come from the data module, which is
    built first (`spec` and `encoder` are linked to it).

    Args:
        verb: `fit`, `validate` or `test`.
        words: The rest of the command line.
        folder: The run folder, when it follows from the recipe's name.
        module: What trains: a class whose first argument is the generator.
    """

    def __init__(
        self,
        verb: str,
        words: Sequence[str],
        folder: Path,
        module: type[TrainingModule] = GeneratorModule,
    ) -> None:
        self.verb, self.folder, self.module = verb, folder, module
        super().__init__(
            module,
            LightningDataModule,
            subclass_mode_data=True,
            run=False,
            args=list(words),
            save_config_callback=None,
            trainer_defaults={**trainer_defaults(), "max_steps": 1000},
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "prog": f"hypergen {verb}",
                "description": f"{verb.capitalize()}s a recipe." if verb != "fit" else "Trains.",
                "dump_header": [f"A recipe: hypergen {verb} -c FILE"],
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # `TrainingModule` does that itself
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of the run."""
        add = parser.add_argument
        add("--run", type=str | None, default=None, help="run folder (default: runs/RECIPE)")
        add("--seed", type=int, default=0, help="seed of everything")
        if self.verb == "fit":
            add("--resume", action="store_true", help="go on from the folder's last checkpoint")
            add("--overwrite", action="store_true", help="replace what the run folder holds")
        else:  # so that a run's own config.yaml can be read back
            for name in ("resume", "overwrite"):
                add(f"--{name}", type=bool, default=False, help=argparse.SUPPRESS)
        add("--init", type=str | None, default=None, help="run whose generator to start from")
        add("--wandb", type=bool, default=False, help="also log to Weights & Biases")
        add("--tensorboard", type=bool, default=False, help="also log to TensorBoard")
        add("--checkpoint_every", type=int, default=1000, help="steps between checkpoints")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what the data module knows to the generator, and the seed to both."""
        linked = ("spec", "encoder") if issubclass(self.module, GeneratorModule) else ()
        for name in linked:
            parser.link_arguments(
                "data",
                f"model.generator.init_args.{name}",
                compute_fn=_attribute(name),
                apply_on="instantiate",
            )
        parser.link_arguments("seed", "model.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and says in one line what is wrong.

        Raises:
            UsageError: An option, a key of the recipe or a value is wrong.
        """
        try:
            self.config = parser.parse_args(args)
        except (argparse.ArgumentError, ValueError, TypeError, KeyError) as error:
            raise UsageError(explain(str(error), parser, self.verb)) from error

    def _set_seed(self) -> None:
        """The seed is set before the classes are made."""

    def before_instantiate_classes(self) -> None:
        """Seeds, hands the seed to the data module, and checks the run folder early."""
        config = self.config
        torch.manual_seed(config.seed)
        init_args = config.data.get("init_args") if isinstance(config.data, Namespace) else None
        if init_args is not None and "seed" in init_args:
            init_args["seed"] = config.seed
        self.folder = Path(config.run) if config.run else self.folder
        config.run = str(self.folder)
        if self.verb == "fit":
            self._check_folder()
        elif not (self.folder / GENERATOR).is_dir():
            raise RunNotFoundError(f"{self.folder / GENERATOR} does not exist: train it first")

    def _check_folder(self) -> None:
        config, run = self.config, self.folder
        if config.resume and config.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        used = any((run / name).exists() for name in (LAST, GENERATOR))
        if used and not (config.resume or config.overwrite) and _is_first_process():
            raise UsageError(f"{run} holds a run: add --resume, --overwrite, or another --run DIR")

    def instantiate_classes(self) -> None:
        """Makes data module, module and trainer.

        Raises:
            UsageError: A constructor refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except HypergenError:
            raise
        except ValueError as error:
            # What building the data module's parts raised, wrapped by the link that asked.
            if isinstance(error.__cause__, HypergenError):
                raise error.__cause__ from None
            if "Union subtypes" not in str(error):
                raise
            # What a constructor raised, wrapped by the parser.
            raise UsageError(explain(str(error), self.parser, self.verb)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs and saves into the run folder."""
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        own = None if self.verb != "fit" or config.get("fast_dev_run") else self.folder
        given = config.get("logger")
        extra = given if isinstance(given, list) else [given]
        loggers = run_loggers(own, wandb=self.config.wandb, tensorboard=self.config.tensorboard)
        config["logger"] = [*loggers, *(x for x in extra if x not in (None, True, False))] or False
        callbacks = run_callbacks(own, self.config.checkpoint_every, "training")
        config["callbacks"] = [*(config.get("callbacks") or []), *callbacks]
        config["enable_checkpointing"] = own is not None
        try:
            return Trainer(**config)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(f"trainer: {error}") from error


def _attribute(name: str) -> Any:
    def read(data: Any) -> Any:
        if not hasattr(type(data), name) and not hasattr(data, name):
            raise UsageError(f"the data module {type(data).__name__} has no `{name}`")
        return getattr(data, name)

    return read


def _is_first_process() -> bool:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def main(argv: Sequence[str]) -> int:
    """Runs `fit`, `validate` or `test`.

    `fit` prints nothing but its progress; the other two print their metrics as one JSON object.

    Args:
        argv: The verb and the words behind it.

    Returns:
        The exit code 0.

    Raises:
        UsageError: Unknown recipe, option or value; names the nearest.
        RunError: The run folder is missing or damaged.
    """
    verb, *words = argv
    try:
        result = command(verb, words)
    except SystemExit as error:  # --help and --print_config leave the parser this way
        return int(error.code or 0)
    if verb != "fit":
        sys.stdout.write(dump_json(result, nonfinite="null"))
    return 0


def command(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """Runs a verb and returns the trainer's last metrics by name; see `main`."""
    if verb not in VERBS:
        raise UsageError(f"unknown command '{verb}'.{did_you_mean(verb, VERBS)}")
    words, folder = resolve_recipe(list(words))
    with quiet():
        cli = RecipeCLI(verb, words, folder, module_class(words))
        module, data, trainer = cli.model, cli.datamodule, cli.trainer
        if cli.config.init and not getattr(cli.config, "resume", False):
            module.start_from(load(cli.config.init), cli.config.init)
        if verb == "fit":
            return _fit(cli)
        module.read_generator(cli.folder / GENERATOR, data)
        run = trainer.validate if verb == "validate" else trainer.test
        results: list[Mapping[str, float]] = run(module, datamodule=data, verbose=False)
        return dict(results[0]) if results else {}


def _fit(cli: RecipeCLI) -> dict[str, Any]:
    trainer, run = cli.trainer, cli.folder
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.fit(cli.model, datamodule=cli.datamodule)
        return {}
    cli.model.connect(cli.datamodule)  # before anything is written
    checkpoint = open_run(run, resume=cli.config.resume) if _is_first_process() else None
    if cli.config.resume:
        checkpoint = run / LAST
    record = cli.config.clone()
    record.resume = record.overwrite = False
    # `config` lists the recipe files, which the record replaces.
    record.pop("config", None)
    write_config(run, cli.parser.dump(record, skip_validation=True, format="yaml"))
    train(trainer, cli.model, cli.datamodule, run, checkpoint)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
