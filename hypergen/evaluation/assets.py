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
            with: `oracle_steps`, `oracle_options`, `train_wordings`, `chunk`.
    """

    suite: TaskSuite
    zoo: Zoo | None = None
    multitask: Weights | None = None
    bank: DescriptionBank | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def save(self, run: str | Path) -> None:
        """Writes `suite.json` and `baselines/` into a run folder."""
        run = Path(run)
        self.suite.save(run)
        if self.zoo is not None:
            self.zoo.save(run / ZOO_FILE, self.suite)
        if self.multitask is not None:
            self.multitask.detach().save(run / MULTITASK_FILE)
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
        multitask = Weights.load(run / MULTITASK_FILE) if (run / MULTITASK_FILE).exists() else None
        bank = _bank(run / BANK_FILE, suite) if (run / BANK_FILE).exists() else None
        settings = read_json(run / SETTINGS_FILE) if (run / SETTINGS_FILE).exists() else {}
        known = {"oracle_steps", "oracle_options", "train_wordings", "chunk"}
        if not isinstance(settings, dict) or not set(settings) <= known:
            raise RunError(
                f"{run / SETTINGS_FILE} is damaged: it may hold {', '.join(sorted(known))}"
            )
        return RunAssets(suite, zoo, multitask, bank, settings)


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
