"""The run folder's metrics.csv, the progress bar, and silence."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from hypergen._utils.io import write_text
from hypergen._utils.progress import progress


class MetricsLogger(Logger):
    """Metrics as one CSV file at the top of the run folder; a row a step.

    Unlike Lightning's `CSVLogger` it goes on where a resumed run goes on: rows of steps that the
    checkpoint does not know are dropped, then written again. `step` counts finished steps.

    Args:
        path: The file.
        flush: Rows kept in memory before the file is written.
    """

    def __init__(self, path: str | Path, flush: int = 20) -> None:
        super().__init__()
        self.path, self.flush = Path(path), flush
        self._rows: dict[int, dict[str, float]] = {}
        self._unsaved = 0

    @property
    def name(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder, where checkpoints without a folder of their own go too."""
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder has them in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds to the row of a step."""
        row = self._rows.setdefault((step or 0) + 1, {})
        row.update({name: float(value) for name, value in metrics.items()})
        self._unsaved += 1
        if self._unsaved >= self.flush:
            self.save()

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Takes over the rows of an earlier run, up to and including `step`."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                number = int(line.pop("step"))
                if number <= step:
                    self._rows[number] = {k: float(v) for k, v in line.items() if v}

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, whole."""
        self._unsaved = 0
        names = sorted({name for row in self._rows.values() for name in row})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *names], lineterminator="\n")
        writer.writeheader()
        for step, row in sorted(self._rows.items()):
            writer.writerow({"step": step, **row})
        write_text(self.path, text.getvalue())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.save()


class ProgressBar(Callback):
    """A bar on standard error, drawn on a terminal only.

    Args:
        desc: Words before it.
    """

    def __init__(self, desc: str = "training") -> None:
        self.desc = desc
        self._bar: Any = None
        self._shown: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where training begins."""
        if trainer.is_global_zero:
            steps = trainer.estimated_stepping_batches
            total = int(steps) if steps != float("inf") else None
            self._bar = progress(total=total, desc=self.desc, unit="step")
            self._bar.update(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Moves the bar by the optimiser's steps."""
        bar = self._bar
        if bar is None or bar.disable:
            return
        bar.update(trainer.global_step - bar.n)
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if bar.n % every == 0:
            metrics = trainer.logged_metrics
            self._shown.update({k: float(v) for k, v in metrics.items() if k != "train/lr"})
            bar.set_postfix({k: f"{v:.4g}" for k, v in self._shown.items()}, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


# What Lightning warns of, and why it does not concern us.
_EXPECTED = (
    r".*GPU available but not used",  # said so by the options
    r".*The number of training batches \(\d+\) is smaller than the logging interval",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call of torch
    # Lightning's own calls of the parser, and the parser's notice that it says so once.
    r"(?s).*instantiate_classes",
    r"\s*By default only one JsonargparseDeprecationWarning",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's notices (devices, tips) and the warnings that are expected here."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
