"""Checkpoints: one a run, written whole, read without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from hypergen._utils.errors import RunError, RunNotFoundError, UsageError
from hypergen.training.loggers import MetricsLogger


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint of `GeneratorModule` without unpickling anything but tensors.

    Raises:
        RunError: The file is missing, damaged, or no such checkpoint.
    """
    if not Path(path).is_file():
        raise RunNotFoundError(f"{path} does not exist")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds, with messages of many lines
        reason = str(error).split("\n", 1)[0]
        raise RunError(f"{path} is not a readable checkpoint: {reason}") from error
    keys = ("state_dict", "generator", "hyper_parameters")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in keys):
        raise RunError(f"{path} is not a checkpoint of a generator")
    return checkpoint


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint, the last: every so many steps and after the final one.

    Written beside its place and renamed, so that a killed process leaves a whole one. The metrics
    are written first: they never lag behind.

    Args:
        path: The file.
        every: Steps between checkpoints.

    Raises:
        UsageError: `every` is not positive.
    """

    def __init__(self, path: str | Path, every: int = 1000) -> None:
        if every < 1:
            raise UsageError(f"checkpoint_every must be at least 1, not {every}")
        self.path, self.every = Path(path), every
        self._saved = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the metrics go on where a resumed run goes on."""
        self._saved = trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLogger) and trainer.ckpt_path is not None:
                logger.resume(_step(trainer.ckpt_path))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Saves, if it is time."""
        step = trainer.global_step
        epochs = trainer.max_epochs or -1
        final = step == trainer.max_steps or (
            trainer.is_last_batch and trainer.current_epoch + 1 == epochs
        )
        if step == self._saved or not (final or step % self.every == 0):
            return  # also when gradients are being accumulated
        self._saved = step
        for logger in trainer.loggers:
            logger.save()
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self.path)


def _step(path: str | Path) -> int:
    return int(read_checkpoint(path)["global_step"])
