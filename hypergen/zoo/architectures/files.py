"""What the run folder of a graph hypernetwork says of its architectures."""

from __future__ import annotations

from pathlib import Path

from hypergen._utils.errors import RunError
from hypergen._utils.io import read_json, write_json
from hypergen.zoo.architectures.problems import LearningProblem
from hypergen.zoo.architectures.space import ArchitectureSpace

FILE = "architectures.json"


def save_setting(run: Path, problem: LearningProblem, space: ArchitectureSpace) -> None:
    """Writes what a hypernetwork is trained for."""
    write_json(run / FILE, {"problem": problem.to_dict(), "space": space.to_dict()})


def load_setting(run: Path) -> tuple[LearningProblem, ArchitectureSpace]:
    """Reads what `save_setting` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    data = read_json(run / FILE)
    try:
        problem = LearningProblem.from_dict(data["problem"])
        return problem, ArchitectureSpace.from_dict(data["space"])
    except (KeyError, TypeError, RunError) as error:
        raise RunError(f"{run / FILE} is damaged: {error}") from error
