"""The run folder, and one call that trains into it."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from hypergen._utils.errors import RunNotFoundError, UsageError
from hypergen._utils.extras import require
from hypergen._utils.io import write_text
from hypergen._utils.memory import memory_advice
from hypergen.training.base import TrainingModule
from hypergen.training.checkpoints import LastCheckpoint, read_checkpoint
from hypergen.training.loggers import MetricsLogger, ProgressBar, quiet
from hypergen.training.record import describe, plain

CONFIG, METRICS = "config.yaml", "metrics.csv"
GENERATOR, LAST = "generator", "checkpoints/last.ckpt"
# What a run writes and a new run in the same folder replaces; other files are left alone.
_OWN = (
    CONFIG,
    METRICS,
    GENERATOR,
    "checkpoints",
    "tensorboard",
    "wandb",
    "suite.json",
    "text.json",
    "architectures.json",
    "zoo.json",
)


def fit(
    module: TrainingModule,
    data: LightningDataModule,
    run: str | Path | None = None,
    *,
    max_steps: int,
    val_every: int | None = None,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    gradient_clip: float | None = 1.0,
    resume: bool = False,
    wandb: bool = False,
    tensorboard: bool = False,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    desc: str = "training",
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> Trainer:
    """Trains a module, and leaves a run folder that `hypergen.load` reads.

    The folder gets `config.yaml`, `metrics.csv`, `checkpoints/last.ckpt` and, at the end,
    `generator/`; a new run in the same folder replaces them. Afterwards `module.generator` holds
    the trained weights, the averaged ones if there are, and is in evaluation mode. Global random
    numbers are left as they were.

    Args:
        module: What is trained.
        data: Its data module.
        run: The run folder; nothing is written when not given (a warm start, say).
        max_steps: Steps of the optimiser.
        val_every: Batches between validations; none when not given.
        checkpoint_every: Steps between checkpoints; one is always written at the end.
        log_every: Steps between rows of the metrics.
        gradient_clip: Largest norm of the gradient; no limit when None.
        resume: Go on from the folder's last checkpoint.
        wandb: Also log to Weights & Biases (offline with WANDB_MODE=offline).
        tensorboard: Also log to TensorBoard.
        accelerator: Lightning's accelerator.
        devices: Lightning's devices.
        desc: Words before the progress bar.
        callbacks: Further callbacks.
        **trainer: Further arguments of Lightning's `Trainer`.

    Returns:
        The trainer, with `callback_metrics`.

    Raises:
        UsageError: A combination of arguments makes no sense.
        RunNotFoundError: `resume` without a checkpoint.
        WeightsError: The loss became NaN or infinite.
    """
    folder = None if run is None else Path(run)
    if folder is None and (resume or wandb or tensorboard):
        raise UsageError("resume, wandb and tensorboard need a run folder: pass run=")
    module.connect(data)  # before anything is written
    checkpoint = open_run(folder, resume=resume)
    validation: dict[str, Any] = {"limit_val_batches": 0}
    if val_every is not None:
        validation = {"val_check_interval": val_every, "check_val_every_n_epoch": None}
    options = {
        **trainer_defaults(),
        **validation,
        "max_steps": max_steps,
        "log_every_n_steps": log_every,
        "gradient_clip_val": gradient_clip,
        "accelerator": accelerator,
        "devices": devices,
        **trainer,
    }
    with quiet():
        made = Trainer(
            **options,
            logger=run_loggers(folder, wandb=wandb, tensorboard=tensorboard) or False,
            callbacks=[*run_callbacks(folder, checkpoint_every, desc), *callbacks],
            enable_checkpointing=folder is not None,
        )
        if folder is not None:
            config = {"model": describe(module), "data": describe(data), "trainer": options}
            write_config(folder, yaml.safe_dump(plain(config), sort_keys=False))
    return train(made, module, data, folder, checkpoint)


def trainer_defaults() -> dict[str, Any]:
    """Arguments of `Trainer` that differ from Lightning's own defaults."""
    return {
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": False,  # `ProgressBar` writes to standard error instead
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 50,
    }


def train(
    trainer: Trainer,
    module: TrainingModule,
    data: LightningDataModule,
    run: Path | None,
    checkpoint: Path | None,
) -> Trainer:
    """Fits, and writes `generator/` at the end.

    Raises:
        KeyboardInterrupt: The user stopped it; the last checkpoint stays.
        RunError: Memory ran out; names the options to lower.
    """
    cuda = list(range(torch.cuda.device_count()))
    before = signal.getsignal(signal.SIGINT)
    with quiet(), torch.random.fork_rng(devices=cuda):
        if run is not None and trainer.is_global_zero and hasattr(data, "save"):
            data.save(run)
        try:
            with memory_advice("training", getattr(data, "memory_advice", "take smaller batches")):
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:
            if trainer.interrupted:  # Lightning leaves the process upon Ctrl-C
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGINT, before)
                raise KeyboardInterrupt from None
            raise
    generator = module.generator.eval()
    if run is not None and trainer.is_global_zero:
        generator.provenance = {**generator.provenance, "steps": trainer.global_step}
        generator.save_pretrained(run / GENERATOR)
    return trainer


# -- the folder --------------------------------------------------------------------------------


@rank_zero_only
def _clear(run: Path) -> None:
    for name in _OWN:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def open_run(run: Path | None, *, resume: bool) -> Path | None:
    """Makes a run folder ready: empties it, or finds the checkpoint to go on from.

    Raises:
        RunNotFoundError: `resume`, and there is no checkpoint.
        RunError: The checkpoint is damaged.
        UsageError: The name is taken by a file.
    """
    if run is None:
        return None
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is not a folder; choose another name for the run")
    if not resume:
        _clear(run)
        return None
    if not (run / LAST).is_file():
        raise RunNotFoundError(f"{run / LAST} does not exist: there is nothing to resume")
    read_checkpoint(run / LAST)
    return run / LAST


@rank_zero_only
def write_config(run: Path, text: str) -> None:
    """Writes config.yaml."""
    write_text(run / CONFIG, text)


def run_loggers(
    run: Path | None, *, wandb: bool = False, tensorboard: bool = False
) -> list[Logger]:
    """Loggers of a run: always metrics.csv, others by choice.

    Raises:
        MissingExtraError: The package that a logger needs is not installed.
    """
    if run is None:
        return []
    loggers: list[Logger] = [MetricsLogger(run / METRICS)]
    if wandb:
        require("wandb", "wandb", "logging to Weights & Biases")
        from lightning.pytorch.loggers import WandbLogger

        run.mkdir(parents=True, exist_ok=True)
        loggers.append(
            WandbLogger(project="hypergen", name=run.name, save_dir=str(run), log_model=False)
        )
    if tensorboard:
        require("tensorboard", "dev", "logging to TensorBoard")
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(str(run), name="tensorboard", version=""))
    return loggers


def run_callbacks(run: Path | None, checkpoint_every: int, desc: str) -> list[Callback]:
    """Progress bar, and the checkpoint if there is a folder for it."""
    callbacks: list[Callback] = [ProgressBar(desc)]
    if run is not None:
        callbacks.append(LastCheckpoint(run / LAST, checkpoint_every))
    return callbacks
