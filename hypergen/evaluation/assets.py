"""What a run folder keeps so that it can be evaluated later: suite, baselines, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError
from hypergen._utils.io import load_safetensors, read_json, save_safetensors, write_json
from hypergen.evaluation.baselines import DescriptionBank
from hypergen.evaluation.zoo import Zoo
from hypergen.specs import Weights
from hypergen.zoo import TaskSuite

ZOO_FILE, MULTITASK_FILE = "baselines/zoo.safetensors", "baselines/multitask.safetensors"
PLAIN_FILE = "baselines/multitask_plain.safetensors"
KNOWN = {"oracle_steps", "oracle_options", "train_wordings", "chunk", "shots"}
BANK_FILE, SETTINGS_FILE = "baselines/descriptions.safetensors", "baselines/settings.json"


@dataclass(frozen=True)
class RunAssets:
    """The baselines of a run, beside its `suite.json`.

    Attributes:
        suite: The tasks.
        zoo: Weights of the training tasks.
        multitask: Weights trained on all of them at once.
        bank: Descriptions of the training tasks, encoded; saves encoding them again.
        settings: Keyword arguments of `hypergen.evaluation.evaluate` that the run was trained
            with: `oracle_steps`, `oracle_options`, `train_wordings`, `chunk`, `shots`.
        multitask_plain: Like `multitask`, trained without a description being shown.
    """

    suite: TaskSuite
    zoo: Zoo | None = None
    multitask: Weights | None = None
    bank: DescriptionBank | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    multitask_plain: Weights | None = None

    def save(self, run: str | Path) -> None:
        """Writes `suite.json` and `baselines/` into a run folder."""
        run = Path(run)
        self.suite.save(run)
        if self.zoo is not None:
            self.zoo.save(run / ZOO_FILE, self.suite)
        for weights, file in ((self.multitask, MULTITASK_FILE), (self.multitask_plain, PLAIN_FILE)):
            if weights is not None:
                weights.detach().save(run / file)
        if self.bank is not None:
            tensors = {"pooled": self.bank.pooled, "tasks": self.bank.tasks}
            save_safetensors(run / BANK_FILE, tensors)
        write_json(run / SETTINGS_FILE, dict(self.settings))

    @staticmethod
    def load(run: str | Path) -> RunAssets:
        """Reads what `save` wrote; baselines that are not there are None.

        Raises:
            RunError: `suite.json` is missing, or a file is damaged; names the file.
        """
        run = Path(run)
        suite = TaskSuite.load(run)
        zoo = Zoo.load(run / ZOO_FILE, suite) if (run / ZOO_FILE).exists() else None
        multitask, plain = (
            Weights.load(run / file) if (run / file).exists() else None
            for file in (MULTITASK_FILE, PLAIN_FILE)
        )
        bank = _bank(run / BANK_FILE, suite) if (run / BANK_FILE).exists() else None
        settings = read_json(run / SETTINGS_FILE) if (run / SETTINGS_FILE).exists() else {}
        if not isinstance(settings, dict) or not set(settings) <= KNOWN:
            raise RunError(
                f"{run / SETTINGS_FILE} is damaged: it may hold {', '.join(sorted(KNOWN))}"
            )
        return RunAssets(suite, zoo, multitask, bank, settings, plain)


def _bank(path: Path, suite: TaskSuite) -> DescriptionBank:
    tensors = load_safetensors(path)
    pooled, tasks = tensors.get("pooled"), tensors.get("tasks")
    if (
        pooled is None
        or tasks is None
        or pooled.dim() != 2
        or tasks.shape != pooled.shape[:1]
        or not 0 <= int(tasks.min()) <= int(tasks.max()) < len(suite.names)
    ):
        raise RunError(f"{path} is damaged: it needs 'pooled' [M, D] and 'tasks' [M] of the suite")
    return DescriptionBank(pooled, tasks)
